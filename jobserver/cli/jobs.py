"""Commands for users: submit, sql, jobs, contexts, binaries, kill, logs. What they print is for people, or JSON.

Results go to stdout, everything else to stderr. Exit codes: 0 the job finished, 1 refused or no server answers, 3 the job
failed, 4 it was killed, 5 the time is over (the job goes on).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jobserver.addresses import is_address
from jobserver.client import EndedJob, JobClient, Work
from jobserver.client.core import ARROW, FINAL, JSON, PARQUET
from jobserver.errors import BadRequest, TimedOut

CODES = {"FINISHED": 0, "ERROR": 3, "KILLED": 4}
TIME_OVER = 5
FOLLOW_EVERY = 0.5
"""Seconds between two looks of `logs -f`."""
START_PATIENCE = 180.0
"""Seconds that a context may take to start or end."""
FORMATS = {".parquet": PARQUET, ".arrow": ARROW, ".arrows": ARROW, ".json": JSON}
"""Endings of files, and the format of rows in them."""
WIDE = 1000
"""Columns of a table that goes to no terminal."""
COLUMNS = ("jobId", "classPath", "context", "status", "startTime", "duration")


def submit(
    client: JobClient, code: str, work: Work, *, sync: bool, seconds: float | None, as_json: bool
) -> int:
    """Uploads `code` when it is a file (else it names an upload or an address), submits, and with `sync` waits; the exit code."""
    name = client.upload(code) if Path(code).is_file() else code
    if "/" in name and not is_address(name):  # no upload is called so: a mistyped path
        raise BadRequest(f"there is no file {code}")
    return run(client, _with_binary(work, name), sync=sync, seconds=seconds, as_json=as_json)


def run(client: JobClient, work: Work, *, sync: bool, seconds: float | None, as_json: bool) -> int:
    """Submits, and with `sync` waits with a bar; the exit code."""
    job_id = client.submit(work)
    if not sync:
        print(json.dumps({"jobId": job_id}) if as_json else job_id)
        return 0
    try:
        with progress_bar(job_id) as told:
            job = client.end(job_id, seconds=seconds, progress=told)
    except TimedOut as error:
        print(error.message, file=sys.stderr)
        return TIME_OVER
    _show_end(job, as_json=as_json)
    return CODES[job.status]


def save(client: JobClient, work: Work, file: Path, *, seconds: float | None, as_json: bool) -> int:
    """Runs a query, and writes its rows in the format that the file's ending names; the exit code. Raises BadRequest."""
    accept = FORMATS.get(file.suffix.lower())
    if accept is None:
        raise BadRequest(f"'{file}' has none of the endings {', '.join(FORMATS)}")
    job = client.run(replace(work, accept=accept), seconds=seconds)
    if job.status != "FINISHED":
        _show_end(job, as_json=as_json)
        return CODES[job.status]
    data = client.result(job.id, accept)
    file.write_bytes(data)
    shown = {"jobId": job.id, "status": job.status, "file": str(file), "bytes": len(data)}
    tell(f"{file}: {len(data)} bytes.", shown, as_json=as_json)
    return 0


def tell(sentence: str, value: Mapping[str, Any], *, as_json: bool) -> None:
    """What was done, for people or for programs."""
    print(json.dumps(value) if as_json else sentence)


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`key=value` texts. Raises BadRequest."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadRequest(f"--conf takes key=value, not '{text}'")
        found[key.strip()] = value
    return found


def configuration(file: Path | None, given: Sequence[str]) -> str:
    """A configuration of a file (HOCON or JSON), with `key=value` pairs laid over it. Raises BadRequest."""
    text = "" if file is None else file.read_text(encoding="utf-8")
    return text + "".join(f"\n{key} = {_hocon(value)}" for key, value in pairs(given).items())


def _hocon(value: str) -> str:
    """A number, boolean or null as it is, a list or object as it is, anything else as a text."""
    try:
        json.loads(value)
    except ValueError:
        return json.dumps(value)
    return value


def _with_binary(work: Work, name: str) -> Work:
    return replace(work, binaries=(name,))


@contextmanager
def progress_bar(job_id: str) -> Iterator[Callable[[Mapping[str, Any]], None] | None]:
    """What draws a job's progress on stderr; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"job {job_id}", total=None)

        def told(progress: Mapping[str, Any]) -> None:
            fraction, message = shown(progress)
            bar.update(task, total=1.0 if fraction is not None else None, completed=fraction or 0.0)
            bar.update(task, description=message or f"job {job_id}")

        yield told


def shown(progress: Mapping[str, Any]) -> tuple[float | None, str]:
    """Fraction and words of a progress: the job's own, else those of its tasks."""
    tasks = progress.get("tasks") or {}
    total, done = tasks.get("total", 0), tasks.get("done", 0)
    words = str(progress.get("message") or (f"{done} of {total} tasks" if total else ""))
    fraction = progress.get("fraction")
    if fraction is None and total:
        fraction = done / total
    return fraction, words


def _show_end(job: EndedJob, *, as_json: bool) -> None:
    if as_json:
        end = {"jobId": job.id, "status": job.status}
        print(json.dumps({**end, "result": job.value if job.error is None else dict(job.error)}))
    elif job.status == "FINISHED" and _is_rows(job.value):
        _show_rows(job.value)
    elif job.status == "FINISHED":
        print(
            job.value if isinstance(job.value, str) else json.dumps(job.value, indent=2, ensure_ascii=False)
        )
    else:
        error = job.error or {}
        print(f"job {job.id} {job.status}: {error.get('message')}", file=sys.stderr)
        print(error.get("stack") or "", file=sys.stderr)


def _is_rows(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"schema", "rows", "truncated"}


def _show_rows(value: Mapping[str, Any]) -> None:
    """The rows of a DataFrame as a table; that there are more, on stderr."""
    names = [str(column["name"]) for column in value["schema"]]
    rows = [[cell if isinstance(cell, str) else json.dumps(cell) for cell in row] for row in value["rows"]]
    _show(value, rows, names, as_json=False)
    if value["truncated"]:
        print(f"the first {len(rows)} rows; there are more", file=sys.stderr)


def show_jobs(client: JobClient, limit: int, status: str | None, *, as_json: bool) -> None:
    """The list of jobs, newest first."""
    jobs = client.read("/jobs", limit=limit, status=status)
    _show(jobs, [[str(job.get(name, "")) for name in COLUMNS] for job in jobs], COLUMNS, as_json=as_json)


def show_contexts(client: JobClient, *, as_json: bool) -> None:
    """Contexts that live, with state and owner."""
    found = client.read("/cluster")["contexts"]
    names = ("name", "state", "owner", "epoch")
    _show(found, [[str(each.get(name, "")) for name in names] for each in found], names, as_json=as_json)


def show_binaries(client: JobClient, *, as_json: bool) -> None:
    """Uploads by name."""
    found = client.read("/binaries")
    rows = [[name, each["binary-type"], each["upload-time"]] for name, each in sorted(found.items())]
    _show(found, rows, ("name", "kind", "uploaded"), as_json=as_json)


def _show(value: Any, rows: Sequence[Sequence[str]], names: Sequence[str], *, as_json: bool) -> None:
    """A table, whose cells are never cut: ids are there to be copied, and a pipe has no width."""
    if as_json:
        print(json.dumps(value, indent=2))
        return
    table = Table(box=None, header_style="bold")
    for at, name in enumerate(names):
        table.add_column(Text(name), no_wrap=at == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.width = console.width if console.is_terminal else WIDE
    console.print(table)


def follow_log(client: JobClient, job_id: str, *, follow: bool, as_json: bool = False) -> None:
    """Prints what the job wrote; with `follow` until it has ended. As JSON: an object with offset and text for each piece."""
    offset = 0
    while True:
        over = (
            not follow or client.read(f"/jobs/{job_id}")["status"] in FINAL
        )  # looked at before the last piece
        piece = client.log(job_id, offset)
        if piece and as_json:
            text = piece.decode(errors="replace")
            print(json.dumps({"jobId": job_id, "offset": offset, "text": text}), flush=True)
        elif not as_json:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        offset += len(piece)
        if over:
            return
        if not piece:
            time.sleep(FOLLOW_EVERY)

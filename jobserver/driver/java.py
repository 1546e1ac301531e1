"""The command line of the driver's JVM, and the key of its class-data archive (pure but for reading file metadata).

The JVM is started directly as Spark's SparkSubmit: no shell scripts and no launcher JVM, which together cost a second.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobserver.driver.config import BrokenConfig, DriverConfig, is_small

_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)
"""What Spark's JavaModuleOptions opens. Its incubating vector module is left out: small runtimes lack it."""

QUIET = ("-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr")
"""An archive that does not fit is passed over in silence; JVM warnings never go to stdout."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java installation and Spark's jars."""

    executable: Path
    home: Path
    spark_home: Path

    @property
    def jars(self) -> Path:
        return self.spark_home / "jars"

    @property
    def base_archive(self) -> Path | None:
        """The runtime's own archive, on which ours is built; some small runtimes come without one."""
        path = self.home / "lib" / "server" / "classes.jsa"
        return path if path.exists() else None


def find_java(config: DriverConfig) -> Java:
    """The Java and Spark to use. Raises BrokenConfig."""
    found = shutil.which(config.java_executable)
    if found is None:
        raise BrokenConfig(f"there is no Java at {config.java_executable!r}")
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise BrokenConfig("pyspark is not installed")
    executable = Path(found).resolve()
    return Java(executable, executable.parent.parent, Path(spec.origin).parent)


def archive_key(java: Java, flags: tuple[str, ...]) -> str:
    """Changes whenever an archive would not fit any more: other jars, another Java, other flags."""
    files = [java.home / "lib" / "server" / "libjvm.so", *sorted(java.jars.glob("*.jar"))]
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()]
    return hashlib.sha256(repr((str(java.executable), seen, flags)).encode()).hexdigest()[:24]


def flags_of(config: DriverConfig) -> tuple[str, ...]:
    """Options that choose how the JVM works; an archive belongs to them.

    Compiler threads are all there from the start, so those that yield are known (optimizer.py).
    """
    quick = ("-XX:+UseSerialGC",) if is_small(config) else ()
    return (*quick, "-XX:-UseDynamicNumberOfCompilerThreads", *config.java_options)


def command(java: Java, config: DriverConfig, archive: tuple[str, ...], properties: Path) -> list[str]:
    """The whole command line. `archive`: the options that use or make a class-data archive."""
    conf = config.spark_conf
    classpath = [str(java.jars / "*"), *_listed(conf, "spark.driver.extraClassPath")]
    return [
        str(java.executable),
        f"-Xmx{config.driver_memory}",
        *flags_of(config),
        *QUIET,
        *archive,
        "-XX:+IgnoreUnrecognizedVMOptions",
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        "-Djdk.reflect.useDirectMethodHandle=false",
        f"-Djava.io.tmpdir={properties.parent}",  # what Spark leaves there when it is killed goes with the driver's folder
        "-Dio.netty.tryReflectionSetAccessible=true",
        *shlex.split(conf.get("spark.driver.extraJavaOptions", "")),
        "-cp",
        ":".join(classpath),
        "org.apache.spark.deploy.SparkSubmit",
        "--properties-file",
        str(properties),
        *(() if config.proxy_user is None else ("--proxy-user", config.proxy_user)),
        "pyspark-shell",
    ]


def environment(
    base: Mapping[str, str], java: Java, host: str, python: str, settings: Mapping[str, str]
) -> dict[str, str]:
    """The JVM's environment, from ours: what Spark's scripts would have set. `python`: ours; `settings`: Spark's.

    Without `SPARK_USER`, which Spark would believe before it looks for whom it works; without `SPARK_HOME` where that only makes
    Python workers slow (DECISIONS 192).
    """
    ours = {
        "SPARK_CONNECT_MODE": "0",
        "SPARK_LOCAL_IP": host,
        "SPARK_ENV_LOADED": "1",
        "PYTHONHASHSEED": "0",
    }
    inherited = {key: value for key, value in base.items() if key not in ("SPARK_USER", "SPARK_HOME")}
    made = {"PYSPARK_PYTHON": python, **inherited, **ours}
    workers_python = settings.get("spark.pyspark.python", made["PYSPARK_PYTHON"])
    local = settings.get("spark.master", "").partition("[")[0] == "local"
    return made if local and workers_python == python else {**made, "SPARK_HOME": str(java.spark_home)}


def _listed(conf: Mapping[str, str], key: str) -> list[str]:
    return [part for part in conf.get(key, "").split(":") if part]

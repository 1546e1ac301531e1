"""Jars compiled from Java sources by the compiler among Spark's own jars: no JDK is needed."""

from __future__ import annotations

import io
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pyspark

JARS = Path(pyspark.__file__).parent / "jars"


def jar(java: Path, *sources: str) -> bytes:
    """The classes of these sources (each names its package and public class) as a jar."""
    with tempfile.TemporaryDirectory() as folder:
        files = [_written(Path(folder), source) for source in sources]
        classes = Path(folder) / "classes"
        classes.mkdir()
        known = ":".join(map(str, sorted(JARS.glob("*.jar"))))
        demo = "org.codehaus.commons.compiler.samples.CompilerDemo"
        command = [str(java), "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", demo, "-d", str(classes)]
        done = subprocess.run(
            [*command, "-classpath", known, *map(str, files)], capture_output=True, text=True
        )
        made = sorted(classes.rglob("*.class"))
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert made, f"nothing was compiled: {done.stdout}{done.stderr}"
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path in made:
                archive.write(path, path.relative_to(classes).as_posix())
        return data.getvalue()


def _written(folder: Path, source: str) -> Path:
    package = source.partition("package ")[2].partition(";")[0]
    name = source.partition("public class ")[2].split()[0]
    path = folder / "src" / package.replace(".", "/") / f"{name}.java"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path

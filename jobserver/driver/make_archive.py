"""``python -m jobserver.driver.make_archive --config FILE``: one start of Spark whose JVM leaves an archive behind.

Started by a driver that found none (see `archive`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from jobserver.driver import archive
from jobserver.driver.config import DriverConfig
from jobserver.driver.java import find_java
from jobserver.driver.startup import read_config, start_spark_jvm


def main() -> None:
    """Make the archive unless it exists or another process is at it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    config = read_config(parser.parse_args().config)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    path = archive.path_for(config, find_java(config))
    if path is None:
        return
    with archive.only_maker(path) as mine:
        if mine:
            _make(config, path)


def _make(config: DriverConfig, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=config.dir) as folder:
        own = replace(config, dir=Path(folder), archive_dir=None, spark_conf={"spark.master": "local[1]"})
        unfinished, options = archive.making(path, find_java(config))
        jvm = start_spark_jvm(own, options)
        try:
            from jobserver.driver.spark import connect, warm_up_python, warm_up_sql

            spark = connect(jvm, own)
            warm_up_sql(spark)
            warm_up_python(spark)
            jvm.end(archive.DUMP_PATIENCE)
            if unfinished.exists():
                unfinished.rename(path)
                archive.remove_unused(path.parent, time.time())
        finally:
            jvm.end(0)
            unfinished.unlink(missing_ok=True)


def _end_with_parent() -> None:
    """The driver holds the other end of our stdin; when it is gone, so are we and, by its own pipe, our JVM."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()

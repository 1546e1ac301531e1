"""From the configuration file to a running JVM. Imports no Spark: importing it goes on while the JVM starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from jobserver.driver import archive
from jobserver.driver.config import (
    BrokenConfig,
    DriverConfig,
    parse,
    pools_xml,
    properties_text,
    slots_of,
    spark_settings,
)
from jobserver.driver.java import command, environment, find_java
from jobserver.driver.jvm import Jvm, start_jvm
from jobserver.driver.niceness import may_be_lowered


def read_config(path: Path) -> DriverConfig:
    """The configuration in a file. Raises BrokenConfig."""
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenConfig(f"the driver's configuration {path} cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise BrokenConfig(f"the driver's configuration {path} holds no JSON object")
    return parse(plain)


def start_spark_jvm(config: DriverConfig, archive_options: tuple[str, ...] | None = None) -> Jvm:
    """Start the JVM with its settings; with the class-data archive that fits, unless told which options to use."""
    java = find_java(config)
    config.dir.mkdir(parents=True, exist_ok=True)
    pools = config.dir / "pools.xml"
    settings = spark_settings(config, pools)
    pools.write_text(pools_xml(slots_of(settings, os.cpu_count() or 1)))
    properties = config.dir / "spark.properties"
    write_private(properties, properties_text(settings))
    if archive_options is None:
        archive_options = archive.using(archive.path_for(config, java))
    env = environment(os.environ, java, config.reached_at, sys.executable, settings)
    if config.hdfs is not None and config.hdfs.user is not None:
        env["HADOOP_USER_NAME"] = config.hdfs.user  # whoever writes the small files writes the data
    line = command(java, config, archive_options, properties)
    # one that is started to wait yields as a whole (courtesy.py); and what yields must be able to hurry
    yields = not config.warm_up and may_be_lowered()
    return start_jvm(line, env, config.dir, optimizer_yields=yields)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)

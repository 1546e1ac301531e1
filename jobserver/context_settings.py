"""What contexts and their drivers are given, worked out from the server's settings and the context's own."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint.files import FileStore
from checkpoint.stores import HdfsAccess, access_of, is_hdfs, open_store
from jobserver.contexts.jobs import JobsSettings
from jobserver.contexts.launch_spec import LaunchSpec, flatten, launch_spec, whole_number
from jobserver.contexts.launcher import LauncherSettings
from jobserver.contexts.standbys import MODES
from jobserver.errors import BadRequest
from jobserver.local.java import find_java
from jobserver.model import ContextRecord
from jobserver.retention import Limits
from jobserver.settings import Settings, secret_of
from jobserver.settings.checks import ANY_ADDRESS

SIDE_BY_SIDE = 1024
"""Largest `max-jobs` of a context."""


def launcher_settings(settings: Settings, secret: str) -> LauncherSettings:
    """What every driver of this server is started with. Makes the drivers' folder."""
    folder = drivers_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    listen_host, host = driver_hosts(settings)
    return LauncherSettings(
        folder=folder,
        listen_host=listen_host,
        host=host,
        java=str(find_java(settings.driver.java).command),
        archive_dir=archive_dir(settings),
        checkpoint_root=checkpoint_root(settings),
        hdfs=hdfs_access(settings),
        cluster=settings.cluster.name,
        cluster_secret=secret,
        orphan_timeout=settings.driver.orphan_timeout,
        result_limit=settings.contexts.result_limit,
        job_log_limit=settings.contexts.job_log_limit,
        kill_grace=settings.contexts.kill_grace,
        async_interval=settings.checkpoint.async_interval,
        async_max_lag=settings.checkpoint.async_max_lag,
        start_timeout=settings.driver.start_timeout,
    )


def driver_hosts(settings: Settings) -> tuple[str, str]:
    """Where drivers listen, and the address that they tell the servers."""
    server, chosen = settings.server, settings.driver.host
    if server.host in ANY_ADDRESS:
        return server.host, chosen or server.advertised_host
    return chosen or server.host, chosen or server.host


def checkpoint_root(settings: Settings) -> str:
    """Where all servers and drivers find the checkpoints: an absolute path, or a URL of HDFS."""
    root = settings.checkpoint.root
    return root.rstrip("/") if is_hdfs(root) else str(Path(root).absolute())


def hdfs_access(settings: Settings) -> HdfsAccess | None:
    """How HDFS is reached; None where checkpoints lie in a directory."""
    if not is_hdfs(settings.checkpoint.root):
        return None
    chosen = settings.webhdfs
    return HdfsAccess(
        tuple(chosen.namenodes) or access_of(settings.checkpoint.root).namenodes,
        chosen.user,
        chosen.auth,
        None if chosen.token_file is None else chosen.token_file.absolute(),
        chosen.timeout,
    )


def checkpoint_files(settings: Settings) -> FileStore:
    """The checkpoint store of this cluster. Raises the checkpoint's StoreUnavailable."""
    return open_store(checkpoint_root(settings), settings.cluster.name, hdfs_access(settings))


def retention_limits(settings: Settings) -> Limits:
    """How much of the past the cluster keeps."""
    kept = settings.retention
    return Limits(
        jobs_age=kept.jobs_age,
        jobs_count=kept.jobs_count,
        results_age=kept.results_age,
        logs_age=kept.logs_age,
        contexts_age=kept.contexts_age,
        contexts_count=kept.contexts_count,
        versions_age=kept.versions_age,
        versions_count=kept.versions_count,
        audit_age=kept.audit_age,
        bytes_grace=kept.binaries_grace,
    )


def drivers_folder(settings: Settings) -> Path:
    """Where the folders of this server's drivers are."""
    return settings.server.dir.absolute() / "drivers"


def cluster_secret(settings: Settings) -> str:
    """The cluster's secret; a server for itself (loopback only) makes one once and keeps it with its files."""
    secret = secret_of(settings.cluster)
    if secret:
        return secret
    file = settings.server.dir.absolute() / "secret"
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
    return file.read_text()


def archive_dir(settings: Settings) -> Path:
    """Where class archives are kept; made if absent."""
    folder = settings.driver.archive_dir or settings.server.dir.absolute() / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def spec(settings: Settings, context_settings: Mapping[str, Any]) -> LaunchSpec:
    """What the driver of a context with these settings is started with. Raises ContextInitFailed."""
    return launch_spec(
        context_settings,
        master=settings.driver.master,
        driver_memory=f"{settings.driver.memory // 2**20}m",
        python=str(settings.driver.python or ""),
        conf=settings.driver.spark_conf,
    )


def pool_size(settings: Settings) -> int:
    """Warm drivers this server keeps."""
    return 0 if settings.ha.standby == "cold" else settings.driver.warm_drivers


def check_context(settings: Settings, chosen: Mapping[str, Any]) -> None:
    """Refuses settings that no driver could start with, before a context exists. Raises BadRequest, ContextInitFailed."""
    spec(settings, chosen)
    max_jobs(settings, chosen)
    mode = str(dict(flatten(chosen)).get("standby", "cold"))
    if mode not in MODES:
        raise BadRequest(f"context setting standby is {mode!r}; it must be one of {', '.join(MODES)}")


def max_jobs(settings: Settings, chosen: Mapping[str, Any]) -> int:
    """Jobs that run at a time in a context with these settings. Raises BadRequest."""
    return whole_number(chosen, "max-jobs", settings.contexts.max_jobs, least=1, most=SIDE_BY_SIDE)


def jobs_settings(settings: Settings, context: ContextRecord) -> JobsSettings:
    """An ad-hoc context runs one job; others as many as their `max-jobs` or the server's limit says."""
    try:
        return JobsSettings(1 if context.adhoc else max_jobs(settings, context.settings))
    except BadRequest:  # a row of an older release: the server's own limit holds
        return JobsSettings(settings.contexts.max_jobs)

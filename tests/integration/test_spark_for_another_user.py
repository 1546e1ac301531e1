"""A driver whose Spark works for another user, with real Spark: who that is, also for the next driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from driver_client import DriverClient, DriverProcess, Uploads, class_archives

from checkpoint.epoch import begin_epoch
from checkpoint.local import LocalFiles
from jobserver.local.java import find_java

CONTEXT = {"id": "ctx-1", "name": "joes", "settings": {"spark.proxy.user": "joe"}}
SOURCE = """
def who(spark, env, config):
    hadoop = spark.sparkContext._jvm.org.apache.hadoop.security.UserGroupInformation
    return [spark.sparkContext.sparkUser(), hadoop.getCurrentUser().getShortUserName()]

def make(spark, env, config):
    env.named_objects.update("rows", lambda: spark.range(100))
    return who(spark, env, config)

def read(spark, env, config):
    return [env.named_objects.get("rows").count(), *who(spark, env, config)]
"""


def value(client: DriverClient, uploads: Uploads, main: str) -> Any:
    """The result of one job."""
    answer = client.ask(
        "run", job_id=main, attempt=1, main_class=main, binaries=[uploads.python(SOURCE)], config="{}", interactive=True
    )  # fmt: skip
    assert answer["ok"], answer
    event = client.event("finished", main)
    assert event["kind"] == "finished", event["error"]
    return json.loads(event["result"])


def test_spark_works_for_the_named_user_and_so_does_the_next_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_USER", "somebody")
    archives = class_archives()
    uploads = Uploads(tmp_path / "uploads")
    files = LocalFiles(tmp_path / "checkpoints" / "test")
    for epoch, main, told in ((1, "job:make", ["joe", "joe"]), (2, "job:read", [100, "joe", "joe"])):
        folder = tmp_path / f"epoch-{epoch}"
        process = DriverProcess(
            folder,
            proxy_user="joe",
            checkpoint_root=str(tmp_path / "checkpoints"),
            archive_dir=str(archives),
            java={"executable": str(find_java().command)},
        )
        try:
            assert "error" not in process.facts, process.facts
            client = process.connect()
            base = begin_epoch(files, "ctx-1", epoch, f"t{epoch}", b"cluster secret")
            bound = client.ask("activate", context=CONTEXT, epoch=epoch, token=f"t{epoch}", base=base.name)
            assert bound["ok"], bound
            assert value(client, uploads, main) == told
        finally:
            process.stop()

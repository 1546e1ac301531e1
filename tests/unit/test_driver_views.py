"""Named DataFrames as views for JVM jobs: one that cannot be had fails only the jobs that name it."""

from types import SimpleNamespace

import pytest

from jobserver.driver.jvm_jobs import Jars
from sparkjobserver.api import ObjectDamaged
from tests.fakes.named_objects import Context


class Frames:
    """Named DataFrames by name: a version, or what asking for them raises."""

    def __init__(self, tmp_path, **versions):
        self.versions = versions
        self.ready = dict.fromkeys(versions, True)
        self.shown = {}
        catalog = SimpleNamespace(dropGlobalTempView=self.shown.pop)
        spark = SimpleNamespace(root=SimpleNamespace(catalog=catalog))
        self.jars = Jars(spark, tmp_path, lambda: self.ready, self.find)

    def find(self, word):
        version = self.versions[word]
        if isinstance(version, Exception):
            raise version

        def create(name):
            self.shown[name.strip("`")] = version

        return version, SimpleNamespace(_jdf=SimpleNamespace(createOrReplaceGlobalTempView=create))


def test_a_damaged_frame_fails_no_job_that_does_not_ask_for_it(tmp_path):
    frames = Frames(tmp_path, a=ObjectDamaged("a"), b="1")
    frames.jars.share_views([])
    assert frames.shown == {"b": "1"}
    with pytest.raises(ObjectDamaged):
        frames.jars.share_views(["a"])


def test_a_view_whose_newer_version_cannot_be_had_is_dropped_and_comes_back(tmp_path):
    frames = Frames(tmp_path, a="1", b="1")
    frames.jars.share_views([])
    frames.versions["a"] = RuntimeError("Spark failed")
    frames.jars.share_views(["b"])
    assert frames.shown == {"b": "1"}
    frames.versions["a"] = "2"
    frames.jars.share_views([])
    assert frames.shown == {"a": "2", "b": "1"}


def test_a_frame_that_a_recipe_would_have_to_build_is_a_view_only_for_who_asks_for_it(tmp_path):
    frames = Frames(tmp_path, a="1", b="1")
    frames.ready["a"] = False
    frames.jars.share_views([])
    assert frames.shown == {"b": "1"}
    frames.jars.share_views(["a"])
    assert frames.shown == {"a": "1", "b": "1"}


def test_an_object_of_a_recipe_is_ready_once_it_was_built_and_not_after_a_failover(tmp_path):
    first = Context(tmp_path)
    first.make("recipe", "1")
    first.make("written", "1", "materialize")
    assert first.registry.views() == {"recipe": True, "written": True}
    assert Context(tmp_path, epoch=2).registry.views() == {"recipe": False, "written": True}

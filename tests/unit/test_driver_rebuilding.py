"""The thread of a rebuild: whatever it used is released when it ends, by the driver that runs it."""

import threading
from types import SimpleNamespace

import pytest

from jobserver.driver.config import DriverConfig
from jobserver.driver.driver import Driver
from jobserver.driver.lifetime import Lifetime
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.rebuilding import SparkRebuilder
from tests.fakes.named_objects import LIMIT, SYNC, Context


class Place:
    """The driver, without a session of Spark's; tells when a rebuild has been left."""

    def __init__(self, driver):
        self._driver = driver
        self.done = threading.Event()
        self.error = None

    def session(self, attempt):
        return None

    def left(self, attempt):
        try:
            self._driver.left(attempt)
        except Exception as error:  # noqa: BLE001 - the test looks at whatever it was
            self.error = error
        self.done.set()


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path / "store")


@pytest.fixture
def place(context, tmp_path):
    spark = SimpleNamespace(application_id="app", ui_url=None, java=SimpleNamespace())
    driver = Driver(DriverConfig("d", "s", tmp_path, "test", "secret"), spark, Lifetime(60, 5, 0, 0), 0)
    driver._registry = context.registry
    return Place(driver)


def test_what_a_rebuild_made_and_used_is_free_once_it_has_ended(context, place):
    context.registry.update("other", lambda: "1", SYNC, LIMIT)

    def work():
        assert context.registry.get("other", 0) == "1"
        context.registry.update("made", lambda: "2", ObjectOptions(), LIMIT)
        assert context.registry.held("made").users
        assert context.registry.held("other").users

    thread = SparkRebuilder(None, None, place, "d").start("made", work)
    assert isinstance(thread, threading.Thread)
    assert place.done.wait(LIMIT)
    assert place.error is None
    assert context.registry.held("made").users == set()
    assert context.registry.held("other").users == set()

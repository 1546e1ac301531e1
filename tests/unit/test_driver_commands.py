"""Requests that come at the same time from an owner and its successor."""

import threading
from types import SimpleNamespace

import pytest

from jobserver.driver.commands import Commands
from jobserver.driver.config import DriverConfig
from jobserver.driver.driver import Driver
from jobserver.driver.lifetime import Lifetime
from jobserver.protocol import Refused

LIMIT = 20.0
CONTEXT = {"id": "c1", "name": "one", "settings": {}}
RUN = {"t": "run", "n": 9, "job_id": "j", "attempt": 1, "main_class": "m:f", "binaries": [], "config": "{}"}


class Wire:
    """A connection that keeps what was sent on it."""

    def __init__(self):
        self.lock = threading.RLock()
        self.open = True
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    send_soon = send

    def flush(self):
        return True

    def close(self):
        self.open = False

    def reply(self, number):
        return next(message for message in self.sent if message.get("n") == number)


class HeldRunner:
    """The runner of a driver, whose `start` waits at its door until the test lets it in."""

    def __init__(self, runner):
        self._runner = runner
        self.entered = threading.Event()
        self.let_in = threading.Event()

    def start(self, order):
        self.entered.set()
        assert self.let_in.wait(LIMIT)
        self._runner.start(order)


@pytest.fixture
def driver(tmp_path):
    java = SimpleNamespace(scala_context=SimpleNamespace(isStopped=lambda: False))
    spark = SimpleNamespace(application_id="app", ui_url=None, java=java)
    config = DriverConfig("d", "s", tmp_path, "test", "secret")
    return Driver(config, spark, Lifetime(60, 5, 0, 0), pool_size=0)


@pytest.fixture
def commands(driver):
    return Commands(driver, lambda reason: None, 1, lambda: 0.0)


@pytest.fixture
def owner(driver, commands):
    """The connection of the owner under epoch 1."""
    wire = Wire()
    message = {"t": "activate", "n": 1, "context": CONTEXT, "epoch": 1, "token": "t1"}
    commands._handle(wire, message)
    assert wire.reply(1)["ok"]
    return wire


def adopt(commands, wire):
    commands.received(wire, {"t": "hello", "n": 1})
    nonce = wire.reply(1)["nonce"]
    commands.received(wire, {"t": "adopt", "n": 2, "epoch": 2, "token": "t2", "nonce": nonce})


def test_an_attempt_that_begins_while_the_driver_is_adopted_is_told_to_the_new_owner(driver, commands, owner):
    """Otherwise the new owner would conclude that it never reached the driver, and run the job a second time."""
    driver.runner = runner = HeldRunner(driver.runner)
    successor, adopted = Wire(), threading.Event()
    running = threading.Thread(target=commands.received, args=(owner, RUN))
    running.start()
    assert runner.entered.wait(LIMIT), "the owner was checked, the attempt has not begun"
    adopting = threading.Thread(target=lambda: (adopt(commands, successor), adopted.set()))
    adopting.start()
    adopted.wait(0.2)
    runner.let_in.set()
    running.join(LIMIT)
    adopting.join(LIMIT)
    assert owner.reply(9)["ok"]
    assert [job["job_id"] for job in successor.reply(2)["jobs"]] == ["j"]


def test_an_attempt_of_a_replaced_owner_does_not_begin(driver, commands, owner):
    adopt(commands, Wire())
    commands.received(owner, RUN)
    assert owner.reply(9)["refused"] == Refused.NOT_OWNER
    assert driver.attempts.listing() == []


def test_an_activation_lets_the_driver_hurry(driver, commands):
    hurried = []
    driver.hurry = lambda: hurried.append(True)
    commands._handle(Wire(), {"t": "activate", "n": 1, "context": CONTEXT, "epoch": 1, "token": "t1"})
    assert hurried == [True]


def test_a_driver_that_is_not_to_be_warmed_up_says_so(commands, owner):
    commands._handle(owner, {"t": "warm", "n": 7})
    assert owner.reply(7)["warm"] is False

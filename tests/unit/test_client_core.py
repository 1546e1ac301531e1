"""What a client says to a cluster: whom it asks next, what it repeats, how it waits. No I/O, no real time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from jobserver.client.core import (
    UNSENT,
    Conversation,
    Conversations,
    EndedJob,
    Pause,
    Refused,
    Response,
    Send,
    Work,
)
from jobserver.errors import BadRequest, TimedOut, Unavailable

A, B = "http://a:1", "http://b:2"


class World:
    """Answers what a test prepared, and keeps the time that pauses and waits would take."""

    def __init__(self, *answers: Response | None, seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.seconds = seconds
        self.time = 100.0
        self.sent: list[Send] = []

    def now(self) -> float:
        return self.time

    def talk(self, servers: tuple[str, ...] = (A, B), patience: float = 10.0) -> Conversations:
        return Conversations(servers, self.now, patience)

    def hear(self, conversation: Conversation[Any]) -> Any:
        answer: Response | None = None
        try:
            while True:
                step = conversation.send(answer)
                answer = None
                if isinstance(step, Pause):
                    self.time += step.seconds
                else:
                    self.sent.append(step)
                    self.time += self.seconds
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        except StopIteration as done:
            return done.value


def reply(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, json.dumps(value).encode(), headers)


BUSY = reply({"status": "ERROR", "result": "nobody owns it"}, 503, **{"retry-after": "1"})


def test_a_server_that_does_not_answer_is_followed_by_the_next_at_once() -> None:
    world = World(None, reply([]))
    assert world.hear(world.talk().read("/jobs")) == []
    assert [step.url for step in world.sent] == [A, B]
    assert world.time == 100.0


def test_a_server_that_answered_is_asked_again() -> None:
    world = World(None, reply([]))
    talk = world.talk()
    world.hear(talk.read("/jobs"))
    world.hear(talk.read("/jobs"))
    assert [step.url for step in world.sent] == [A, B, B]


def test_when_all_are_busy_the_client_waits_as_long_as_they_ask() -> None:
    world = World(BUSY, BUSY, reply([]))
    world.hear(world.talk().read("/jobs"))
    assert world.time == 101.0


def test_after_its_patience_a_client_says_what_the_last_answer_was() -> None:
    world = World(BUSY)
    with pytest.raises(Unavailable, match="within 10 s; the last: nobody owns it"):
        world.hear(world.talk().read("/jobs"))
    assert world.time <= 110.0


@pytest.mark.parametrize(
    ("body", "title", "message"),
    [
        (b'{"status":"ERROR","result":"no such job"}', "ERROR", "no such job"),
        (b'{"status":"VALIDATION FAILED","result":{"message":"m","errorClass":"c","stack":"s"}}', "VALIDATION FAILED", "m"),
        (b"plain words", "ERROR", "plain words"),
        (b"", "ERROR", "the server answers 404"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_its_own_words_whatever_its_form(body: bytes, title: str, message: str) -> None:
    world = World(Response(404, body))
    with pytest.raises(Refused) as told:
        world.hear(world.talk().read("/jobs/x"))
    assert (told.value.status, told.value.title, told.value.message) == (404, title, message)
    assert len(world.sent) == 1


def test_a_submission_is_repeated_under_its_key() -> None:
    world = World(None, reply({"jobId": "j"}, 202))
    work = Work("m:f", ("a", "b"), context="c d", config={"x": 1}, parameters={"priority": 3})
    assert world.hear(world.talk().submit(work, "k")) == "j"
    first, second = world.sent
    assert (first.path, first.body, first.headers) == (second.path, second.body, second.headers)
    assert first.headers["Idempotency-Key"] == "k"
    assert first.path == "/jobs?sync=false&context=c+d&mainClass=m%3Af&cp=a%2Cb&priority=3"


def test_a_context_is_not_created_twice_when_the_first_answer_is_lost() -> None:
    world = World(None, reply({"status": "SUCCESS"}))
    with pytest.raises(Unavailable, match="is not known"):
        world.hear(world.talk().create_context("c", {"num-cpu-cores": 2}))
    assert [step.path for step in world.sent] == ["/contexts/c?num-cpu-cores=2"]


def test_a_server_that_cannot_be_connected_to_has_done_nothing_so_the_next_is_asked() -> None:
    world = World(UNSENT, reply({"status": "SUCCESS"}))
    world.hear(world.talk().create_context("c", {}))
    assert [step.url for step in world.sent] == [A, B]
    nobody = World(UNSENT)
    with pytest.raises(Unavailable, match=r"the last: http://(a:1|b:2) does not answer"):
        nobody.hear(nobody.talk().create_context("c", {}))


def job(status: str, **more: Any) -> Response:
    return reply({"jobId": "j", "status": status, **more})


ERROR = {"message": "no", "errorClass": "x", "stack": "s"}


@pytest.mark.parametrize(
    ("last", "end"),
    [
        (job("FINISHED", result=[1]), EndedJob("j", "FINISHED", [1])),
        (job("FINISHED"), EndedJob("j", "FINISHED", None)),
        (job("ERROR", result=ERROR), EndedJob("j", "ERROR", None, ERROR)),
        (job("KILLED", result=ERROR), EndedJob("j", "KILLED", None, ERROR)),
    ],
)
def test_a_job_is_waited_for_until_it_has_ended(last: Response, end: EndedJob) -> None:
    world = World(job("QUEUED"), None, job("RUNNING"), last)
    assert world.hear(world.talk().end("j", None, None)) == end
    assert all(step.path == "/jobs/j?wait=20000ms" and step.timeout > 20 for step in world.sent)


def test_progress_is_told_between_the_waits() -> None:
    seen: list[Any] = []
    world = World(job("RUNNING"), reply({"fraction": 0.5}), job("FINISHED"))
    world.hear(world.talk().end("j", None, seen.append))
    assert seen == [{"fraction": 0.5}]


def test_a_wait_that_is_over_says_that_the_job_goes_on() -> None:
    world = World(job("RUNNING"), seconds=2.0)
    with pytest.raises(TimedOut, match="it goes on") as told:
        world.hear(world.talk().end("j", 5.0, None))
    assert told.value.job_id == "j"
    assert world.time == 106.0


@pytest.mark.parametrize("servers", [(), ("a:1",), ("ftp://a",), ("http://",)])
def test_what_is_no_address_is_refused_at_once(servers: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match=r"http://127\.0\.0\.1:8090"):
        World().talk(servers)


def test_a_file_that_is_no_code_is_refused_before_it_is_sent() -> None:
    with pytest.raises(BadRequest, match=r"'\.txt' is no kind of code"):
        World().hear(World().talk().upload("a", b"", ".txt"))


@pytest.mark.parametrize(
    "asked",
    [
        lambda talk: talk.kill("a/b"),
        lambda talk: talk.log("a/b", 3),
        lambda talk: talk.delete_context("a/b"),
        lambda talk: talk.upload("a/b", b"x", ".py"),
    ],
)
def test_names_stay_in_their_place_in_the_path(asked: Callable[[Conversations], Conversation[Any]]) -> None:
    world = World(reply({}))
    world.hear(asked(world.talk()))
    assert "a%2Fb" in world.sent[0].path

"""Every order in which several writers can use one checkpoint store: the real code, stepped one call at a time.

An actor is an ordinary function that calls the store. It is run again and again on the answers it has had so far, until
it asks for one more; that call is then carried out on the model store in every possible order with those of the other
actors. Its next call depends on its answers alone, so states that were seen are not explored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from checkpoint.errors import AlreadyExists, Missing, StoreUnavailable

Call = tuple[str, str, bytes]  # operation, path, data
Event = tuple[str, int, frozenset[str]]  # what, epoch, names of objects
Tell = Callable[[str, int, frozenset[str]], None]
Answer = bytes | tuple[str, ...] | type[Exception] | None
Content = frozenset[tuple[str, bytes]]


class _Asks(BaseException):
    """The actor needs the answer to a call that was not carried out yet."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.call = call


class SteppedFiles:
    """The part of `FileStore` that writers use, answered from a history; the rest must not be called. Subclasses lie, to
    switch a rule off."""

    def __init__(self, history: tuple[Answer, ...]) -> None:
        self._history = history
        self._next = 0

    def ask(self, operation: str, path: str, data: bytes = b"") -> Answer:
        """The answer of history; ends the run when there is none yet."""
        if self._next == len(self._history):
            raise _Asks((operation, path, data))
        answer = self._history[self._next]
        self._next += 1
        if isinstance(answer, type):
            raise answer(path)
        return answer

    def read(self, path: str) -> bytes:
        answer = self.ask("read", path)
        assert isinstance(answer, bytes)
        return answer

    def write_new(self, path: str, data: bytes) -> None:
        self.ask("write_new", path, data)

    def names(self, folder: str) -> list[str]:
        answer = self.ask("names", folder)
        assert isinstance(answer, tuple)
        return list(answer)

    def top(self) -> list[str]:
        raise NotImplementedError

    def copy(self, source: str, target: str) -> None:
        raise NotImplementedError

    def size(self, path: str) -> int:
        raise NotImplementedError

    def remove(self, path: str) -> None:
        self.ask("remove", path)

    def remove_empty(self, folder: str) -> None:
        """No folder is empty here."""

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        raise NotImplementedError

    def share(self, folder: str, user: str) -> None:
        raise NotImplementedError

    def discard_unfinished(self, folder: str) -> None:
        """Nothing is unfinished here."""

    def url(self, path: str) -> str:
        raise NotImplementedError


Actor = Callable[[SteppedFiles, Tell], None]


@dataclass(frozen=True)
class State:
    """A moment: what is in the store, what may still arrive there, what each actor was answered, faults left."""

    content: Content
    late: Content
    histories: tuple[tuple[Answer, ...], ...]
    faults: int


class Exploration:
    """All reachable states of some actors on one store. `faults` writes may lose their reply or arrive late."""

    def __init__(
        self, actors: tuple[Actor, ...], files: type[SteppedFiles] = SteppedFiles, faults: int = 0
    ) -> None:
        self._actors = actors
        self._files = files
        self._first = State(frozenset(), frozenset(), ((),) * len(actors), faults)
        self._known: dict[tuple[int, tuple[Answer, ...]], tuple[tuple[Event, ...], Call | None]] = {}
        self.states = 0
        self.endings = 0

    def stories(self) -> Iterator[tuple[Event, ...]]:
        """What had been told in each reachable state (crashes are states in which an actor does not go on)."""
        seen, todo = {self._first}, [self._first]
        while todo:
            state = todo.pop()
            self.states += 1
            runs = [self._run(index, history) for index, history in enumerate(state.histories)]
            yield tuple(event for events, _ in runs for event in events)
            following = list(self._following(state, [call for _, call in runs]))
            self.endings += not following
            for after in following:
                if after not in seen:
                    seen.add(after)
                    todo.append(after)

    def _run(self, index: int, history: tuple[Answer, ...]) -> tuple[tuple[Event, ...], Call | None]:
        """What an actor told on its history, and the call it makes next; None when it has ended."""
        key = (index, history)
        if key not in self._known:
            told: list[Event] = []
            call = None
            try:
                self._actors[index](self._files(history), lambda *event: told.append(event))
            except _Asks as asks:
                call = asks.call
            self._known[key] = (tuple(told), call)
        return self._known[key]

    def _following(self, state: State, calls: list[Call | None]) -> Iterator[State]:
        for path, data in state.late:
            taken = any(known == path for known, _ in state.content)
            content = state.content if taken else state.content | {(path, data)}
            yield State(content, state.late - {(path, data)}, state.histories, state.faults)
        for index, call in enumerate(calls):
            if call is not None:
                yield from self._outcomes(state, index, call)

    def _outcomes(self, state: State, index: int, call: Call) -> Iterator[State]:
        operation, path, data = call
        answer, content = _carried_out(state.content, call)
        yield _answered(state, index, answer, content, state.late, 0)
        if operation == "write_new" and state.faults:
            yield _answered(state, index, StoreUnavailable, content, state.late, 1)
            yield _answered(state, index, StoreUnavailable, state.content, state.late | {(path, data)}, 1)


def _answered(
    state: State, index: int, answer: Answer, content: Content, late: Content, faults: int
) -> State:
    histories = list(state.histories)
    histories[index] = (*histories[index], answer)
    return State(content, late, tuple(histories), state.faults - faults)


def _carried_out(content: Content, call: Call) -> tuple[Answer, Content]:
    operation, path, data = call
    files = dict(content)
    if operation == "names":
        below = {known[len(path) + 1 :].split("/")[0] for known in files if known.startswith(path + "/")}
        return tuple(sorted(below)), content
    if operation == "read":
        return files.get(path, Missing), content
    if operation == "remove":
        gone = {known for known in files if known == path or known.startswith(path + "/")}
        return None, frozenset(item for item in content if item[0] not in gone)
    if path in files:
        return AlreadyExists, content
    return None, content | {(path, data)}

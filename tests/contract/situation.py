"""Carries out rows of `contract_table`: has ready what they name, sends, and tells how the answer differs."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.contract.contract_table import ANY, COUNT, JOB, PYTHON, Row

Send = Callable[[str, str, bytes, Mapping[str, str]], Awaitable[tuple[int, str, Mapping[str, str]]]]
"""Method, path, body, headers to status, text, headers."""
JOBS = Path(__file__).with_name("contract_jobs.py").read_bytes()


class Situation:
    """What rows name is made when the first asks for it; a context is kept for all rows, other things for one."""

    def __init__(self, send: Send, context: Callable[[], Awaitable[str]]) -> None:
        self._send = send
        self._context = context
        self._kept: dict[str, str] = {}
        self._made: dict[str, str] = {}

    async def differences(self, row: Row) -> list[str]:
        """How the answer is not the row's; empty when it is."""
        self._made = {}
        words = re.findall(r"{(\w+)}", f"{row.request} {row.body!r} {_source(row.answer)}")
        for word in words:
            if hasattr(self, f"_{word}"):
                await self._ready(word)
        method, path = self._filled(row.request).split(" ", 1)
        body = row.body if isinstance(row.body, bytes) else self._filled(row.body).encode()
        status, text, headers = await self._send(method, path, body, row.headers)
        await self._clean()
        found = [] if status == row.status else [f"status {status} instead of {row.status}"]
        found += [
            f"header {name} is {headers.get(name)!r} instead of {value!r}"
            for name, value in row.sent.items()
            if headers.get(name) != value
        ]
        if not self._answers(row, text):
            found.append(f"the body is {text[:600]!r}")
        return found

    def _answers(self, row: Row, text: str) -> bool:
        if isinstance(row.answer, (dict, list)):
            value = json.loads(text)
            if row.ours and isinstance(row.answer, dict):
                if list(value)[: len(row.answer)] != list(row.answer):
                    return False
                value = {key: value[key] for key in row.answer}
            return self._same(value, row.answer)
        return self._same(text, row.answer)

    def _same(self, value: Any, wanted: Any) -> bool:
        if wanted is ANY:
            return True
        if isinstance(wanted, re.Pattern):
            return isinstance(value, str) and re.fullmatch(self._filled(wanted.pattern), value) is not None
        if isinstance(wanted, dict):
            return (
                isinstance(value, dict)
                and list(value) == list(wanted)
                and all(self._same(value[key], item) for key, item in wanted.items())
            )
        return bool(value == (self._filled(wanted) if isinstance(wanted, str) else wanted))

    def _filled(self, text: str) -> str:
        known = {**self._kept, **self._made}
        return re.sub(r"{(\w+)}", lambda found: known.get(found[1], found[0]), text)

    async def _ready(self, word: str) -> str:
        if word not in self._kept and word not in self._made:
            value = await getattr(self, f"_{word}")()
            (self._kept if word in ("context", "ended") else self._made)[word] = value
        return {**self._kept, **self._made}[word]

    async def _clean(self) -> None:
        """Slots are few: jobs that still run are killed."""
        if "running" in self._made:
            await self._send("DELETE", f"/jobs/{self._made['running']}", b"", {})

    # what rows name

    async def _new(self) -> str:
        return f"n{uuid.uuid4().hex[:8]}"

    async def _binary(self) -> str:
        name = f"contract_{uuid.uuid4().hex[:8]}"
        status, text, _ = await self._send("POST", f"/binaries/{name}", JOBS, PYTHON)
        assert status == 201, text
        return name

    async def _binary_of_running(self) -> str:
        await self._ready("running")
        return self._made["binary"]

    async def _ended(self) -> str:
        name = f"e{uuid.uuid4().hex[:8]}"
        for method, wanted in (("POST", "Context initialized"), ("DELETE", "Context stopped")):
            _, text, _ = await self._send(method, f"/contexts/{name}", b"", {})
            assert json.loads(text)["result"] == wanted, text
        return name

    async def _running(self) -> str:
        return await self._job("Sleeping", "", 202)

    async def _killed(self) -> str:
        job_id = await self._job("Sleeping", "", 202)
        status, text, _ = await self._send("DELETE", f"/jobs/{job_id}", b"", {})
        assert status == 200, text
        return job_id

    async def _finished(self) -> str:
        return await self._job("WordCount", COUNT, 200, "&sync=true")

    async def _failed(self) -> str:
        return await self._job("Failing", "", 200, "&sync=true")

    async def _data(self) -> str:
        _, text, _ = await self._send("POST", "/data/table", b"x", {})
        return str(json.loads(text)["result"]["filename"])

    async def _data_quoted(self) -> str:
        return quote(await self._ready("data"), safe="")

    async def _job(self, name: str, body: str, wanted: int, query: str = "") -> str:
        await self._ready("binary")
        await self._ready("context")
        path = self._filled(f"{JOB}{name}&timeout=60{query}")
        status, text, _ = await self._send("POST", path, body.encode(), {})
        assert status == wanted, text
        return str(json.loads(text)["jobId"])


def _source(answer: Any) -> str:
    """The words in an answer, patterns included."""
    if isinstance(answer, re.Pattern):
        return str(answer.pattern)
    if isinstance(answer, dict):
        return " ".join(_source(value) for value in answer.values())
    return str(answer)

"""Binaries of the settings: uploaded once, refused with a sentence when they are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobserver.api.limits import ApiLimits
from jobserver.binaries import Binaries
from jobserver.errors import SettingsRefused
from jobserver.model import BinaryType
from jobserver.preloading import preload
from tests.fakes.database import FakeStore
from tests.fakes.files import FaultyFiles
from tests.fakes.metadata import FakeMetadata


@pytest.fixture
def binaries() -> Binaries:
    return Binaries(FakeMetadata(FakeStore()), FaultyFiles())  # type: ignore[arg-type]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.py"
    file.write_text("x = 1\n")
    return file


def change(code: Path) -> None:
    code.write_text("x = 2\n")


async def test_a_file_is_uploaded_once_and_again_when_it_has_changed(binaries: Binaries, code: Path) -> None:
    assert await preload(binaries, {"demo": code}, ApiLimits()) == ["demo"]
    first = await binaries.find("demo")
    assert first.type is BinaryType.PYTHON
    assert await preload(binaries, {"demo": code}, ApiLimits()) == []
    assert await binaries.find("demo") == first
    change(code)
    assert await preload(binaries, {"demo": code}, ApiLimits()) == ["demo"]
    assert (await binaries.find("demo")).digest != first.digest


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("demo", "absent.py", None, r"binaries\.preload: demo: .*absent\.py cannot be read: No such file"),
        ("demo", "jobs.txt", b"x", r"is no kind of code; the endings are \.jar, \.egg, \.whl, \.zip, \.py"),
        ("demo", "jobs.whl", b"no zip", "Binary is not of the right format"),
        ("a/b", "jobs.py", b"x = 1", "must not contain path separators"),
    ],
)
async def test_what_cannot_be_uploaded_keeps_the_server_from_starting(
    binaries: Binaries, tmp_path: Path, name: str, file: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsRefused, match=sentence):
        await preload(binaries, {name: path}, ApiLimits())
    assert await binaries.all() == []

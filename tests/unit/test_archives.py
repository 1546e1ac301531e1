"""Archives that would hurt whoever unpacks them are known by their directory alone."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver import archives
from jobserver.archives import fault_of, leaves


def packed(entries: dict[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return out.getvalue()


def test_ordinary_archives_pass() -> None:
    assert (
        fault_of(
            packed({"a/__init__.py": b"", "a/b.py": b"x = 1", "META-INF/MANIFEST.MF": b"m", "a..b": b""})
        )
        is None
    )


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"PK\x03\x04 garbage", b"no archive"])
def test_what_is_no_archive_is_not_judged_here(data: bytes) -> None:
    assert fault_of(data) is None


def test_a_bomb_is_known_by_the_sizes_it_declares() -> None:
    bomb = packed({f"{number}": bytes(2**20) for number in range(20)})
    assert len(bomb) < 50_000
    assert (
        fault_of(bomb, most_bytes=2**24)
        == f"The archive unpacks to {20 * 2**20} bytes; at most {2**24} are taken"
    )


def test_a_bomb_that_lies_about_its_size_gives_its_reader_no_more_than_it_says() -> None:
    honest = packed({"a": bytes(2**20)})
    lying = honest.replace((2**20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert fault_of(lying, most_bytes=100) is None
    with zipfile.ZipFile(io.BytesIO(lying)) as archive:
        read = b""
        with pytest.raises(zipfile.BadZipFile), archive.open("a") as entry:
            read = entry.read()
        assert len(read) <= 10


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    assert fault_of(packed({str(number): b"" for number in range(4)})) == (
        "The archive has 4 entries; at most 3 are taken"
    )


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\x", "\\\\host\\x", "C:/x", "c:x", "a/.."]
)
def test_a_path_that_leaves_the_archive_is_refused(name: str) -> None:
    assert (fault_of(packed({name: b"x"})) or "").startswith("The archive has an entry that leaves it")


def test_links_and_encrypted_entries_are_refused() -> None:
    assert "symbolic link" in (fault_of(packed({"a": b"/etc/passwd"}, stat.S_IFLNK | 0o777)) or "")
    plain = bytearray(packed({"a": b"x"}))
    at = plain.index(b"PK\x01\x02") + 8
    plain[at] |= 1
    assert "encrypted" in (fault_of(bytes(plain)) or "")


@given(st.text(max_size=20))
def test_a_name_that_does_not_leave_stays_below_any_folder(name: str) -> None:
    if not leaves(name):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        assert ".." not in parts
        assert not name.startswith("/")


@given(st.binary(max_size=300))
def test_every_text_of_bytes_is_judged_without_an_error(data: bytes) -> None:
    fault_of(b"PK\x03\x04" + data)
    fault_of(packed({"a": b"x"})[:-5] + data)

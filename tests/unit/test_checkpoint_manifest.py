"""Manifests: what goes in comes out, any damage is found, and deltas add up to what was sealed."""

from __future__ import annotations

import cProfile
import hashlib
import hmac
import json
import pstats
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import layout
from checkpoint.contents import (
    Changes,
    Contents,
    applied,
    changed,
    delta_manifest,
    full_manifest,
    pin_manifest,
)
from checkpoint.errors import Damaged, Foreign, StaleAttempt, UnknownFormat
from checkpoint.manifest import (
    INLINE_LIMIT,
    BaseRef,
    FileEntry,
    Kind,
    Manifest,
    NamedObject,
    Progress,
    decode,
    digest_of,
    encode,
)
from checkpoint.records import Records

SECRET = b"the cluster's secret"

texts = st.text(max_size=12)
numbers = st.integers(min_value=0, max_value=10**9)
maybe_bytes = st.none() | st.binary(max_size=40)
entries = st.builds(FileEntry, texts, numbers, st.none() | texts)
objects = st.builds(
    NamedObject,
    name=texts,
    kind=st.sampled_from(Kind),
    version=texts,
    strategy=texts,
    durability=texts,
    storage_level=texts,
    schema=st.none() | texts,
    path=st.none() | texts,
    inline=maybe_bytes,
    files=st.lists(entries, max_size=3).map(tuple),
    rows=st.none() | numbers,
    size=numbers,
    origin=st.none() | texts,
    used=numbers,
)
progresses = st.builds(
    Progress,
    st.integers(min_value=1, max_value=3),
    maybe_bytes,
    st.none() | texts,
    numbers,
    st.none() | texts,
)
contents = st.builds(
    Contents,
    st.lists(objects, max_size=4).map(lambda items: {item.name: item for item in items}),
    st.dictionaries(texts, progresses, max_size=3),
)
refs = st.builds(BaseRef, texts, texts)


def sample() -> Manifest:
    item = NamedObject(
        "käse/..",
        Kind.DATAFRAME,
        "v1",
        "materialize",
        "sync",
        "MEMORY_AND_DISK",
        '{"type":"struct"}',
        "objects/x/v1",
        None,
        (FileEntry("part-0", 12, "ab"),),
        3,
        12,
    )
    return Manifest(
        "c1",
        3,
        7,
        BaseRef("x", "d"),
        False,
        {item.name: item},
        ("gone",),
        {"job": Progress(2, b"\0\xff")},
        ("old",),
    )


@settings(deadline=None)
@given(contents, numbers, numbers, refs)
def test_a_full_manifest_is_read_back_equal(held: Contents, epoch: int, seq: int, base: BaseRef) -> None:
    manifest = full_manifest("c", epoch, seq, base, held)
    data = encode(manifest, SECRET)
    assert decode(data, SECRET, manifest.name) == manifest
    assert encode(decode(data, SECRET, manifest.name), SECRET) == data


@settings(deadline=None)
@given(contents, contents)
def test_a_delta_turns_what_was_into_what_is(before: Contents, after: Contents) -> None:
    manifest = delta_manifest("c", 1, 2, BaseRef("b", "d"), before, after)
    read = decode(encode(manifest, SECRET), SECRET, manifest.name)
    assert applied(before, read) == after


@settings(deadline=None)
@given(contents)
def test_a_delta_holds_only_what_changed(held: Contents) -> None:
    manifest = delta_manifest("c", 1, 2, BaseRef("b", "d"), held, held)
    assert (manifest.objects, manifest.removed, manifest.progress, manifest.forgotten) == ({}, (), {}, ())


def test_the_file_is_json_that_people_can_read() -> None:
    plain = json.loads(encode(sample(), SECRET))
    assert plain["format"] == 3
    assert plain["manifest"]["names"] == ["käse/.."]
    assert plain["manifest"]["objects"][0]["name"] == "käse/.."


@pytest.mark.parametrize("number", [1, 2])
def test_manifests_of_earlier_formats_are_still_read(number: int) -> None:
    plain = json.loads(encode(sample(), SECRET))["manifest"]
    del plain["names"]
    assert not {"origin", "used"} & plain["objects"][0].keys()
    body = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    assert decode(genuine(body, number), SECRET, sample().name) == sample()


def genuine(body: bytes, number: int = 3) -> bytes:
    """A whole manifest's file of that format around any body, sealed with our secret."""
    proof = hmac.new(SECRET, b"manifest %d\n" % number + body, hashlib.sha256).hexdigest()
    head = f'{{"format":{number},"hmac":"{proof}","sha256":"{hashlib.sha256(body).hexdigest()}","manifest":'
    return head.encode() + body + b"}\n"


def body_of(data: bytes) -> bytes:
    return data[data.index(b'"manifest":') + len(b'"manifest":') : -2]


def test_objects_are_parsed_when_they_are_asked_for_and_no_other_is() -> None:
    held = {name: replace(sample().objects["käse/.."], name=name) for name in ("a", "b")}
    body = body_of(encode(full_manifest("c", 1, 1, None, Contents(held)), SECRET))
    broken = body.replace(b'"kind":"dataframe"', b'"kind":"mystery"', 1)
    assert broken != body
    read = decode(genuine(broken), SECRET, layout.manifest_name(1, 1))
    assert (sorted(read.objects), read.objects["b"]) == (["a", "b"], held["b"])
    with pytest.raises(Damaged, match="a is damaged"):
        read.objects["a"]
    after = applied(Contents(read.objects), delta_of_one(replace(held["a"], version="v2")))
    assert after.objects["a"].version == "v2"


def delta_of_one(item: NamedObject) -> Manifest:
    return Manifest("c", 1, 2, BaseRef("b", "d"), False, {item.name: item})


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (b'"names":["a","b"]', b'"names":["a"]'),
        (b'"names":["a","b"]', b'"names":[]'),
        (b'"objects":[', b'"objects":[{},'),
        (b"\n]}", b"]}"),
        (b",\n", b","),
    ],
)
def test_lines_that_do_not_fit_their_names_are_damage(find: bytes, put: bytes) -> None:
    held = {name: replace(sample().objects["käse/.."], name=name) for name in ("a", "b")}
    body = body_of(encode(full_manifest("c", 1, 1, None, Contents(held)), SECRET))
    assert find in body
    with pytest.raises(Damaged, match="not as its format has it"):
        len(decode(genuine(body.replace(find, put)), SECRET, layout.manifest_name(1, 1)).objects)


def test_reading_a_manifest_costs_the_same_calls_for_one_object_and_for_ten_thousand() -> None:
    def calls(count: int) -> int:
        """Steps of Python from the bytes to the contents after them and after a pin; the objects are there all the same."""
        item = NamedObject("x", Kind.VALUE, "v", "materialize", "sync", inline=b"1")
        held = {f"object {n}": replace(item, name=f"object {n}") for n in range(count)}
        data = encode(full_manifest("c", 1, 1, None, Contents(held)), SECRET)
        profile = cProfile.Profile()
        profile.enable()
        contents = applied(Contents(), decode(data, SECRET, layout.manifest_name(1, 1)))
        contents = applied(
            contents, pin_manifest("c", 2, BaseRef(layout.manifest_name(1, 1), digest_of(data)))
        )
        some = bool(contents.objects)
        profile.disable()
        assert some
        assert contents.objects == held
        return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    calls(1)
    assert calls(10_000) == calls(1)


def test_records_of_a_chain_that_are_read_late_are_those_that_are_read_at_once() -> None:
    item = NamedObject("x", Kind.VALUE, "v1", "materialize", "sync", inline=b"1")
    old = Records.of({name: replace(item, name=name) for name in ("kept", "replaced", "removed")})
    new = Records.of({"replaced": replace(item, name="replaced", version="v2")})
    at_once = old.merged(new, ["removed"])
    late = Records.later(lambda: old, some=True).merged(Records.later(lambda: new, some=True), ["removed"])
    assert late == at_once
    assert sorted(late) == ["kept", "replaced"]
    assert late["replaced"].version == "v2"
    emptied = Records.later(lambda: new, some=True).merged(Records(), ["replaced"])
    assert not emptied


class Overtaken(Records):
    """Whoever has seen that there are no lines yet is overtaken by another thread, which makes them."""

    __slots__ = ()

    @property
    def _lines(self) -> dict[str, bytes] | None:  # type: ignore[override]
        seen: dict[str, bytes] | None = Records._lines.__get__(self)
        if seen is None and self._make is not None:
            Records._lines.__set__(self, dict(self._make().lines))
            self._make = None
        return seen

    @_lines.setter
    def _lines(self, lines: dict[str, bytes] | None) -> None:
        Records._lines.__set__(self, lines)


def test_two_threads_that_make_the_same_records_at_once_both_get_them() -> None:
    made = Records.of({"x": NamedObject("x", Kind.VALUE, "v1", "materialize", "sync", inline=b"1")})
    late = Overtaken.later(lambda: made, some=True)
    assert late.lines == made.lines


def test_a_line_under_anothers_name_is_damage() -> None:
    held = {name: replace(sample().objects["käse/.."], name=name) for name in ("a", "b")}
    body = body_of(encode(full_manifest("c", 1, 1, None, Contents(held)), SECRET))
    read = decode(
        genuine(body.replace(b'"names":["a","b"]', b'"names":["b","a"]')), SECRET, layout.manifest_name(1, 1)
    )
    with pytest.raises(Damaged, match="it says that it is 'b'"):
        read.objects["a"]


def test_the_digest_inside_names_the_content() -> None:
    data = encode(sample(), SECRET)
    assert digest_of(data) == json.loads(data)["sha256"]
    with pytest.raises(ValueError, match="no manifest"):
        digest_of(data[:-1])


def test_a_change_of_any_bit_of_any_byte_is_found() -> None:
    data, name = encode(sample(), SECRET), sample().name
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(Damaged):
                decode(bytes(broken), SECRET, name)


def test_every_truncation_and_every_extension_is_found() -> None:
    data, name = encode(sample(), SECRET), sample().name
    for length in range(len(data)):
        with pytest.raises(Damaged):
            decode(data[:length], SECRET, name)
    for more in (b"\n", b"\0", b" ", data):
        with pytest.raises(Damaged):
            decode(data + more, SECRET, name)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_replacing_removing_or_doubling_a_stretch_is_found(draw: st.DataObject) -> None:
    data, name = encode(sample(), SECRET), sample().name
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, len(data)))
    middle = draw.draw(
        st.sampled_from([b"", data[start:end] * 2, b"\0" * (end - start)]) | st.binary(max_size=20)
    )
    broken = data[:start] + middle + data[end:]
    if broken != data:
        with pytest.raises(Damaged):
            decode(broken, SECRET, name)


def test_a_manifest_of_another_secret_is_foreign() -> None:
    with pytest.raises(Foreign):
        decode(encode(sample(), b"another"), SECRET, sample().name)


def test_a_manifest_under_another_name_is_damage() -> None:
    data = encode(sample(), SECRET)
    with pytest.raises(Damaged, match="it says that it is"):
        decode(data, SECRET, replace(sample(), seq=8).name)


def test_a_genuine_manifest_of_a_newer_format_is_refused_and_not_called_damaged() -> None:
    body = b'{"anything":"new"}'
    proof = hmac.new(SECRET, b"manifest 4\n" + body, hashlib.sha256).hexdigest()
    digest = hashlib.sha256(body).hexdigest()
    data = b'{"format":4,"hmac":"%s","sha256":"%s","manifest":%s}\n' % (proof.encode(), digest.encode(), body)
    with pytest.raises(UnknownFormat, match="format 4"):
        decode(data, SECRET, "n")


def test_a_genuine_manifest_of_wrong_shape_is_damage_and_no_crash() -> None:
    for body in (b"[]", b"{}", b"null", b'{"objects":3}'):
        proof = hmac.new(SECRET, b"manifest 1\n" + body, hashlib.sha256).hexdigest()
        digest = hashlib.sha256(body).hexdigest()
        data = b'{"format":1,"hmac":"%s","sha256":"%s","manifest":%s}\n' % (
            proof.encode(),
            digest.encode(),
            body,
        )
        with pytest.raises(Damaged):
            decode(data, SECRET, "n")


def test_a_delta_without_predecessor_is_damage() -> None:
    orphan = replace(sample(), base=None)
    with pytest.raises(Damaged, match="no predecessor"):
        decode(encode(orphan, SECRET), SECRET, orphan.name)


def test_a_value_too_big_for_the_manifest_is_refused() -> None:
    with pytest.raises(ValueError, match="inline"):
        NamedObject("n", Kind.VALUE, "v", "materialize", "sync", inline=b"x" * (INLINE_LIMIT + 1))


def test_a_name_that_json_would_change_is_refused() -> None:
    with pytest.raises(ValueError, match="no valid Unicode"):
        NamedObject("\ud83d\ude00", Kind.VALUE, "v", "materialize", "sync")


def test_changes_put_remove_save_and_forget() -> None:
    one, two = (NamedObject(name, Kind.VALUE, "v", "materialize", "sync") for name in ("one", "two"))
    held = Contents({"one": one}, {"old": Progress(1)})
    after = changed(
        held, Changes(put=[two], remove=["one", "never"], progress={"j": Progress(1)}, forget=["old"])
    )
    assert after == Contents({"two": two}, {"j": Progress(1)})
    assert held == Contents({"one": one}, {"old": Progress(1)})


def test_an_attempt_that_begins_owns_what_is_saved_by_then() -> None:
    held = Contents(progress={"j": Progress(1, b"saved", size=5)})
    after = changed(held, Changes(begun={"j": 2, "new": 3})).progress
    assert after == {"j": Progress(2, b"saved", size=5), "new": Progress(3)}
    with pytest.raises(StaleAttempt):
        changed(Contents(progress=after), Changes(begun={"new": 2}))


def test_progress_of_an_attempt_that_is_over_is_refused() -> None:
    held = Contents(progress={"j": Progress(2, b"new")})
    assert changed(held, Changes(progress={"j": Progress(2, b"newer")})).progress["j"].inline == b"newer"
    with pytest.raises(StaleAttempt) as stale:
        changed(held, Changes(progress={"j": Progress(1, b"stale")}))
    assert (stale.value.attempt, stale.value.current) == (1, 2)

"""The configuration language of posted bodies: what it understands, what it refuses, and its bounds."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyhocon import ConfigFactory

from jobserver.api.hocon_parser import MAX_NESTING, HoconError, parse
from jobserver.api.hocon_resolver import nesting, resolve


def read(text: str) -> object:
    return resolve(parse(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# only a comment\n// and another", {}),
        ("input.string = a b c a b see", {"input": {"string": "a b c a b see"}}),
        ("a = 1, b = 2\nc : 3", {"a": 1, "b": 2, "c": 3}),
        ("{ a { b = 1 }, a.c = 2 }", {"a": {"b": 1, "c": 2}}),
        ("a = [1, 2\n 3,]", {"a": [1, 2, 3]}),
        ("a = [1] [2, 3]", {"a": [1, 2, 3]}),
        ("a = { x = 1 } { y = 2 }", {"a": {"x": 1, "y": 2}}),
        ("a = 1.50\nb = 1e3\nc = -7\nd = 007", {"a": 1.5, "b": 1000.0, "c": -7, "d": 7}),
        ("memory-per-node = 512m", {"memory-per-node": "512m"}),  # pyhocon: a duration of 512 minutes
        ("a = 10 s\nb = 1.2.3\nc = 5GB", {"a": "10 s", "b": "1.2.3", "c": "5GB"}),
        ("a = true\nb = null\nc = false x", {"a": True, "b": None, "c": "false x"}),
        ('a = """x\n"y"""" ', {"a": 'x\n"y"'}),
        ('a = "tab\there \\u00e9\\n"', {"a": "tab\there é\n"}),
        ('"a.b".c = 1\n"" = 2', {"a.b": {"c": 1}, "": 2}),
        ("a b c = 5", {"a b c": 5}),
        ("ключ = значение 日本", {"ключ": "значение 日本"}),
        ("a = x // comment\nb = y # comment", {"a": "x", "b": "y"}),
        ("a =\n  1", {"a": 1}),
        ("a = 1\na = 2", {"a": 2}),
        ("a = {x = 1}\na = 5\na = {y = 2}", {"a": {"y": 2}}),
        ("a += 1\na += 2\nb { c += x }", {"a": [1, 2], "b": {"c": ["x"]}}),
        ("include = 3\nincluded = 4", {"include": 3, "included": 4}),
    ],
)
def test_a_text_is_read_as_the_specification_says(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = ${b}\nb = 2", {"a": 2, "b": 2}),
        ("a = ${b.c} x\nb { c = 1.0 }", {"a": "1.0 x", "b": {"c": 1.0}}),
        ('path = /bin\npath = ${path}":/opt"', {"path": "/bin:/opt"}),
        ("a = {x = 1}\na = {y = ${a.x}}", {"a": {"x": 1, "y": 1}}),
        ("x {q = 1}\na = ${x}\na.b = 2\na.c = ${a.q}", {"x": {"q": 1}, "a": {"q": 1, "b": 2, "c": 1}}),
        ("a = ${x} {b = 1}\nx {c = 2, b = 3}", {"a": {"c": 2, "b": 1}, "x": {"c": 2, "b": 3}}),
        ("a = [1]\na = ${a} [2]", {"a": [1, 2]}),
        ("a = ${?nothing}\nb = [${?nothing}, 1]\nc = ${?nothing}x", {"b": [1], "c": "x"}),
        ("a = 1\na = ${?nothing}", {"a": 1}),
        ('a = "${b}"', {"a": "${b}"}),
        ("a = yes ${b}\nb = true", {"a": "yes true", "b": True}),
    ],
)
def test_references_see_the_posted_text_as_the_specification_says(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "a = ${b}",
        "a = ${b}\nb = ${a}",
        "a = ${a}",
        "a = ${a}x",
        "a = ${b.c}\nb = 3",
        "a.b = ${a}",
        "a = ${}",
        "a = ${b..c}",
    ],
)
def test_a_reference_to_nothing_or_in_a_circle_is_refused(text: str) -> None:
    with pytest.raises(HoconError):
        read(text)


def test_the_environment_of_the_server_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    assert read("a = ${?SECRET}\nSECRET = ${?SECRET}") == {}
    with pytest.raises(HoconError, match="environment is not read"):
        read("a = ${SECRET}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "root must be an object"),
        ("a = {", "found the end of the text"),
        ("a = [1", "found the end of the text"),
        ("a = 1 }", "expected a comma"),
        ("{a = 1} b", "text follows"),
        ("a", "has no value"),
        ("a =", "a value is missing"),
        ("a = [1,,2]", "a value is missing"),
        ("= 1", "expected a key"),
        ("a..b = 1", "two dots"),
        ("a = b = c", "reserved"),
        ("x\na = http://h", "line 1"),
        ("a = 1\nb = http://h", "line 2: the character ':' is reserved"),
        ("a = $b", "reserved"),
        ('a = "x', "not closed"),
        ('a = """x', "not closed"),
        ('a = "\\q"', "escape"),
        ("a = {x = 1} [2]", "another kind"),
        ("a = [1] x", "another kind"),
        ("a = 1e999", "out of range"),
        ("a = " + "9" * 5000, "too many digits"),
        ('include "x.conf"', "`include` is not allowed"),
        ('a { include url("http://h") }', "`include` is not allowed"),
        ('include required(file("/etc/passwd"))', "`include` is not allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(HoconError) as refused:
        read(text)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "a=" + "{a=" * 65 + "1" + "}" * 65,
        "a=" + "[" * 65 + "1" + "]" * 65,
        "a=" + "[" * 100_000,
        ".".join("a" * 100) + "=1",
        "a0=1\n" + "\n".join(f"a{i}=[${{a{i - 1}}}]" for i in range(1, 200)),
        "\n".join(f"a{i}=${{a{i + 1}}}" for i in range(500)) + "\na500=1",
        "a0=x\n" + "\n".join(f"a{i}=${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, 60)),
        "a0=[1,1]\n" + "\n".join(f"a{i}=[${{a{i - 1}}},${{a{i - 1}}}]" for i in range(1, 40)),
        "a={x=1}\n" + "a=${a}{y=1}\n" * 60,
        "\n".join(f"a{i}=" + "[" * 40 + f"${{a{i + 1}}}" + "]" * 40 for i in range(60)) + "\na60=1",
    ],
)
def test_depth_and_expansion_are_bounded_without_delay(text: str) -> None:
    started = time.process_time()
    with pytest.raises(HoconError, match=r"nest|expand"):
        read(text)
    assert time.process_time() - started < 5


def test_the_deepest_text_allowed_is_read() -> None:
    inner = MAX_NESTING - 2
    value = read("a=" + "[" * inner + "1" + "]" * inner)
    assert nesting(value) == inner + 1


@pytest.mark.parametrize(
    "unit", ['"', '"""', "${", "\\", "a=", "[", "{", "a.", "#", "//", "+=", "a=b ", "\t", "${?a}", '"\\']
)
def test_reading_takes_time_linear_in_the_text(unit: str) -> None:
    started = time.process_time()
    for text in (unit * (100_000 // len(unit)), "a = " + unit * (100_000 // len(unit))):
        try:
            read(text)
        except HoconError:
            continue
    assert time.process_time() - started < 10


CORPUS = [
    "input.string = a b c a b see",
    'a { b = [1, 2, {c = d}], e = "f" }',
    "a.b.c = 1\na.b.d = 2\na { b { e = 3 } }",
    "x = 1\ny = ${x}\nz = ${x}${y}",
    "base { a = 1, b = 2 }\nchild = ${base} { b = 3 }",
    "spark { context-settings { num-cpu-cores = 2, memory-per-node = 512mb } }",
    "a = true\nb = null\nc = [true, null, 1.5, text]",
    'a : "x y" , b : z',
    "a = ${?b}\nc = 1",
]


@pytest.mark.parametrize("text", CORPUS)
def test_jobs_that_were_tested_with_pyhocon_get_the_same_values(text: str) -> None:
    assert read(text) == json.loads(json.dumps(ConfigFactory.parse_string(text).as_plain_ordered_dict()))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_json_object_is_read_as_json_reads_it(
    value: dict[str, object], indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read(text) == value


@given(st.text(st.sampled_from('ab.${}?[]=:,+"\\ \n#/01-e\tπ'), max_size=60))
def test_no_text_is_answered_with_anything_but_a_value_or_a_refusal(text: str) -> None:
    with suppress(HoconError):
        json.dumps(read(text), allow_nan=False)

"""HOCON text to a tree of nodes; `hocon_resolver` turns that into plain values. Pure, one pass, time linear in the text.

Why not pyhocon, which jobs use: it builds its grammar at each call (8 ms for a one-line body, a hundred times the rest of
a request), keeps global state that threads share, opens the files and URLs an `include` names while it parses, reads the
server's environment for `${PATH}`, and reads `memory-per-node = 512m` as a duration of 512 minutes. A body from the network needs
bounds on size, depth and expansion instead. The syntax is that of the HOCON specification (reserved characters are
refused with a sentence), less `include`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field

MAX_NESTING = 64
"""Deepest nesting of a configuration, and longest chain of references: keeps every recursion far from Python's limit."""

JsonScalar = str | int | float | bool | None


class HoconError(Exception):
    """The text is not HOCON, or cannot be resolved within the bounds. Holds one sentence."""


@dataclass(slots=True)
class Scalar:
    """A literal; `text` is what it adds to a concatenation."""

    value: JsonScalar
    text: str


@dataclass(slots=True)
class Blank:
    """White space between the parts of a concatenation."""

    text: str


@dataclass(slots=True)
class Reference:
    """`${path}` or `${?path}`."""

    path: tuple[str, ...]
    optional: bool
    text: str


@dataclass(slots=True)
class Earlier:
    """What its own field held before: the left side of `+=`."""


@dataclass(slots=True)
class Concat:
    """Values side by side on one line."""

    parts: list[Node]


@dataclass(slots=True)
class Array:
    """`[...]`"""

    items: list[Node]


@dataclass(slots=True)
class Object:
    """`{...}`. Each field keeps what was assigned to it in order, as later values may refer to earlier ones."""

    fields: dict[str, list[Node]] = field(default_factory=dict)


Node = Scalar | Blank | Reference | Earlier | Concat | Array | Object


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text, its kind and where it starts."""

    kind: str
    text: str
    at: int


_PLAIN = r"[^$\"{}\[\]:=,+#`^?!@*&\\\s]"
_TOKEN = re.compile(
    r"(?P<newline>\n)"
    r"|(?P<blank>[^\S\n]+)"
    r"|(?P<comment>(?:\#|//)[^\n]*)"
    r'|(?P<triple>"""(?s:.*?)"{3,})'
    r'|(?P<quoted>"(?:[^"\\\n]|\\[^\n])*")'
    r"|(?P<reference>\$\{[^}\n]*\})"
    r"|(?P<sign>\+=|[{}\[\]:=,])"
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    rf"|(?P<plain>(?:(?!//){_PLAIN})+)",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INCLUDE = re.compile(r"include[ \t]+(?:\"|(?:required|url|file|classpath|package)\()", re.ASCII)
_WORDS: dict[str, JsonScalar] = {"true": True, "false": False, "null": None}
_KEY_KINDS = frozenset({"plain", "number", "quoted", "blank"})
_VALUE_ENDS = frozenset({"newline", "comment", "end", ",", "}", "]"})


def parse(text: str) -> Object:
    """The root object of a HOCON text. Raises HoconError."""
    return _Parser(text).root()


def tokens_of(text: str) -> list[Token]:
    """All tokens of a text, closed by one of kind `end`. A sign's kind is the sign itself."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or (text.startswith('"""', at) and found.lastgroup != "triple"):
            raise HoconError(_unreadable(text, at))
        kind = found.lastgroup or ""
        piece = found.group()
        tokens.append(Token(piece if kind == "sign" else kind, piece, at))
        at = found.end()
    tokens.append(Token("end", "", at))
    return tokens


def _unreadable(text: str, at: int) -> str:
    if text[at] == '"':
        return f"line {_line(text, at)}: a quoted text is not closed"
    return f"line {_line(text, at)}: the character {text[at]!r} is reserved, put the value in double quotes"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def scalar(text: str) -> Scalar:
    """An unquoted word: a number, `true`, `false`, `null`, or itself."""
    if text in _WORDS:
        return Scalar(_WORDS[text], text)
    if _NUMBER.fullmatch(text):
        return Scalar(_number(text), text)
    return Scalar(text, text)


def _number(text: str) -> int | float:
    try:
        value = int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError as error:  # more digits than Python converts
        raise HoconError(f"the number {text[:20]}... has too many digits") from error
    if math.isinf(value):
        raise HoconError(f"the number {text[:20]} is out of range")
    return value


def key_path(tokens: list[Token]) -> tuple[str, ...]:
    """The elements of a key such as `a.b."c.d"`; dots inside quotes do not split. Raises HoconError."""
    elements = [""]
    quoted = [False]
    for token in tokens:
        if token.kind == "quoted":
            elements[-1] += _unescape(token.text)
            quoted[-1] = True
            continue
        first, *others = token.text.split(".")
        elements[-1] += first
        elements.extend(others)
        quoted.extend(False for _ in others)
    if not all(element or was_quoted for element, was_quoted in zip(elements, quoted, strict=True)):
        raise HoconError("a key is empty, or has two dots in a row")
    return tuple(elements)


def _unescape(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted[1:-1]
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError as error:
        raise HoconError(f"the quoted text {quoted[:40]} holds an unknown escape") from error


def assign(target: Object, path: tuple[str, ...], node: Node) -> None:
    """Puts a value under a path as HOCON says: objects merge, everything else comes after what was there."""
    for key in reversed(path[1:]):
        node = Object({key: [node]})
    _add(target, path[0], node)


def _add(target: Object, key: str, node: Node) -> None:
    history = target.fields.setdefault(key, [])
    last = history[-1] if history else None
    if isinstance(node, Object) and isinstance(last, Object):
        for inner, values in node.fields.items():
            for value in values:
                _add(last, inner, value)
    elif isinstance(node, Scalar):
        history[:] = [node]  # nothing before it can be seen any more
    else:
        history.append(node)


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens_of(text)
        self._next = 0

    def root(self) -> Object:
        self._skip(newlines=True)
        if self._peek().kind == "[":
            raise HoconError("the root must be an object, not a list")
        braces = self._peek().kind == "{"
        if braces:
            self._take()
        root = Object()
        self._fields(root, "}" if braces else "end", 1)
        self._skip(newlines=True)
        if self._peek().kind != "end":
            raise self._error("text follows the end of the root object")
        return root

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _skip(self, *, newlines: bool) -> bool:
        """Passes over blanks and comments; true when a line ended in between."""
        crossed = False
        while self._peek().kind in ("blank", "comment") or (newlines and self._peek().kind == "newline"):
            crossed = self._take().kind == "newline" or crossed
        return crossed

    def _error(self, sentence: str) -> HoconError:
        return HoconError(f"line {_line(self._text, self._peek().at)}: {sentence}")

    def _fields(self, target: Object, close: str, depth: int) -> None:
        """Fields up to and with the closing token."""
        self._check_depth(depth)
        self._skip(newlines=True)
        while self._peek().kind != close:
            self._field(target, depth)
            self._separator(close)
        if close != "end":
            self._take()

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_NESTING:
            raise self._error(f"more than {MAX_NESTING} levels are nested")

    def _separator(self, close: str) -> None:
        """Between two entries: a comma, a new line, or nothing before the closing token."""
        separated = self._skip(newlines=True)
        if self._peek().kind == ",":
            self._take()
            self._skip(newlines=True)
        elif not separated and self._peek().kind != close:
            raise self._error(f"expected a comma, a new line or {_name(close)}, found {_found(self._peek())}")

    def _field(self, target: Object, depth: int) -> None:
        token = self._peek()
        if token.kind == "plain" and _INCLUDE.match(self._text, token.at):
            raise self._error("`include` is not allowed in a posted configuration")
        path = self._key()
        self._check_depth(depth + len(path))
        appends = self._peek().kind == "+="
        if self._peek().kind != "{":
            if self._peek().kind not in (":", "=", "+="):
                raise self._error(f"the key {'.'.join(path)!r} has no value")
            self._take()
        self._skip(newlines=True)
        value = self._value(depth + len(path))
        if appends:
            value = Concat([Earlier(), Array([value])])
        assign(target, path, value)

    def _key(self) -> tuple[str, ...]:
        tokens = []
        while self._peek().kind in _KEY_KINDS:
            tokens.append(self._take())
        while tokens and tokens[-1].kind == "blank":
            tokens.pop()
        while tokens and tokens[0].kind == "blank":
            tokens.pop(0)
        if not tokens:
            raise self._error(f"expected a key, found {_found(self._peek())}")
        return key_path(tokens)

    def _value(self, depth: int) -> Node:
        """Everything up to the end of the line, a comma or a closing bracket."""
        parts: list[Node] = []
        while self._peek().kind not in _VALUE_ENDS:
            parts.append(self._part(depth))
        while parts and isinstance(parts[-1], Blank):
            parts.pop()
        if not parts:
            raise self._error("a value is missing")
        return _joined(parts)

    def _part(self, depth: int) -> Node:
        token = self._peek()
        if token.kind == "{":
            self._take()
            inner = Object()
            self._fields(inner, "}", depth + 1)
            return inner
        if token.kind == "[":
            return self._array(depth + 1)
        if token.kind in (":", "=", "+="):
            raise self._error(f"the character {token.text!r} is reserved, put the value in double quotes")
        return _literal(self._take())

    def _array(self, depth: int) -> Array:
        self._check_depth(depth)
        self._take()
        items: list[Node] = []
        self._skip(newlines=True)
        while self._peek().kind != "]":
            items.append(self._value(depth))
            self._separator("]")
        self._take()
        return Array(items)


def _literal(token: Token) -> Node:
    if token.kind == "blank":
        return Blank(token.text)
    if token.kind == "quoted":
        text = _unescape(token.text)
        return Scalar(text, text)
    if token.kind == "triple":
        return Scalar(token.text[3:-3], token.text[3:-3])
    if token.kind == "reference":
        return _reference(token.text)
    return scalar(token.text)


def _reference(text: str) -> Reference:
    optional = text.startswith("${?")
    tokens = tokens_of(text[3 if optional else 2 : -1].strip())[:-1]
    if not tokens or any(token.kind not in _KEY_KINDS for token in tokens):
        raise HoconError(f"{text[:80]} names no key")
    return Reference(key_path(tokens), optional, text)


def _joined(parts: list[Node]) -> Node:
    """One part is itself; words alone are one text; only what needs the resolver stays a concatenation."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Scalar | Blank) for part in parts):
        text = "".join(part.text for part in parts if isinstance(part, Scalar | Blank))
        return Scalar(text, text)
    return Concat(parts)


def _name(close: str) -> str:
    return "the end of the text" if close == "end" else repr(close)


def _found(token: Token) -> str:
    return "the end of the text" if token.kind == "end" else repr(token.text[:40])

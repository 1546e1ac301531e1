"""Resolves a parsed HOCON tree to plain values: references, concatenations and merged objects. Pure.

References are looked up in the posted text only; the environment of the server is never read. A reference to the field
that is being resolved sees what that field held before (`path = ${path}":/opt"`), so a cycle ends as an unknown key.
Work and result are bounded: each value costs its size, and a text whose values would grow beyond the budget is refused.
"""

from __future__ import annotations

from typing import Any, Final

from jobserver.api.hocon_parser import (
    MAX_NESTING,
    Array,
    Blank,
    Concat,
    Earlier,
    HoconError,
    Node,
    Object,
    Reference,
    Scalar,
)

BUDGET = 4_000_000
"""Characters and values that the resolved configuration may have in all."""


MAX_DEPTH = 2 * MAX_NESTING
"""Bound of the recursion here: a level of the text may take two (a concatenation, and an object in it)."""


class _Undefined:
    """The value of an optional reference to nothing."""


UNDEFINED: Final = _Undefined()


def resolve(root: Object, budget: int = BUDGET) -> dict[str, Any]:
    """The plain value of a root object. Raises HoconError."""
    value: dict[str, Any] = _Resolver(root, budget).object(root)
    if nesting(value) > MAX_NESTING:
        raise HoconError(f"more than {MAX_NESTING} levels are nested")
    return value


def nesting(value: Any, limit: int = MAX_NESTING) -> int:
    """How deep lists and objects nest, counted up to `limit + 1`. Shared parts are walked once a level."""
    level, depth = [value], 0
    while depth <= limit:
        unique = {id(item): item for item in level if isinstance(item, dict | list)}
        if not unique:
            return depth
        depth += 1
        level = [
            child for item in unique.values() for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


class _Resolver:
    """One resolution. A history is the list of values of one field; its identity is that of the list."""

    def __init__(self, root: Object, budget: int) -> None:
        self._root = root
        self._left = budget
        self._budget = budget
        self._depth = 0
        self._active: dict[int, int] = {}  # history -> index of the value being resolved
        self._stack: list[list[Node]] = []
        self._looked_back: set[int] = set()
        self._known: dict[tuple[int, int], tuple[Any, int]] = {}

    def _charge(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise HoconError(f"the references expand to more than {self._budget} characters and values")

    def object(self, node: Object) -> dict[str, Any]:
        """The defined fields of an object."""
        self._charge(1)
        resolved = {}
        for key, history in node.fields.items():
            value = self._history(history)
            if value is not UNDEFINED:
                self._charge(len(key))
                resolved[key] = value
        return resolved

    def _history(self, history: list[Node]) -> Any:
        """The value of a field, or of what it held before the value that is being resolved now."""
        me = id(history)
        if me in self._active:
            self._looked_back.add(me)
        upto = self._active.get(me, len(history))
        known = self._known.get((me, upto))
        if known is not None:
            self._charge(known[1])
            return known[0]
        outer_looks, self._looked_back = self._looked_back, set()
        before = self._left
        value = self._evaluate(history, upto)
        # A value that depends on what an outer field held before is right only inside that field.
        outside = {other for other in self._looked_back if other in self._active and other != me}
        if not outside:
            self._known[(me, upto)] = (value, before - self._left)
        self._looked_back = outer_looks | {other for other in self._looked_back if other in self._active}
        return value

    def _evaluate(self, history: list[Node], upto: int) -> Any:
        """From the last value backwards, as long as objects merge with what was before them."""
        outer = self._active.get(id(history))
        self._stack.append(history)
        result: Any = UNDEFINED
        try:
            for index in range(upto - 1, -1, -1):
                self._active[id(history)] = index
                value = self._value(history[index])
                if result is UNDEFINED:
                    result = value
                elif value is not UNDEFINED:
                    if not isinstance(value, dict):
                        break
                    result = _merged(value, result)
                if result is not UNDEFINED and not isinstance(result, dict):
                    break
        finally:
            self._stack.pop()
            self._restore(history, outer)
        return result

    def _restore(self, history: list[Node], outer: int | None) -> None:
        if outer is None:
            del self._active[id(history)]
        else:
            self._active[id(history)] = outer

    def _value(self, node: Node) -> Any:
        if isinstance(node, Scalar | Blank):
            self._charge(1 + len(node.text))
            return node.value if isinstance(node, Scalar) else node.text
        self._deeper()
        try:
            return self._compound(node)
        finally:
            self._depth -= 1

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise HoconError(f"references and objects nest more than {MAX_NESTING} levels deep")

    def _compound(self, node: Reference | Earlier | Concat | Array | Object) -> Any:
        match node:
            case Object():
                return self.object(node)
            case Array():
                self._charge(1)
                return [value for value in map(self._value, node.items) if value is not UNDEFINED]
            case Reference():
                return self._reference(node)
            case Earlier():
                return self._history(self._stack[-1])
            case Concat():
                return self._concat(node)

    def _reference(self, node: Reference) -> Any:
        self._charge(1)
        value = self._lookup(self._root, node.path)
        if value is UNDEFINED and not node.optional:
            raise HoconError(
                f"{node.text[:80]} cannot be resolved: the posted configuration defines no such key before it is"
                " used (the server's environment is not read)"
            )
        return value

    def _lookup(self, target: Object, path: tuple[str, ...]) -> Any:
        """The value under a path. Descends into the written objects, so that fields of one object can use each other."""
        history = target.fields.get(path[0])
        if history is None:
            return UNDEFINED
        if len(path) == 1:
            return self._history(history)
        last = history[-1]
        if isinstance(last, Object):
            self._deeper()
            try:
                value = self._lookup(last, path[1:])
            finally:
                self._depth -= 1
            if len(history) == 1 or (value is not UNDEFINED and not isinstance(value, dict)):
                return value
        return _inside(self._history(history), path[1:])

    def _concat(self, node: Concat) -> Any:
        values = [(part, self._value(part)) for part in node.parts]
        solid = [value for part, value in values if value is not UNDEFINED and not isinstance(part, Blank)]
        if not solid:
            return UNDEFINED
        if all(isinstance(value, dict) for value in solid):
            merged: dict[str, Any] = {}
            for value in solid:
                merged = _merged(merged, value)
            return merged
        if all(isinstance(value, list) for value in solid):
            return [item for value in solid for item in value]
        if any(isinstance(value, dict | list) for value in solid):
            raise HoconError("a list or object stands beside a value of another kind")
        if len(solid) == 1 and len(node.parts) == 1:
            return solid[0]
        return self._text(node, [value for _, value in values])

    def _text(self, node: Concat, values: list[Any]) -> str:
        pieces = []
        for part, value in zip(node.parts, values, strict=True):
            if value is not UNDEFINED:
                pieces.append(part.text if isinstance(part, Scalar) else _as_text(value))
        text = "".join(pieces)
        self._charge(len(text))
        return text


def _inside(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return UNDEFINED
        value = value[key]
    return value


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """`upper` laid over `lower`, object by object; neither is changed."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below, value) if both and below is not None else value
    return merged


def _as_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

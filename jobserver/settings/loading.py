"""From a YAML file to checked `Settings`, and from what pydantic refuses to sentences for the operator."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobserver.errors import SettingsRefused
from jobserver.settings.model import ClusterSettings, DatabaseSettings, Settings

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a section (a mapping of keys to values)",
    "path_type": "a path",
}
_SECRET_KEYS = frozenset({"cluster.secret", "database.password"})


def defaults() -> Settings:
    """What an empty file means."""
    return Settings()


def load(path: Path) -> Settings:
    """The settings in a YAML file. Raises SettingsRefused, one line per fault, when it cannot be read or used."""
    return settings_of(read_sections(path))


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a YAML file as they are written, not checked yet. Raises SettingsRefused when it is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"The settings file {path} cannot be read: {error}.") from error
    return _parsed(text, path)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings in a mapping of sections. Raises SettingsRefused, one line per fault."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsRefused("\n".join(_sentence(fault) for fault in error.errors())) from error


def secret_of(cluster: ClusterSettings) -> str:
    """The cluster's secret, from its key or its file; empty when none is set. Raises SettingsRefused."""
    if cluster.secret is not None:
        return cluster.secret.get_secret_value()
    return _first_line("cluster.secret_file", cluster.secret_file)


def database_url(database: DatabaseSettings, environ: Mapping[str, str]) -> str:
    """The address of the metadata with everything that the store needs in it: a secret. Raises SettingsRefused."""
    password = database.password.get_secret_value() if database.password is not None else ""
    password = password or _first_line("database.password_file", database.password_file)
    parts = {
        "user": database.user or environ.get("JOBSERVER_DATABASE_USER", ""),
        "password": password or environ.get("JOBSERVER_DATABASE_PASSWORD", ""),
        "tls": "true" if database.tls else "",
        "tls_ca": str(database.tls_ca or ""),
        "tls_cert": str(database.tls_cert or ""),
        "tls_key": str(database.tls_key or ""),
        "readers": str(database.readers),
    }
    return _with_query(database.url, {name: value for name, value in parts.items() if value})


def _with_query(url: str, parts: Mapping[str, str]) -> str:
    """The URL with these parts in its query, in place of its own of these names. SQLite's takes none."""
    if url.startswith("sqlite"):
        return url
    address, _, query = url.partition("?")
    own = [(name, value) for name, value in parse_qsl(query) if name not in parts]
    return f"{address}?{urlencode([*own, *parts.items()])}"


def _first_line(key: str, file: Path | None) -> str:
    """The secret in a file, empty when there is none. Raises SettingsRefused."""
    if file is None:
        return ""
    try:
        secret = file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{key} cannot be read: {error}.") from error
    if not secret:
        raise SettingsRefused(f"{key} {file} holds no secret on its first line.")
    return secret


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_NoDuplicates)
    except yaml.YAMLError as error:
        raise SettingsRefused(f"The settings file {path} is no valid YAML: {_one_line(error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsRefused(f"The settings file {path} must hold sections, but it holds {values!r}.")
    # A section whose keys are all commented out reads as null; it means: nothing set here.
    return {str(key): {} if value is None else value for key, value in values.items()}


class _NoDuplicates(yaml.SafeLoader):
    """Refuses a key written twice: the second would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _one_line(error: yaml.YAMLError) -> str:
    """What and where, without the snippet that yaml draws below."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def _sentence(fault: ErrorDetails) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    kind = fault["type"]
    if kind == "unsafe_together":
        return fault["msg"]
    if kind == "extra_forbidden":
        return _unknown_key(key)
    shown = "the value" if key in _SECRET_KEYS else repr(fault["input"])
    return f"{key}: {shown} is not {_expected(fault)}."


def _expected(fault: ErrorDetails) -> str:
    """What the key takes, as the end of a sentence."""
    context = fault.get("ctx", {})
    match fault["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"one of {context['expected']}"
        case "greater_than":
            return f"greater than {context['gt']:g}"
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "less_than_equal":
            return f"at most {context['le']:g}"
        case "string_pattern_mismatch":
            return f"of the form {context['pattern']}"
        case "string_too_short":
            return f"a text of at least {context['min_length']} character"
        case kind:
            return _EXPECTED.get(kind, f"usable ({fault['msg']})")


def _unknown_key(key: str) -> str:
    near = nearest_key(key)
    hint = f"; did you mean {near}?" if near else "."
    return f"{key} is not a setting{hint}"


def nearest_key(key: str) -> str | None:
    """The known key that was probably meant: the same name elsewhere, a like one in its section, a like one elsewhere."""
    section, _, name = key.rpartition(".")
    names = {known: known.rpartition(".") for known in known_keys()}
    same = {last: known for known, (of, _, last) in names.items() if of == section}
    others = {last: known for known, (_, _, last) in names.items()}
    for choice, cutoff in ((others, 1.0), (same, 0.6), (others, 0.8)):
        if near := difflib.get_close_matches(name, choice, n=1, cutoff=cutoff):
            return choice[near[0]]
    return None


def known_keys() -> list[str]:
    """The full names of all sections and keys."""
    keys = []
    for name, section in Settings.model_fields.items():
        keys.append(name)
        assert isinstance(section.annotation, type)
        assert issubclass(section.annotation, BaseModel)
        keys.extend(f"{name}.{key}" for key in section.annotation.model_fields)
    return keys

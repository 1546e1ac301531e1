"""The SQL of one POST /jobs: text, values of its parameters, and how many rows may come back. Pure.

A submission is an SQL job when it names no code. `sql` in the query wins over `sql` in the body; a Python or JVM job may
have a key `sql` of its own in its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobserver.api.bodies import refuse
from jobserver.api.limits import ApiLimits
from jobserver.api.parameters import Query, Whole, Word, in_range
from jobserver.errors import BadRequest
from jobserver.model import SqlQuery

SQL_CLASS = "sql"
"""What an SQL job shows as its class."""
SQL = Word(
    "sql",
    "One SQL statement to run instead of code, over tables and named objects. In the body: `sql`, with `args`.",
)
QUERY = Word("query", "Name of a saved query to run; `args` of the body win over its own.")
LIMIT = Whole("limit", "Rows that an SQL job answers at most; 10,000 if absent.", 0, 100_000_000)
_CODE = ("appName", "classPath", "cp", "mainClass")
_SCALARS = (str, int, float, bool, type(None))


def names_code(query: Query, config: Mapping[str, Any]) -> bool:
    """Whether the submission names a binary, in any of the ways of rest_contract 5.5."""
    return bool(query.get("appName") or query.get("cp") or config.get("cp"))


def sql_query(query: Query, config: Mapping[str, Any], limits: ApiLimits) -> SqlQuery | None:
    """The SQL that is to be run; None when the submission is about code. Raises BadConfig, BadRequest."""
    text = query.get("sql")
    if QUERY.read(query) and (text is not None or names_code(query, config)):
        raise BadRequest("query names a saved statement: it excludes sql, cp and appName")
    if text is not None:
        if given := [name for name in _CODE if query.get(name)]:
            raise BadRequest(f"sql and {given[0]} exclude each other: a job is either a query or code")
    elif not names_code(query, config) and "sql" in config:
        text = config["sql"]
    else:
        return None
    return SqlQuery(sql_text(text, limits), arguments(config.get("args")), _limit(query, config, limits))


def sql_text(text: Any, limits: ApiLimits) -> str:
    """The text of one statement. Raises BadConfig, BadRequest."""
    if not isinstance(text, str) or not text.strip():
        refuse("sql must be the text of one statement")
    if len(text) > limits.max_sql:
        raise BadRequest(f"sql must be at most {limits.max_sql} characters, not {len(text)}")
    return text


def arguments(args: Any) -> str:
    """Named (`:name`) or positional (`?`) values as JSON; each a scalar or an array of such. Raises BadConfig."""
    if args is None:
        return "{}"
    if not isinstance(args, (dict, list)):
        refuse('args must be an object ({"name": value} for :name) or an array (values for ?)')
    for name, value in args.items() if isinstance(args, dict) else enumerate(args):
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, _SCALARS) for item in items):
            refuse(
                f"args: the value of {name} must be a text, a number, a boolean, null or an array of these"
            )
    return json.dumps(args)


def _limit(query: Query, config: Mapping[str, Any], limits: ApiLimits) -> int:
    given = LIMIT.read(query)
    if given is not None:
        return given
    value = config.get("limit", limits.default_rows)
    if isinstance(value, bool) or not isinstance(value, int):
        refuse("limit must be a whole number of rows")
    return in_range("limit", value, LIMIT.lowest, LIMIT.highest)

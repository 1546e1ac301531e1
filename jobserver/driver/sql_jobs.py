"""SQL jobs: one statement with parameters, over tables and named objects; rows, schema and whether there were more.

The result: ``{"schema": [{"name", "type", "nullable"}], "rows": [[…]], "truncated": bool}``. Rows are arrays, as two columns may
have the same name. They are fetched partition by partition and written piece by piece, so that a large result is in
memory only once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pyspark.errors import AnalysisException, IllegalArgumentException, ParseException

from jobserver.driver.results import to_json
from jobserver.model import SqlQuery

CHUNK = 5_000
"""Rows that become one piece of text."""


class SqlJob:
    """See kinds.RunnableJob. Commands (such as CREATE VIEW) take effect when they are validated: Spark runs them at once."""

    def __init__(self, session: Any, query: SqlQuery, result_limit: int) -> None:
        self._session = session
        self._query = query
        self._result_limit = result_limit
        self._frame: Any = None

    def validate(self) -> list[str]:
        """Whether Spark understands the statement, and knows what it names."""
        args = json.loads(self._query.args)
        try:
            self._frame = self._session.sql(self._query.text, args=args or None)
        except (ParseException, AnalysisException, IllegalArgumentException) as error:
            return [str(error).partition(";\n'")[0].strip()]
        return []

    def run(self) -> str | Iterator[str]:
        """The rows as JSON."""
        head = f'{{"schema":{to_json(_schema(self._frame))},"rows":['
        limit = self._query.limit
        if limit <= CHUNK:
            rows = self._frame.take(limit + 1)
            texts = to_json(rows[:limit], self._result_limit)[1:-1]
            return f"{head}{texts}{_tail(len(rows) > limit)}"
        return self._pieces(head, limit)

    def _pieces(self, head: str, limit: int) -> Iterator[str]:
        yield head
        count = 0
        rows = iter(self._frame.limit(limit + 1).toLocalIterator())
        while chunk := list(islice(rows, min(CHUNK, limit - count))):
            text = to_json(chunk, self._result_limit)[1:-1]
            yield text if count == 0 else "," + text
            count += len(chunk)
        yield _tail(count == limit and next(rows, None) is not None)


def _schema(frame: Any) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "type": field.dataType.simpleString(), "nullable": field.nullable}
        for field in frame.schema.fields
    ]


def _tail(truncated: bool) -> str:
    return f'],"truncated":{"true" if truncated else "false"}}}'

"""SQL jobs: one statement with parameters, over tables and named objects; rows, schema and whether there were more."""

from __future__ import annotations

import json
from typing import Any

from pyspark.errors import AnalysisException, IllegalArgumentException, ParseException

from jobserver.driver.frames import Produced, rows_of
from jobserver.model import ResultFormat, SqlQuery


class SqlJob:
    """See kinds.RunnableJob. Commands (such as CREATE VIEW) take effect when they are validated: Spark runs them at once."""

    def __init__(self, session: Any, query: SqlQuery, form: ResultFormat, result_limit: int) -> None:
        self._session = session
        self._query = query
        self._form = form
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

    def run(self) -> Produced:
        """The rows, in the format that was asked for."""
        return rows_of(self._frame, self._form, self._result_limit, self._query.limit)

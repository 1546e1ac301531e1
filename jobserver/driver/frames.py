"""A DataFrame as the result of a job: its rows as JSON, or as Arrow or Parquet where the client asked for that.

JSON: ``{"schema": [{"name", "type", "nullable"}], "rows": [[…]], "truncated": bool}``. Rows are arrays, as two columns may have
the same name. Arrow and Parquet: the bytes of the format, and for clients that ask for JSON nevertheless the same
object with ``format`` and ``rowCount`` in the place of ``rows``. Rows are fetched partition by partition and written piece by
piece, so that a large result is in memory only once. pyarrow is imported when a job asks for it.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jobserver.driver.results import UnusableResult, to_json
from jobserver.model import ResultFormat

CHUNK = 5_000
"""Rows that become one piece of text."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows in another format than JSON. `shown` is JSON, and known when all `pieces` were taken."""

    format: ResultFormat
    pieces: Iterator[bytes]
    shown: Callable[[], str]


Produced = str | Iterator[str] | Columns
"""A result: JSON text, whole or in pieces; or rows in another format."""


def is_frame(value: Any) -> bool:
    """Whether it is a DataFrame of Spark. By name, as there are several such classes."""
    return type(value).__name__ == "DataFrame" and type(value).__module__.startswith("pyspark.sql.")


def rows_of(frame: Any, form: ResultFormat, result_limit: int, most: int | None = None) -> Produced:
    """The first `most` rows (None: all) as a result. Raises UnusableResult, or what Spark raises."""
    if form is not ResultFormat.JSON:
        return _columns(frame, form, most)
    head = f'{{"schema":{to_json(_schema(frame))},"rows":['
    if most is not None and most <= CHUNK:
        rows = frame.take(most + 1)
        texts = to_json(rows[:most], result_limit)[1:-1]
        return f"{head}{texts}{_tail(len(rows) > most)}"
    return _texts(frame, head, result_limit, most)


def _texts(frame: Any, head: str, result_limit: int, most: int | None) -> Iterator[str]:
    yield head
    count = 0
    # not the frame's own iterator: Spark 4.3 keeps what a query still runs after its end for ever
    rows = iter(_limited(frame, most).rdd.toLocalIterator())
    while chunk := list(islice(rows, CHUNK if most is None else min(CHUNK, most - count))):
        text = to_json(chunk, result_limit)[1:-1]
        yield text if count == 0 else "," + text
        count += len(chunk)
    yield _tail(count == most and next(rows, None) is not None)


def _limited(frame: Any, most: int | None) -> Any:
    """One row more than is wanted tells whether there are more."""
    return frame if most is None else frame.limit(most + 1)


def _schema(frame: Any) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "type": field.dataType.simpleString(), "nullable": field.nullable}
        for field in frame.schema.fields
    ]


def _tail(truncated: bool) -> str:
    return f'],"truncated":{"true" if truncated else "false"}}}'


def _columns(frame: Any, form: ResultFormat, most: int | None) -> Columns:
    try:
        import pyarrow  # noqa: F401 - here, as most jobs do without it
        from pyspark.sql.pandas.types import to_arrow_schema
    except ImportError as error:
        raise UnusableResult(
            f"the result cannot be written as {form.value}: this driver's Python has no pyarrow ({error})"
        ) from error
    zone = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_schema).parameters else {}
    try:
        schema = to_arrow_schema(frame.schema, **zone)
    except TypeError as error:  # PySparkTypeError is one, and so is what older releases raise
        raise UnusableResult(f"the result cannot be written as {form.value}: {error}") from error
    written = _Written(form, schema)
    described = {"schema": _schema(frame), "format": form.media_type}
    return Columns(
        form,
        written.pieces(_batches(_limited(frame, most), schema), most),
        lambda: to_json({**described, "rowCount": written.rows, "truncated": written.truncated}),
    )


def _batches(frame: Any, schema: Any) -> Iterator[Any]:
    """Record batches as Spark's JVM makes them, one partition after the other."""
    import pyarrow

    messages = frame._jdf.toArrowBatchRdd().toLocalIterator()
    while messages.hasNext():
        message = pyarrow.ipc.read_message(pyarrow.py_buffer(messages.next()))
        yield pyarrow.ipc.read_record_batch(message, schema)


class _Written:
    """Batches as the bytes of a stream or file, with what is known of them at its end."""

    def __init__(self, form: ResultFormat, schema: Any) -> None:
        self._form = form
        self._schema = schema
        self.rows = 0
        self.truncated = False

    def pieces(self, batches: Iterator[Any], most: int | None) -> Iterator[bytes]:
        """Bytes as soon as they are made; at most so many rows."""
        sink = _Growing()
        writer = self._writer(sink)
        for batch in batches:
            if most is not None and self.rows + batch.num_rows > most:
                batch, self.truncated = batch.slice(0, most - self.rows), True
            self.rows += batch.num_rows
            writer.write_batch(batch)
            yield sink.taken()
        writer.close()
        yield sink.taken()

    def _writer(self, sink: _Growing) -> Any:
        import pyarrow
        import pyarrow.parquet

        if self._form is ResultFormat.ARROW:
            return pyarrow.ipc.new_stream(sink, self._schema)
        return pyarrow.parquet.ParquetWriter(sink, self._schema)


class _Growing(io.RawIOBase):
    """A file that is written from its beginning to its end, and read piece by piece meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._held += data
        self._at += len(data)
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self._held)
        self._held.clear()
        return data

"""Rows of a DataFrame as Arrow and Parquet, on batches as Spark's JVM makes them, without Spark."""

import io
import json
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql.types import CalendarIntervalType, LongType, StringType, StructField, StructType

from checkpoint.local import LocalFiles
from jobserver.driver.frames import Columns, is_frame, rows_of
from jobserver.driver.result_store import keep_result
from jobserver.driver.results import ResultTooLarge, UnusableResult
from jobserver.model import AttemptRef, ResultFormat
from jobserver.stored_results import stored_result

ROWS = StructType([StructField("id", LongType()), StructField("name", StringType())])
ARROW = pa.schema([("id", pa.int64()), ("name", pa.string())])
REF = AttemptRef("j1", 1)


@dataclass
class Batches:
    """Py4J's view of an iterator of encoded batches; `taken` counts those that were fetched."""

    encoded: list[bytes]
    taken: int = 0

    def toArrowBatchRdd(self):
        return self

    def toLocalIterator(self):
        return self

    def hasNext(self):
        return self.taken < len(self.encoded)

    def next(self):
        self.taken += 1
        return self.encoded[self.taken - 1]


@dataclass
class Frame:
    """As much of a DataFrame as is asked of one."""

    sizes: list[int]
    schema: StructType = field(default_factory=lambda: ROWS)
    asked: int | None = None

    def __post_init__(self):
        start, encoded = 0, []
        for size in self.sizes:
            ids = list(range(start, start + size))
            columns = [pa.array(ids, pa.int64()), pa.array([f"é{each}" for each in ids])]
            encoded.append(pa.record_batch(columns, schema=ARROW).serialize().to_pybytes())
            start += size
        self._jdf = Batches(encoded)

    def limit(self, rows):
        self.asked = rows
        return self


def read(form, data):
    if form is ResultFormat.ARROW:
        return pa.ipc.open_stream(data).read_all()
    return pq.read_table(io.BytesIO(data))


@pytest.mark.parametrize("form", [ResultFormat.ARROW, ResultFormat.PARQUET])
@pytest.mark.parametrize(
    ("sizes", "most", "rows", "truncated"),
    [
        ([3, 2], None, 5, False),
        ([3, 2], 5, 5, False),
        ([3, 2], 4, 4, True),
        ([3], 0, 0, True),
        ([], 10, 0, False),
    ],
)
def test_rows_are_whole_or_cut_at_the_limit(form, sizes, most, rows, truncated):
    frame = Frame(sizes)
    produced = rows_of(frame, form, 10**6, most)
    assert isinstance(produced, Columns)
    table = read(form, b"".join(produced.pieces))
    assert table.column("id").to_pylist() == list(range(rows))
    assert table.column("name").to_pylist() == [f"é{each}" for each in range(rows)]
    assert frame.asked == (None if most is None else most + 1)
    assert json.loads(produced.shown()) == {
        "schema": [
            {"name": "id", "type": "bigint", "nullable": True},
            {"name": "name", "type": "string", "nullable": True},
        ],
        "format": form.media_type,
        "rowCount": rows,
        "truncated": truncated,
    }


def test_a_batch_is_written_before_the_next_one_is_fetched():
    frame = Frame([1000] * 5)
    pieces = rows_of(frame, ResultFormat.ARROW, 10**6).pieces
    assert len(next(pieces)) > 1000
    assert frame._jdf.taken == 1


@pytest.mark.parametrize("form", [ResultFormat.ARROW, ResultFormat.PARQUET])
def test_rows_are_stored_and_stand_as_a_reference(tmp_path, form):
    files = LocalFiles(tmp_path)
    stored = stored_result(keep_result(files, REF, rows_of(Frame([10]), form, 10**6), 10**6))
    assert stored is not None
    assert (stored.format, json.loads(stored.shown)["rowCount"]) == (form, 10)
    assert stored_result(stored.reference) == stored


def test_too_many_bytes_of_rows_are_refused(tmp_path):
    produced = rows_of(Frame([10_000] * 3), ResultFormat.ARROW, 1000)
    with pytest.raises(ResultTooLarge, match="more than 1000 bytes of arrow"):
        keep_result(LocalFiles(tmp_path), REF, produced, 1000)


def test_without_a_checkpoint_store_columns_are_refused():
    with pytest.raises(ResultTooLarge, match="no checkpoint to keep it"):
        keep_result(None, REF, rows_of(Frame([1]), ResultFormat.ARROW, 1000), 1000)


def test_a_type_that_arrow_does_not_know_is_named():
    frame = Frame([], StructType([StructField("i", CalendarIntervalType())]))
    with pytest.raises(UnusableResult, match="cannot be written as parquet"):
        rows_of(frame, ResultFormat.PARQUET, 1000)


def test_only_frames_of_spark_are_frames():
    class DataFrame:
        """Of somebody else."""

    assert not is_frame(DataFrame())
    assert not is_frame([1])

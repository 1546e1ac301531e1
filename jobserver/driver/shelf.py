"""Named objects as Spark and pickle hold them: written, read back, cached, handed to a job's session.

A written DataFrame is read back with the schema it was written with, so no file is opened to learn it; and what readers
and the cache use is the written version, so that it is the same after a failover.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import pyspark
from pyspark import RDD, Broadcast
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from checkpoint import binaries, layout
from checkpoint.errors import AlreadyExists, Missing
from checkpoint.manifest import INLINE_LIMIT, FileEntry, Kind, NamedObject
from jobserver.driver.held import Held
from jobserver.driver.journal import ContextFolder
from jobserver.driver.loading import JobLoader
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.payload import BundleSource, pack, unpack
from jobserver.driver.sessions import job_session
from jobserver.driver.spark import Spark
from sparkjobserver.api import ObjectDamaged

VALUE_FILE = "value.pickle"


@dataclass(frozen=True, slots=True)
class SparkShelf:
    """See `held.Shelf`. `folder` is None when nothing is written."""

    spark: Spark
    loader: JobLoader
    folder: ContextFolder | None

    def make(self, name: str, value: Any, options: ObjectOptions, version: str, write: bool) -> Held:
        """Cache what a job built, written first if asked for."""
        held = Held(name, kind_of(value).value, version, value, options)
        if write:
            held.record = self.write(held)
            held.value = self._read(held.record)
        elif held.kind == Kind.DATAFRAME:
            held.value = self._of_root(value)  # the job's session, its views and settings end with the job
        self._cache(held, options.force_computation)
        return held

    def write(self, held: Held) -> NamedObject:
        """Write an object under its version. Raises what Spark or the store raises."""
        if held.kind == Kind.DATAFRAME:
            self._in_background()
            held.value.write.parquet(self._url(held))
            return self._record(held, schema=held.value.schema.json())
        if held.kind == Kind.RDD:
            self._in_background()
            held.value.saveAsPickleFile(self._url(held))
            return self._record(held)
        return self._write_value(held)

    def restore(self, record: NamedObject) -> Held:
        """An object whose data is checked, and read when it is used. Raises ObjectDamaged."""
        options = ObjectOptions(record.storage_level or "NONE", False, record.durability, record.strategy)
        self._check(record)
        return Held(record.name, record.kind.value, record.version, self._read(record), options, record)

    def warm(self, held: Held) -> None:
        """Cache a restored object, in the pool that yields to all jobs; the first query does not wait for it."""
        self._in_background()
        self._cache(held, force=held.kind == Kind.DATAFRAME)

    def hand_out(self, held: Held) -> Any:
        """A DataFrame becomes one of the job's session; everything else is shared."""
        session = job_session()
        if held.kind == Kind.DATAFRAME and session is not None:
            return session.adopt_frame(held.value)
        return held.value

    def discard(self, held: Held) -> None:
        """Free the cache, without waiting for it."""
        if held.kind != Kind.VALUE:
            held.value.unpersist(False)

    def _cache(self, held: Held, force: bool) -> None:
        if held.kind not in (Kind.DATAFRAME, Kind.RDD) or held.options.storage_level == "NONE":
            return
        held.value.persist(storage_level(held.options.storage_level))
        if force:
            rows = held.value.count()
            if held.record is not None:
                held.record = replace(held.record, rows=rows)

    def _read(self, record: NamedObject) -> Any:
        if record.kind is Kind.DATAFRAME:
            schema = StructType.fromJson(json.loads(record.schema or "{}"))
            return self.spark.root.read.schema(schema).parquet(self._files_url(record.path))
        if record.kind is Kind.RDD:
            return self.spark.context.pickleFile(self._files_url(record.path))
        value = unpack(self._value_bytes(record), self._provide)
        return self.spark.context.broadcast(value) if record.kind is Kind.BROADCAST else value

    def _of_root(self, frame: DataFrame) -> DataFrame:
        plan = frame._jdf.queryExecution().analyzed()
        root = self.spark.root
        return DataFrame(self.spark.java.dataset.ofRows(root._jsparkSession, plan), root)

    # files

    def _url(self, held: Held) -> str:
        return self._files_url(layout.object_path(held.name, held.version))

    def _files_url(self, path: str | None) -> str:
        folder = self._needed_folder()
        return folder.files.url(folder.path(path or ""))

    def _record(self, held: Held, schema: str | None = None) -> NamedObject:
        """Make what Spark wrote durable, and describe it."""
        folder, path = self._needed_folder(), layout.object_path(held.name, held.version)
        sizes = folder.files.seal_tree(folder.path(path))
        files = tuple(FileEntry(name, size) for name, size in sorted(sizes.items()))
        return _record_of(held, schema=schema, path=path, files=files, size=sum(sizes.values()))

    def _write_value(self, held: Held) -> NamedObject:
        value = held.value.value if held.kind == Kind.BROADCAST else held.value
        data = pack(value, self.loader.sources)
        if len(data) <= INLINE_LIMIT:
            return _record_of(held, inline=data, size=len(data))
        folder, path = self._needed_folder(), layout.object_path(held.name, held.version)
        try:
            folder.files.write_new(folder.path(f"{path}/{VALUE_FILE}"), data)
        except AlreadyExists:  # an earlier try, whose outcome was unknown, had succeeded
            if folder.files.read(folder.path(f"{path}/{VALUE_FILE}")) != data:
                raise
        entry = FileEntry(VALUE_FILE, len(data), hashlib.sha256(data).hexdigest())
        return _record_of(held, path=path, files=(entry,), size=len(data))

    def _value_bytes(self, record: NamedObject) -> bytes:
        if record.inline is not None:
            return record.inline
        folder, (entry,) = self._needed_folder(), record.files
        data = folder.files.read(folder.path(f"{record.path}/{entry.name}"))
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ObjectDamaged(
                f"named object {record.name!r} (version {record.version}): its bytes have changed"
            )
        return data

    def _check(self, record: NamedObject) -> None:
        """Every file is there in its length. Raises ObjectDamaged; trouble of the store is no damage and passes."""
        for entry in record.files:
            path = f"{record.path}/{entry.name}"
            folder = self._needed_folder()
            try:
                size = folder.files.size(folder.path(path))
            except Missing as error:
                raise _damaged(record, f"its file {entry.name} is gone") from error
            if size != entry.size:
                raise _damaged(record, f"its file {entry.name} has {size} bytes instead of {entry.size}")

    def _provide(self, root: str, source: BundleSource) -> None:
        """Load the code that a value was made with, if this driver has not seen it."""
        files = self._needed_folder().files
        try:
            self.loader.provide(root, source, lambda: binaries.read(files, source.digest))
        except Missing as error:
            text = f"a stored object needs the code of binary {source.digest}, which is no longer stored"
            raise RuntimeError(text) from error

    def _needed_folder(self) -> ContextFolder:
        if self.folder is None:
            raise RuntimeError("this driver was given no checkpoint to write to")
        return self.folder

    def _in_background(self) -> None:
        """What no job's thread writes, runs in the pool that yields to all jobs."""
        if job_session() is None:
            self.spark.java.scala_context.setLocalProperty("spark.scheduler.pool", "background")


def kind_of(value: Any) -> Kind:
    """What a built object is."""
    if isinstance(value, DataFrame):
        return Kind.DATAFRAME
    if isinstance(value, RDD):
        return Kind.RDD
    return Kind.BROADCAST if isinstance(value, Broadcast) else Kind.VALUE


def storage_level(name: str) -> Any:
    """Spark's level of that name; Spark 3 and 4 name one of them differently."""
    return getattr(pyspark.StorageLevel, name)


def _record_of(held: Held, **fields: Any) -> NamedObject:
    return NamedObject(
        name=held.name,
        kind=Kind(held.kind),
        version=held.version,
        strategy="materialize",
        durability=held.options.durability,
        storage_level=held.options.storage_level,
        **fields,
    )


def _damaged(record: NamedObject, why: str) -> ObjectDamaged:
    return ObjectDamaged(f"named object {record.name!r} (version {record.version}) is damaged: {why}")

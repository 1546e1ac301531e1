"""Named objects as Spark and pickle hold them: written, read back, cached, handed to a job's session.

A written DataFrame is read back with the schema it was written with, so no file is opened to learn it; and what readers
and the cache use is the written version, so that it is the same after a failover.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyspark
from pyspark import RDD, Broadcast
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql.functions import lit
from pyspark.sql.types import StructType

from checkpoint import binaries, layout
from checkpoint.data import check_data, seal_data
from checkpoint.errors import AlreadyExists, Corrupt, Damaged, Missing
from checkpoint.manifest import INLINE_LIMIT, FileEntry, Kind, NamedObject
from jobserver.driver import sources
from jobserver.driver.aside_cache import fill_aside
from jobserver.driver.held import Held, Making
from jobserver.driver.journal import ContextFolder
from jobserver.driver.keeper import Keeper
from jobserver.driver.loading import JobLoader
from jobserver.driver.object_options import ObjectOptions, choose
from jobserver.driver.origins import (
    RECIPE_LIMIT,
    REMEMBERED_BESIDE,
    Origin,
    Recipe,
    Source,
    origin_of,
)
from jobserver.driver.payload import BundleSource, pack, unpack
from jobserver.driver.progress import SavedFrame
from jobserver.driver.sessions import job_session, plan_of
from jobserver.driver.sources import source_of
from jobserver.driver.spark import Spark
from sparkjobserver.api import ObjectDamaged

log = logging.getLogger(__name__)

VALUE_FILE = "value.pickle"


@dataclass(frozen=True, slots=True)
class SparkShelf:
    """See `held.Shelf`. `folder` is None when nothing is written; `sealers` make data durable beside the job's thread."""

    spark: Spark
    loader: JobLoader
    folder: ContextFolder | None
    sealers: Keeper

    def make(self, making: Making) -> Held:
        """Cache what a job built, by its strategy; written first if asked for."""
        kind, options = kind_of(making.value), making.options
        looked_for = kind is Kind.DATAFRAME and options.strategy in ("auto", "source")
        source = source_of(making.value) if looked_for else None
        strategy = choose(options.strategy, source)
        origin = origin_for(strategy, making.recipe, source, making.rebuilt)
        held = Held(
            making.name, kind.value, making.version, making.value, options,
            strategy=strategy, origin=origin.text(), rebuilt=making.rebuilt,
        )  # fmt: skip
        if kind is Kind.DATAFRAME:
            held.schema = making.value.schema.json()
        if making.write and kind is Kind.DATAFRAME and strategy == "materialize":
            held.record, held.value = self._written_rows(held)
        else:
            held.record = self.write(held) if making.write else None
            held.value = self._lasting(held, origin)
        self._cache(held, options.force_computation)
        return held

    def _written_rows(self, held: Held) -> tuple[NamedObject, DataFrame]:
        """Write a DataFrame: its record, and what was written. The store makes it durable while Spark opens it."""
        self._write_rows(held)
        durable = self.sealers.submit(lambda: self._record(held))
        root = self.spark.root
        reader = root._jsparkSession.read().schema(held.value._jdf.schema())
        written = DataFrame(reader.parquet(self._url(held)), root)
        return durable.result(), written

    def _lasting(self, held: Held, origin: Origin) -> Any:
        """What readers get: the written version, the files, or what the job built, freed from the job's session."""
        if held.strategy == "materialize" and held.record is not None:
            return self._read(held.record)
        if held.strategy == "source" and origin.source is not None:
            return sources.read(self.spark.root, origin.source, held.schema or "", held.version)
        return self._of_root(held) if held.kind == Kind.DATAFRAME else held.value

    def write(self, held: Held) -> NamedObject:
        """Write an object under its version, over what an earlier try left. Raises what Spark or the store raises."""
        if held.strategy in ("recipe", "source"):
            return _record_of(held)
        if held.kind == Kind.DATAFRAME:
            self._write_rows(held)
            return self._record(held)
        if held.kind == Kind.RDD:
            self._in_background()
            folder = self._needed_folder()
            folder.files.remove(folder.path(layout.object_path(held.name, held.version)))
            self._by_spark(lambda: held.value.saveAsPickleFile(self._new_url(held)))
            return self._record(held)
        return self._write_value(held)

    def _write_rows(self, held: Held) -> None:
        self._in_background()
        self._by_spark(lambda: held.value.write.mode("overwrite").parquet(self._new_url(held)))

    def restore(self, record: NamedObject) -> Held:
        """An object whose data is checked, and read when it is used. Raises ObjectDamaged."""
        options = ObjectOptions(record.storage_level or "NONE", False, record.durability, record.strategy)
        origin = origin_of(record.origin)
        value, rebuilt = self._sought(record, origin)
        return Held(
            record.name, record.kind.value, record.version, value, options, record,
            strategy=record.strategy, origin=record.origin, schema=record.schema, rebuilt=rebuilt,
        )  # fmt: skip

    def reread(self, record: NamedObject, version: str) -> Held:
        """The files of a source as they are now."""
        source = origin_of(record.origin).source
        if source is None:
            raise ValueError(f"named object {record.name!r} was not read from files")
        held = self.restore(replace(record, version=version))
        fresh = replace(source, listing=sources.listing_of(held.value))
        held.origin, held.rebuilt = Origin(source=fresh).text(), False
        held.record = _record_of(held)
        self._cache(held, force=False)
        return held

    def _sought(self, record: NamedObject, origin: Origin) -> tuple[Any, bool]:
        """The value, and whether it need not equal what was acknowledged."""
        if record.strategy != "source":
            self._check(record)
            return self._read(record), origin.rebuilt
        if origin.source is None:
            raise _damaged(record, "its manifest does not say which files it was read from")
        try:
            frame = sources.read(self.spark.root, origin.source, record.schema or "", record.version)
        except AnalysisException as error:
            if not sources.files_gone(error):
                raise
            raise _damaged(record, f"its files are gone: {', '.join(origin.source.paths)}") from error
        if changed := sources.listing_of(frame) != origin.source.listing:
            log.warning("the files of named object %r have changed since it was made", record.name)
        return frame, changed or origin.rebuilt

    def try_out(self, held: Held) -> None:
        """One row of a DataFrame, from its first file that has any."""
        self._in_background()
        held.value.head(1)

    def warm(self, held: Held) -> None:
        """Cache a restored object, in the pool that yields to all jobs; no query on a DataFrame waits for it."""
        self._in_background()
        if held.kind != Kind.DATAFRAME or held.options.storage_level == "NONE":
            self._cache(held, force=False)
            return
        rows = fill_aside(self.spark, held.value, storage_level(held.options.storage_level))
        if held.record is not None:
            held.record = replace(held.record, rows=rows)

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
        if not force:
            return
        try:
            rows = held.value.count()
        except BaseException:  # a kill, too, after which this thread's connection to the JVM is of no use
            self.sealers.submit(lambda: self.discard(held))
            raise
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

    def _of_root(self, held: Held) -> DataFrame:
        """What a job built, in the session of nobody, with a plan of its own.

        Spark finds cached rows by the plan, which says nothing of the files that it reads: with the version in a condition that
        is always true, no version is given the rows of another, and none is uncached with another.
        """
        root = self.spark.root
        frame = DataFrame(self.spark.java.rows_of(root._jsparkSession, plan_of(held.value)), root)
        return frame.where(lit(held.version) == lit(held.version))

    # files

    def _url(self, held: Held) -> str:
        return self._files_url(layout.object_path(held.name, held.version))

    def _new_url(self, held: Held) -> str:
        return self._needed_folder().url_to_write(layout.object_path(held.name, held.version))

    def _files_url(self, path: str | None) -> str:
        return self._needed_folder().url(path or "")

    def _by_spark(self, write: Callable[[], None]) -> None:
        """Spark's failures have no common class: the store tells, in its own words, whether it is the one in trouble."""
        try:
            write()
        except Exception:
            self._needed_folder().check()
            raise

    def _record(self, held: Held) -> NamedObject:
        """Make what Spark wrote durable, and describe it."""
        folder, path = self._needed_folder(), layout.object_path(held.name, held.version)
        # an RDD is pickles, which are loaded only if they are proven to be ours
        digests = held.kind == Kind.RDD
        files = seal_data(folder.files, folder.context_id, path, digests=digests)
        return _record_of(held, path=path, files=files, size=sum(entry.size for entry in files))

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
        try:
            data = folder.files.read(folder.path(f"{record.path}/{entry.name}"))
        except (Missing, Corrupt) as error:
            raise _damaged(record, str(error)) from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ObjectDamaged(
                f"named object {record.name!r} (version {record.version}): its bytes have changed"
            )
        return data

    def _check(self, record: NamedObject) -> None:
        """Every file is as it was sealed. Raises ObjectDamaged; trouble of the store is no damage and passes."""
        if not record.files:
            return
        folder = self._needed_folder()
        try:
            check_data(folder.files, folder.context_id, record, "")
        except Damaged as damage:
            raise _damaged(record, damage.why) from damage

    def _fault(self, path: str, files: Sequence[FileEntry]) -> str | None:
        """What is wrong with the first of these files that is not as it was written."""
        folder = self._needed_folder()
        for entry in files:
            try:
                size = folder.files.size(folder.path(f"{path}/{entry.name}"))
            except Missing:
                return f"its file {entry.name} is gone"
            if size != entry.size:
                return f"its file {entry.name} has {size} bytes instead of {entry.size}"
        return None

    # progress (see progress.Values)

    def pack(self, value: Any) -> bytes:
        """The payload of a value."""
        return pack(value, self.loader.sources)

    def unpack(self, payload: bytes) -> Any:
        """The value of a payload, with the code that it needs."""
        return unpack(payload, self._provide)

    def is_frame(self, value: Any) -> bool:
        """Whether the value is a DataFrame."""
        return isinstance(value, DataFrame)

    def write_frame(self, frame: Any, path: str) -> SavedFrame:
        """Write a DataFrame durably below a path of the context's folder."""
        self._by_spark(
            lambda: frame.write.mode("overwrite").parquet(self._needed_folder().url_to_write(path))
        )
        folder = self._needed_folder()
        sizes = folder.files.seal_tree(folder.path(path))
        return SavedFrame(frame.schema.json(), tuple(FileEntry(*each) for each in sorted(sizes.items())))

    def read_frame(self, saved: SavedFrame, path: str) -> Any:
        """The DataFrame in the job's session."""
        if why := self._fault(path, saved.files):
            raise ObjectDamaged(f"the saved progress at {path} is damaged: {why}")
        schema, session = StructType.fromJson(json.loads(saved.schema)), job_session()
        frame = self.spark.root.read.schema(schema).parquet(self._files_url(path))
        return frame if session is None else session.adopt_frame(frame)

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


def origin_for(strategy: str, recipe: Recipe | None, source: Source | None, rebuilt: bool) -> Origin:
    """What the manifest is to remember of how an object was made. Raises ValueError for a recipe that cannot be kept."""
    if strategy == "source":
        return Origin(source=source, rebuilt=rebuilt)
    if strategy != "recipe":
        short = recipe is not None and len(Origin(recipe).text() or "") <= REMEMBERED_BESIDE
        return Origin(recipe if short and strategy == "materialize" else None, rebuilt=rebuilt)
    if recipe is None:
        raise ValueError("strategy 'recipe' needs an object that a job of uploaded Python code makes")
    size = len(Origin(recipe).text() or "")
    if size > RECIPE_LIMIT:
        raise ValueError(
            f"strategy 'recipe' remembers the job's configuration, which may have {RECIPE_LIMIT} characters at most,"
            f" not {size}; use 'materialize'"
        )
    return Origin(recipe, rebuilt=rebuilt)


def storage_level(name: str) -> Any:
    """Spark's level of that name; Spark 3 and 4 name one of them differently."""
    return getattr(pyspark.StorageLevel, name)


def _record_of(held: Held, **fields: Any) -> NamedObject:
    return NamedObject(
        name=held.name,
        kind=Kind(held.kind),
        version=held.version,
        strategy=held.strategy,
        durability=held.options.durability,
        storage_level=held.options.storage_level,
        schema=held.schema,
        origin=held.origin,
        **fields,
    )


def _damaged(record: NamedObject, why: str) -> ObjectDamaged:
    return ObjectDamaged(f"named object {record.name!r} (version {record.version}) is damaged: {why}")

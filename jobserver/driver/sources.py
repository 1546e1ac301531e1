"""Plain reads of files: recognised in a DataFrame's plan, remembered, and done again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from jobserver.driver.origins import Source

VERSION = "jobserver.version"
"""An option of our reads that no format knows. Spark finds cached rows by the plan, which says nothing of the files: with the
version in it, no version of an object is given the rows of another, and none is uncached with another."""
_OWN_OPTIONS = ("path", "paths", VERSION)
_FORMATS = ("parquet", "orc", "json", "csv", "text", "avro")


def source_of(frame: DataFrame) -> Source | None:
    """The read that a DataFrame is, if it is one of files and nothing else; None otherwise."""
    plan = frame._jdf.queryExecution().analyzed()
    if plan.getClass().getSimpleName() != "LogicalRelation" or plan.catalogTable().isDefined():
        return None
    relation = plan.relation()
    if relation.getClass().getSimpleName() != "HadoopFsRelation":
        return None
    name = relation.fileFormat().toString().lower()
    if name not in _FORMATS:
        return None
    options = {str(key): str(value) for key, value in _pairs(relation.options())}
    return Source(
        name,
        tuple(_texts(relation.location().rootPaths())),
        {key: value for key, value in options.items() if key.lower() not in _OWN_OPTIONS},
        listing_of(frame),
    )


def read(root: Any, source: Source, schema: str, version: str) -> DataFrame:
    """The same read in another session, for a version of an object; no file is opened for it, but their names are listed."""
    reader = root.read.format(source.format).options(**source.options, **{VERSION: version})
    return reader.schema(StructType.fromJson(json.loads(schema))).load(list(source.paths))


def listing_of(frame: DataFrame) -> str:
    """The digest of the files of a plain read: their names, lengths and times of change."""
    files = frame._jdf.queryExecution().analyzed().relation().location().allFiles()
    lines = []
    for at in range(files.size()):
        status = files.apply(at)
        lines.append(f"{status.getPath().toString()}\t{status.getLen()}\t{status.getModificationTime()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()


def files_gone(error: AnalysisException) -> bool:
    """Whether a read was refused because its files do not exist, which is proof; other trouble proves nothing."""
    text = str(error)
    return "PATH_NOT_FOUND" in text or "Path does not exist" in text


def _pairs(options: Any) -> list[tuple[Any, Any]]:
    found, pairs = options.iterator(), []
    while found.hasNext():
        pair = found.next()
        pairs.append((pair._1(), pair._2()))
    return pairs


def _texts(items: Any) -> list[str]:
    return [str(items.apply(at).toString()) for at in range(items.size())]

"""Fills the cache of a DataFrame beside the queries on it (DECISIONS 189).

From `persist` on, each query on a DataFrame reads its cache and waits for those parts that are being computed, by whomever. Here
queries go on reading files until all is there.
"""

from __future__ import annotations

from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame

from jobserver.driver import java_classes
from jobserver.driver.spark import Spark
from jobserver.driver.waits import SlicedLock

_compiling = SlicedLock()
_compiled: list[Any] = []


def fill_aside(spark: Spark, frame: DataFrame, level: Any) -> int:
    """Cache it at a storage level; queries that are planned after this know of it, as after `persist`. How many rows it has."""
    if frame.storageLevel != StorageLevel.NONE:  # by a job; beside it all would be there twice
        return int(frame.count())
    jvm, session = spark.context._jvm, spark.root._jsparkSession
    manager = jvm.org.apache.spark.sql.execution.CacheManager()
    manager.cacheQuery(frame._jdf, jvm.scala.Option.empty(), spark.context._getJavaStorageLevel(level))
    cache = java_classes.new(spark.context, _compiled_class(spark), manager)
    try:
        # a query, as only those are computed under the session's settings: how a date is parsed, which files may be missing
        rows = DataFrame(spark.java.rows_of(session, cache.relation()), spark.root).count()
        cache.share(session.sharedState().cacheManager())
    except BaseException:
        cache.drop()
        raise
    return int(rows)


def _compiled_class(spark: Spark) -> Any:
    with _compiling:
        if not _compiled:
            _compiled.append(java_classes.compiled(spark.context, "AsideCache"))
        return _compiled[0]

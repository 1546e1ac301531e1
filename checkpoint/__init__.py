"""Durable data of contexts: manifests, the stores they lie in, and the fence that makes them safe.

Knows nothing of REST, SQL, ZooKeeper or Spark, and imports nothing of the product. Everything here is synchronous
and meant to be called from threads. The rules are in `fence` (who may acknowledge), `manifest` (what is sealed) and
`retention` (what may be removed), all pure; `epoch` and `writer` carry them out on a `FileStore`.
"""

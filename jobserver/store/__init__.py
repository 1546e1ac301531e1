"""The system of record: binaries, contexts, fences and jobs in SQL.

`metadata.Metadata` is the port that the rest of the product uses. Nothing of SQL leaves this package.
"""

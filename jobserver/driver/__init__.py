"""The process of one context: a Python process with its JVM, which runs jobs and keeps named objects.

Start it as ``python -m jobserver.driver --config FILE --ready-fd N``. Only this package imports Spark; it is never
imported by a server.
"""

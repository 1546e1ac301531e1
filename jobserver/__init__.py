"""The HA Spark job server: REST service, metadata, contexts and the command line."""

__version__ = "0.1.0"

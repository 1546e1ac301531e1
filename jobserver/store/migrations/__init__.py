"""Versioned migrations of the metadata store, run by `jobserver/store/schema.py`. They import nothing of the live code."""

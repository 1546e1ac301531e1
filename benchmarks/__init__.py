"""Comparisons that can be run again: `make bench`, or `python -m benchmarks NAME...`.

Each module has `run(rounds) -> list[Series]`.

Numbers depend on the machine; compare only what one run measured.
"""

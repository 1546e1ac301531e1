"""Comparisons that can be run again: `make bench`, or `python -m benchmarks NAME...`.

Each module of a benchmark has `run(effort) -> Section`. Baselines are measured in the same run.

Numbers depend on the machine; compare only what one run measured.
"""

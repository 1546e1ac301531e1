"""The whole cluster on fakes in virtual time, from one seed: see `simulation.py`, and `python -m tests.sim --help`."""

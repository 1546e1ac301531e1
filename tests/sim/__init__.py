"""The whole cluster on fakes in virtual time, from one seed. `python -m tests.sim --help` runs it; `simulation.py` tells how it works."""

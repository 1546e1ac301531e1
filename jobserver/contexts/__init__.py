"""Contexts on their owner: starting and talking to drivers, taking over, running jobs."""

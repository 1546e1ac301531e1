"""Errors of coordination.

HaError
├── CoordinationLost        ZooKeeper did not answer in time: nothing is known about the call
└── SessionTimeoutRefused   ZooKeeper granted another session timeout than the configured one
"""

from __future__ import annotations


class HaError(Exception):
    """Root of what `ha` raises on purpose."""


class CoordinationLost(HaError):
    """No answer within the limit, or the connection broke during the call."""


class SessionTimeoutRefused(HaError):
    """The negotiated session timeout differs from the configured one, so every failover timing would be wrong."""

"""The REST API in the dialect of existing clients, on the port `jobserver.service.Service`."""

from jobserver.api.app import make_app
from jobserver.api.limits import ApiLimits

__all__ = ["ApiLimits", "make_app"]

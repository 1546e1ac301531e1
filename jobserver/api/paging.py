"""The next page of a list: a `Link` header with the same request and the place where this page ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from jobserver.api.calls import Call

_PLACES = frozenset({"cursor", "after", "offset"})


def next_page(call: Call, **place: str) -> Mapping[str, str]:
    """The header for a list that goes on; whatever named the place of this page is replaced by `place`."""
    kept = [(name, value) for name, value in call.query.items() if name not in _PLACES]
    query = urlencode([*kept, *place.items()], errors="replace")
    return {"Link": f'<{call.request.rel_url.raw_path}?{query}>; rel="next"'}

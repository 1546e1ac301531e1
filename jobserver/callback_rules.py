"""What may be called back, and when it is tried again. Pure.

The server makes these requests with its own rights of network access, so where they may go is a matter of settings, not of
the client alone.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from urllib.parse import urlsplit

from yarl import URL

from jobserver.errors import BadRequest

FIRST_DELAY = 10.0
"""Seconds between the first try and the second, as existing servers wait; each later wait is twice the one before."""
LONGEST_DELAY = 3600.0
MAX_URL = 2_000


def check_url(url: str, *, private: bool) -> str:
    """The address, when a callback may go there as far as its text tells. Raises BadRequest."""
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        raise BadRequest(f"callbackUrl must be an address of at most {MAX_URL} printable characters")
    try:
        parts = URL(url)  # what the HTTP client makes of the text: it also says which host will be called
        host, port = parts.host, parts.port
        written = urlsplit(url).hostname
    except ValueError as error:
        raise BadRequest(f"callbackUrl cannot be read: {error}") from error
    if parts.scheme.lower() not in ("http", "https"):
        raise BadRequest("Callback Url has to be 'http'/'https'")
    if not host or port == 0:
        raise BadRequest("callbackUrl names no host, or port 0")
    if not all(unicodedata.is_normalized("NFKC", each) for each in (host, written or "")):
        raise BadRequest("callbackUrl names its host with characters that stand for others: write those")
    if is_address(host) and not may_connect(host, private=private):
        raise BadRequest(refusal(host, private=private))
    return url


def is_address(host: str) -> bool:
    """Whether the host is an IP address in its usual form; every other text is resolved, and then looked at."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def may_connect(address: str, *, private: bool) -> bool:
    """Whether a callback may connect to this IP address.

    Never link-local ones (a cloud's metadata service is one of them), multicast or none at all; loopback and private
    networks only when the settings allow it.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return False
    return private or found.is_global


def refusal(host: str, *, private: bool) -> str:
    """Why an address is not called."""
    rule = "" if private else "; private ones only with callbacks.private_addresses"
    return f"callbacks do not go to {host}: it is not an address that may be called{rule}"


def delay_after(tries: int) -> float:
    """Seconds to wait after so many failed tries."""
    return min(FIRST_DELAY * 2.0 ** min(tries - 1, 30), LONGEST_DELAY)

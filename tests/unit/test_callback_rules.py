"""Where callbacks may go, and when they are tried again."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.callback_rules import FIRST_DELAY, LONGEST_DELAY, check_url, delay_after, may_connect
from jobserver.errors import BadRequest


@pytest.mark.parametrize(
    "url", ["http://h/x", "HTTPS://h:8443/a?b=c", "http://10.0.0.1/", "http://[::1]:80/", "http://user:pw@h/"]
)
def test_http_addresses_pass(url: str) -> None:
    assert check_url(url, private=True) == url


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://h/x", "Callback Url has to be 'http'/'https'"),
        ("file:///etc/passwd", "Callback Url has to be 'http'/'https'"),
        ("h/x", "Callback Url has to be 'http'/'https'"),
        ("http://", "names no host"),
        ("http://h:0/", "port 0"),
        ("http://h:99999/", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://h/ x", "printable"),
        ("http://h/\n", "printable"),
        ("http://h/" + "x" * 2000, "at most"),
        ("http://169.254.169.254/latest/meta-data", "may be called"),
        ("http://[fe80::1]/", "may be called"),
        ("http://[::ffff:169.254.169.254]/", "may be called"),
        ("http://0.0.0.0/", "may be called"),
        ("http://224.0.0.1/", "may be called"),
        ("http://①②⑦.0.0.1/", "stand for others"),
        ("http://①⑥⑨.②⑤④.169.254/latest", "stand for others"),
        ("http://１６９.254.169.254/", "stand for others"),
    ],
)
def test_other_addresses_are_refused_with_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        check_url(url, private=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:10.0.0.1", "100.64.0.1"]
)
def test_private_addresses_are_a_matter_of_settings(address: str) -> None:
    assert may_connect(address, private=True)
    assert not may_connect(address, private=False)


def test_public_addresses_can_always_be_called() -> None:
    assert may_connect("93.184.216.34", private=False)
    assert may_connect("2606:2800:220:1::1", private=False)


@given(st.text(max_size=60))
def test_every_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"http://{text}"):
        with contextlib.suppress(BadRequest):
            assert check_url(url, private=False) == url


def test_waits_double_up_to_an_hour() -> None:
    assert [delay_after(tries) for tries in (1, 2, 3)] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delay_after(1000) == LONGEST_DELAY

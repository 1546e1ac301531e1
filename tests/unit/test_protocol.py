"""Frames and proofs of the driver protocol."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.model import AttemptOutcome, ErrorInfo, OutcomeKind
from jobserver.protocol import (
    MAX_FRAME,
    Frames,
    ProtocolError,
    decode,
    frame,
    outcome_message,
    outcome_of,
    proof_fits,
    proof_of,
    recv_frame,
)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_every_message_arrives_as_it_was_sent(fields):
    message = {**fields, "t": "run"}
    left, right = socket.socketpair()
    with left, right:
        left.sendall(frame(message))
        assert recv_frame(right) == message


def test_a_frame_cut_short_is_an_end_not_a_message():
    left, right = socket.socketpair()
    with left, right:
        left.sendall(frame({"t": "run"})[:-1])
        left.close()
        with pytest.raises(EOFError):
            recv_frame(right)


def test_an_announced_length_over_the_limit_is_refused_before_anything_is_read():
    left, right = socket.socketpair()
    with left, right:
        left.sendall(struct.pack(">I", MAX_FRAME + 1))
        with pytest.raises(ProtocolError):
            recv_frame(right)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"t": 1}', b"\xff"])
def test_what_is_no_message_is_refused(body):
    with pytest.raises(ProtocolError):
        decode(body)


def test_only_the_secret_makes_the_proof():
    assert proof_fits("s", "n", proof_of("s", "n"))
    assert not proof_fits("s", "n", proof_of("t", "n"))
    assert not proof_fits("s", "m", proof_of("s", "n"))
    assert not proof_fits("s", "n", None)


def test_outcomes_travel_whole():
    outcome = AttemptOutcome("j", 2, OutcomeKind.FAILED, error=ErrorInfo("m", "c", "s"))
    assert outcome_of(outcome_message(outcome)) == outcome
    with pytest.raises(ProtocolError):
        outcome_of({"job_id": "j"})


@given(st.lists(st.text(max_size=20), max_size=6), st.lists(st.integers(1, 40), max_size=40))
def test_messages_come_whole_and_in_order_whatever_the_pieces(texts, sizes):
    messages = [{"t": "run", "text": text} for text in texts]
    data, frames, got = b"".join(map(frame, messages)), Frames(), []
    for size in [*sizes, len(data) or 1]:
        piece, data = data[:size], data[size:]
        got += frames.messages(piece)
    assert got == messages


def test_what_came_before_a_broken_frame_is_still_a_message():
    messages = Frames().messages(frame({"t": "run"}) + struct.pack(">I", MAX_FRAME + 1))
    assert next(messages) == {"t": "run"}
    with pytest.raises(ProtocolError):
        next(messages)

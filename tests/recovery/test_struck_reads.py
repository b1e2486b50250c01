"""A Ctrl-C in the midst of taking a read: whoever goes on has every character once."""

from __future__ import annotations

import contextlib

import pytest
from strikes import interrupt, moments

from holystream import Client, StreamInterrupted
from holystream.simulator import Script, Simulator

TAKING = (
    "holystream/exchange.py",
    "holystream/recorder.py",
    "holystream/transcript.py",
    "holystream/resume/joining.py",
    "holystream/resume/tracker.py",
    "holystream/providers/openai_decoder.py",
    "holystream/providers/speaker.py",
)
TEXT = "It goes on."
LASTING = {"checkpoint_every": 1000}
"""The journal may lag: what is stored at the end is stored with the last place."""


@pytest.fixture(scope="module")
def sim():
    # Each piece is read alone.
    script = Script(ids="named", pace=0.001, times=0)
    with Simulator(text=TEXT, script=script) as server:
        yield server


def struck_at(strike, stream):
    """Return what the caller was handed before he was interrupted."""
    shown = ""
    with contextlib.suppress(KeyboardInterrupt), stream, strike.by(interrupt):
        for piece in stream.text_stream:
            shown += piece
    return shown


@pytest.mark.slow
def test_a_token_goes_on_with_the_text_that_is_kept(sim):
    with Client("sk-0123456789", base_url=sim.base_url, model="sim") as client:
        for strike in moments(TAKING):
            stream = client.stream("hello", temperature=0)
            struck_at(strike, stream)
            token, kept = stream.resume_token, stream.partial_text
            if stream.completion is not None or not (token and kept):
                continue
            with client.resume(token, messages="hello", partial_text=kept) as rest:
                assert kept + "".join(rest.text_stream) == TEXT, strike


@pytest.mark.slow
@pytest.mark.parametrize("recording", [{}, LASTING], ids=["strict", "lagging"])
def test_the_journal_goes_on_with_what_it_holds(sim, tmp_path, recording):
    journal = tmp_path / "streams.db"
    with Client(
        "sk-0123456789",
        base_url=sim.base_url,
        model="sim",
        journal=journal,
        **recording,
    ) as client:
        for strike in moments(TAKING):
            stream = client.stream("hello", temperature=0)
            shown = struck_at(strike, stream)
            if stream.completion is not None:
                continue
            try:
                with client.resume(stream.stream_id, partial_text=shown) as rest:
                    assert shown + "".join(rest.text_stream) == TEXT, strike
                    assert rest.completion.text == TEXT
            except StreamInterrupted as error:
                kept = error.partial_text
                assert TEXT.startswith(kept)

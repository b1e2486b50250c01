"""The word that was meant."""

from __future__ import annotations

import json

import pytest

from holystream.spelling import did_you_mean

KNOWN = {"temperature", "max_tokens", "seed"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("temprature", ": did you mean 'temperature'?"),
        ("max-tokens", ": did you mean 'max_tokens'?"),
        ("deadline", ""),
        ("", ""),
    ],
)
def test_the_nearest_word_is_named_if_one_is_near(word, expected):
    assert did_you_mean(word, KNOWN) == expected


def test_it_is_shown_as_its_reader_writes_it():
    assert did_you_mean("sed", KNOWN, shown=str) == ": did you mean seed?"
    assert did_you_mean("sed", KNOWN, shown=json.dumps) == ': did you mean "seed"?'

"""eventsource-parser of npm as the other opinion: on every case, and on any bytes."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from contract_streams import CONTRACT
from hypothesis import example, given, settings, strategies as st
from package_streams import PACKAGES
from parsing import Parsed, parse
from peer_presence import need
from peer_processes import ROOT
from wpt_streams import WPT

PACKAGE = ROOT / ".peers" / "node_modules" / "eventsource-parser" / "dist" / "index.js"
CASES = [*WPT, *CONTRACT, *PACKAGES]


class Oracle:
    """One node process that parses; not thread-safe."""

    def __init__(self):
        script = Path(__file__).with_name("oracle.mjs")
        self._process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def parse(self, pieces):
        texts = [base64.b64encode(piece).decode() for piece in pieces]
        question = json.dumps([PACKAGE.as_uri(), texts]) + "\n"
        self._process.stdin.write(question.encode())
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        answer["events"] = [tuple(event) for event in answer["events"]]
        return Parsed(**answer)

    def close(self):
        """End the process: it ends with its input."""
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="module")
def oracle():
    need(shutil.which("node"), "node")
    need(PACKAGE.exists(), "eventsource-parser")
    oracle = Oracle()
    yield oracle
    oracle.close()


@pytest.mark.parametrize("case", CASES, ids=[each.source for each in CASES])
def test_it_reads_every_case_as_the_table_says(oracle, case):
    """So that the tables are not only what one reader takes the suites to say."""
    events, comments = list(case.events), list(case.comments)
    assert oracle.parse([case.body]) == Parsed(
        events, case.last_id, case.retry, comments
    )


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r"])
MARK = b"\xef\xbb\xbf"
NAMES = st.sampled_from(
    [
        *(b"data", b"data", b"event", b"id", b"id", b"retry", b"", b""),
        *(b"Data", b" data", b"dat", b"datax", b"data\0", MARK + b"data", b"other"),
    ]
)
COLONS = st.sampled_from([b":", b": ", b":  ", b":\t", b"", b" :", b"::"])
VALUES = st.one_of(
    st.sampled_from([b"", b"a", b"[DONE]", b"{}", b"\0", b"x\0y", b"\x0b", MARK, b":"]),
    st.integers(0, 10**15).map(lambda number: b"%d" % number),
    st.tuples(st.integers(0, 30), st.integers(0, 999)).map(
        lambda zeros_and_number: (
            b"0" * zeros_and_number[0] + b"%d" % zeros_and_number[1]
        )
    ),
    st.sampled_from([b"-1", b"+1", b"1e3", b"1.5", b"007", b"1 ", "٣".encode()]),
    st.sampled_from(
        [b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\xaf"]
    ),
    st.text(st.characters(exclude_characters="\r\n"), max_size=8).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=8),
    st.integers(0, 9000).map(lambda size: b"x" * size),
)
LINES = st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join)
STARTS = [b"", b"", MARK, MARK + MARK, MARK[:2], b"\n", b":\n" + MARK, MARK + b":\n"]
TAILS = [b"", b"", b"id: t\n", b"id: t\n:\n", b"event: t\n:\r", b"data: t\n:c"]
BODIES = st.tuples(
    st.sampled_from(STARTS),
    st.lists(st.one_of(LINES, LINES, LINES, ENDS, VALUES), max_size=12).map(b"".join),
    st.sampled_from(TAILS),
).map(b"".join)


@pytest.mark.slow
@settings(max_examples=2000)
@example(body=b":\n" + MARK + b"data: a\n\n", places=[])
@example(body=b"id: 1\n\nid: 2\n:\n", places=[])
@given(body=BODIES, places=st.lists(st.integers(0), max_size=6))
def test_any_bytes_mean_the_same_to_both(oracle, body, places):
    # To it alone an "ï»¿" that is no mark, but three letters, is one.
    if body.startswith("\u00ef\u00bb\u00bf".encode()):
        return
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert parse(pieces) == oracle.parse(pieces)

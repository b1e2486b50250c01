"""What is decoded by threads is known to msgspec before: a first use of two crashes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

import msgspec._utils

import holystream
import holystream.journal.sqlite
from holystream.simulator import Script, Simulator

there, learnt = msgspec._utils._forward_ref, []


def learn(name, *others):
    learnt.append(name)
    return there(name, *others)


# It is asked for each annotation of a type that is not known yet.
msgspec._utils._forward_ref = learn
once = holystream.RetryPolicy(attempts=1)
with (
    Simulator(script=Script(cut_at=6000, ids="named")) as sim,
    holystream.Client("k" * 20, base_url=sim.base_url, model="m", retry=once) as client,
):
    stream = client.stream("hello", stream_id="s", journal=sys.argv[1])
    try:
        stream.until_done()
    except holystream.StreamInterrupted:
        token, text = stream.resume_token, stream.partial_text
    client.resume("s", journal=sys.argv[1]).until_done()
    client.resume("s", journal=sys.argv[1]).until_done()
    client.resume(token, messages="hello", partial_text=text).until_done()
print(learnt)
"""


def test_nothing_is_learnt_once_there_may_be_threads(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "streams.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr

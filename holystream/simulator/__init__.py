"""The simulator: a server that streams like OpenAI and fails like a network.

`Simulator` is the server, `Script` the faults of one answer. It is the test peer
of this package and shares no code with it: only the standard library is used.
Answers are a pure function of the request, every byte that goes out is chosen
here, and all faults are real ones: a FIN is a FIN, a RST is a RST.

    with Simulator(script=Script(cut_at=400, cut="rst")) as simulator:
        client = Client("test-key", base_url=simulator.base_url)
"""

from holystream.simulator.answers import Answer, Choice, ToolCall
from holystream.simulator.failures import ERROR_EVENTS
from holystream.simulator.generations import Generation
from holystream.simulator.messages import Headers, ReceivedRequest
from holystream.simulator.script import Script
from holystream.simulator.server import Simulator

__all__ = [
    "ERROR_EVENTS",
    "Answer",
    "Choice",
    "Generation",
    "Headers",
    "ReceivedRequest",
    "Script",
    "Simulator",
    "ToolCall",
]

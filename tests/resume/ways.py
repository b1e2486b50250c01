"""Every way to go on, with a server that knows it: what the cuts are tried on."""

from __future__ import annotations

import dataclasses
from typing import Any

from holystream.events import Guarantee
from holystream.providers.profile import Prefill
from holystream.simulator.script import Script

TEXT = (
    "Naïve Café: 🚀 reads  two\u2028lines,\n\n"
    "東京の言葉は長い文字の流れであり空白を知らない一つの言葉として読まれるが"
    "それでも途切れた所から正しく続けられなければならないのである一字も失わずに。 "
    '👩‍🚀 and e\u0301te\u0301, `"x\\y"`; ha ha ha. One true line \n'
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
CALLS = 'call:weather {"at": "Zürich 🚀"} call:weather {"at": "東京", "n": [1, 2]}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How a client goes on and what the server does, and what that is worth."""

    name: str
    script: Script
    resume: tuple[str, ...]
    worth: frozenset[Guarantee]
    temperature: float = 0
    profile: dict[str, Any] = dataclasses.field(default_factory=dict)
    calls: bool = False

    @property
    def asked(self):
        """What is asked for."""
        tools = {"tools": [WEATHER], "prompt": CALLS} if self.calls else {}
        return {
            "extra_body": {"stream_options": {"include_obfuscation": False}},
            "resume": self.resume,
            "temperature": self.temperature,
            "profile": self.profile,
            **tools,
        }

    def __str__(self):
        return self.name


def _way(name, resume, *worth, script=None, **fields):
    return Way(
        name=name,
        script=Script(**(script or {})),
        resume=resume,
        worth=frozenset(worth),
        **fields,
    )


SPELLINGS = {
    "prefix": "prefix",
    "continue_final_message": "continue",
    "trailing": "trailing",
}
VERBATIM, VERIFIED, CONTINUED = (
    Guarantee.VERBATIM,
    Guarantee.VERIFIED,
    Guarantee.CONTINUED,
)

CURSORS = [
    _way("named ids", ("cursor",), VERBATIM, script={"ids": "named"}),
    _way("plain ids", ("cursor",), VERBATIM, script={"ids": "plain"}),
    _way(
        "inclusive",
        ("cursor",),
        VERBATIM,
        script={"ids": "named", "cursor": "inclusive"},
        temperature=1,
    ),
    _way(
        "some come again",
        ("cursor",),
        VERBATIM,
        script={"ids": "plain", "replay_events": 3},
    ),
    _way(
        "out of order",
        ("cursor",),
        VERBATIM,
        script={"ids": "named", "shuffle": 4, "replay_events": 2},
        temperature=1,
    ),
    _way(
        "halves of characters",
        ("cursor",),
        VERBATIM,
        script={"ids": "named", "split_surrogates": True},
    ),
    _way("calls by ids", ("cursor",), VERBATIM, script={"ids": "named"}, calls=True),
    _way(
        "bytes",
        ("cursor",),
        VERBATIM,
        profile={"cursor": "llama-server"},
        temperature=1,
    ),
    _way(
        "halves by bytes",
        ("cursor",),
        VERBATIM,
        script={"split_surrogates": True, "bom": True},
        profile={"cursor": "llama-server"},
    ),
    _way(
        "calls by bytes",
        ("cursor",),
        VERBATIM,
        profile={"cursor": "llama-server"},
        calls=True,
    ),
]
PREFILLS = [
    *(
        _way(
            f"verified {spelling}{f', echo {echo}' if echo else ''}",
            ("prefill",),
            VERIFIED,
            script={"prefill": understood, "echo": echo},
            profile={"prefill": Prefill(spelling=spelling, echo=echo is not None)},
        )
        for spelling, understood in SPELLINGS.items()
        for echo in (None, "whole", "glued", "pieces")
    ),
    _way(
        "verified by whole tokens",
        ("prefill",),
        VERIFIED,
        script={"prefill": "continue", "tokens": True},
        profile={"prefill": Prefill(spelling="continue_final_message")},
    ),
    _way(
        "verified behind an echo that nobody expects",
        ("prefill",),
        VERIFIED,
        script={"prefill": "continue", "echo": "pieces", "split_surrogates": True},
        profile={"prefill": Prefill(spelling="continue_final_message")},
    ),
    _way(
        "verified by a server that begins anew",
        ("prefill",),
        VERIFIED,
        script={"prefill": "ignore"},
        profile={"prefill": Prefill(spelling="continue_final_message")},
    ),
]
SAMPLED = [
    _way(
        f"continued{f', echo {echo}' if echo else ''}{f' and {more}' if more else ''}",
        ("cursor", "prefill"),
        CONTINUED,
        script={"prefill": "continue", "echo": echo, **extra},
        profile={
            "prefill": Prefill(spelling="continue_final_message", echo=echo is not None)
        },
        temperature=1,
    )
    for echo in (None, "whole", "glued", "pieces")
    for more, extra in (("", {}), ("halves", {"split_surrogates": True}))
]
"""Those with which a model goes on with something else each time it is asked."""
REPLAYS = [
    _way("replay", ("replay",), Guarantee.REPLAYED),
    _way(
        "replay of halves",
        ("replay",),
        Guarantee.REPLAYED,
        script={"split_surrogates": True},
    ),
    _way("replay of calls", ("replay",), Guarantee.REPLAYED, calls=True),
]
STITCHES = [
    _way(
        f"stitch{f' over {overlap}' if overlap else ''}",
        ("stitch", "restart"),
        Guarantee.STITCHED,
        Guarantee.RESTARTED,
        script={"stitch": "continue", "overlap": overlap},
    )
    for overlap in (0, 30, 60)
]
RESTARTS = [_way("restart", ("restart",), Guarantee.RESTARTED)]
EXACT = [*CURSORS, *PREFILLS, *REPLAYS, *STITCHES, *RESTARTS]
"""Those with which the final text is the uncut one."""

"""Storms of any weather, with every strategy and a server that knows what it wrote.

Whatever comes, the reader ends with one answer, exactly, and a guarantee that says how
it came about; or with an error, and the true beginning of an answer. The server is the
simulator's, which remembers its generations: what it wrote, and for which beginning.
"""

from __future__ import annotations

from hypothesis import event, given, settings, strategies as st
from laboratory import Laboratory
from ways import CALLS, SPELLINGS, WEATHER

from holystream.errors import Phase, StreamError
from holystream.events import Guarantee, Interrupted, Resumed, TextDelta, ToolCall
from holystream.providers.profile import Prefill
from holystream.resilience.retry import RetryPolicy
from holystream.simulator.script import Script
from holystream.wire.faults import FaultKind

ENDS = {
    "cut": FaultKind.LOST,
    "stall": FaultKind.IDLE,
    "clean end": FaultKind.ENDED,
}
PATIENT = RetryPolicy(base=1.0, cap=1.0, jitter=None, attempts=6, total_attempts=None)
GREEDY = {"temperature": 0}
SAMPLED = {"temperature": 1}
SEEDED = {"temperature": 1, "seed": 7}
TEXTS = [
    None,
    "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
    "\n\nLinien\n\n\n  mit  Rand  \n\n und Ende  \n",
    "🚀🚀👩‍🚀" + 2 * ("東京" * 16 + "🚀"),
    "a",
]

HOSTS = {
    "gives ids": {"ids": ["plain", "named"]},
    "gives ids and prefills": {"ids": ["plain", "named"], "prefill": [*SPELLINGS]},
    "counts bytes": {"keeps": ["llama-server"], "prefill": [None, *SPELLINGS]},
    "prefills": {"prefill": [*SPELLINGS]},
    "knows nothing": {},
}
ALWAYS = {
    "echo": [None, "whole", "glued", "pieces"],
    "early_stop": [False, False, True],
    "split": [False, True],
}
hosts = st.sampled_from([*HOSTS.values()]).flatmap(
    lambda kind: st.fixed_dictionaries(
        {
            key: st.sampled_from(values)
            for key, values in {
                **{key: [None] for key in ("ids", "prefill", "keeps")},
                **ALWAYS,
                **kind,
            }.items()
        }
    )
)
orders = st.permutations(["cursor", "prefill", "replay", "restart"]).flatmap(
    lambda names: st.integers(1, 4).map(lambda count: tuple(names[:count]))
)
CURSORS = ["inclusive", "ignore", "other", "gap", "missing", "refuse", "empty"]
troubles = st.sampled_from(
    [
        *({"cursor": how} for how in 4 * CURSORS),
        *({"status": status} for status in (400, 404, 429, 503)),
        *({"error_event_at": at} for at in (0, 3, 9)),
        *({"malformed_at": at} for at in (0, 3, 9)),
        *({"differ_at": at} for at in (0, 5, 20, 60)),
        *({"shorter": at} for at in (0, 5, 20, 60)),
        {"replay_events": 3},
        {"shuffle": 4},
        {"shuffle": 3, "replay_events": 5},
        {"usage": "finish"},
        {"newline": "\r\n"},
        {"newline": "\r"},
        {"done": False},
        {"finish": False},
        {"final_blank_line": False},
        {"finish_reason": "error"},
    ]
)
blows = st.tuples(
    st.sampled_from(
        [
            *ENDS,
            *ENDS,
            "calm",
            "not sent",
            "empty",
            "another model",
            "prefill refused",
            "prefill ignored",
        ]
    ),
    st.floats(0, 1),
    st.lists(troubles, max_size=2).map(
        lambda several: {key: each[key] for each in several for key in each}
    ),
)
# Something of the answer has come before the weather gets rough.
first_blows = st.tuples(st.sampled_from([*ENDS]), st.floats(0.2, 0.95), st.just({}))
weather = st.builds(
    lambda first, more: [first, *more],
    st.one_of(first_blows, first_blows, blows),
    st.lists(blows, max_size=5),
)


def laboratory_of(host, resume, asked, text, calls):
    prefill = None
    if host["prefill"] is not None:
        echo = host["echo"] is not None
        prefill = Prefill(spelling=host["prefill"], echo=echo)
    profile = {
        "prefill": prefill,
        "cursor": host["keeps"],
        "early_stop": host["early_stop"],
    }
    tools = {"tools": [WEATHER], "prompt": CALLS} if calls else {}
    return Laboratory(
        text=None if calls else text,
        length=12,
        resume=resume,
        retry=PATIENT,
        profile=profile,
        **asked,
        **tools,
    )


def script_of(host, changes):
    known = SPELLINGS.get(host["prefill"], "none")
    echo = host["echo"] if host["prefill"] else None
    return Script(
        **{
            "ids": host["ids"],
            "prefill": known,
            "echo": echo,
            "split_surrogates": host["split"],
            **changes,
        }
    )


def was_refuted(lab):
    """Whether the server has said something else when it was asked again."""
    return any(
        isinstance(each, Interrupted)
        and "is not the answer that was delivered" in str(each.error)
        for each in lab.log
    )


def strike(lab, host, blow, sizes, asked):
    """Play one attempt in this weather."""
    kind, share, changes = blow
    if kind == "not sent":
        lab.attempt().end(FaultKind.REFUSED, Phase.CONNECT)
        return
    change = {
        "empty": lambda _: b"",
        "another model": lambda body: body.replace(b'"model":"m"', b'"model":"other"'),
    }.get(kind, lambda body: body)
    if kind == "prefill refused":
        changes = {**changes, "prefill": "refuse"}
    elif kind == "prefill ignored" and asked is GREEDY and not was_refuted(lab):
        # Another answer to the question would be taken for the rest of this one: that a
        # host knows prefill is the profile's word, which only a greedy model can prove.
        changes = {**changes, "prefill": "ignore", "echo": None}
    before = len(lab.log)
    lab.run(
        script_of(host, changes),
        share if kind in ENDS else None,
        ENDS.get(kind, FaultKind.ENDED),
        sizes=sizes,
        change=change,
    )
    model = "other" if kind == "another model" else "m"
    for each in lab.log[before:]:
        if isinstance(each, Resumed) and each.strategy == "cursor":
            # The same answer, whatever it is called.
            model = lab.model or model
        if isinstance(each, Resumed) and each.strategy == "prefill":
            assert model == lab.model, "one model goes on with the text of another"
        if isinstance(each, TextDelta):
            lab.model = model


@settings(max_examples=500)
@given(
    host=hosts,
    resume=orders,
    asked=st.sampled_from([GREEDY, SAMPLED, SEEDED]),
    text=st.sampled_from(TEXTS),
    calls=st.integers(0, 3).map(lambda drawn: drawn == 0),
    storm=weather,
    sizes=st.lists(st.integers(1, 600), min_size=1, max_size=3),
)
def test_storms(host, resume, asked, text, calls, storm, sizes):  # noqa: PLR0917 - drawn
    lab = laboratory_of(host, resume, asked, text, calls)
    for blow in [*storm, *[("calm", 1.0, {})] * 40]:
        if lab.over:
            break
        strike(lab, host, blow, sizes, asked)
        assert lab.over is (lab.exchange.wait is None)
    assert lab.over
    judge(lab, resume)


def judge(lab, resume):
    reader = lab.reader
    discarded = sum(map(len, reader.discarded))
    assert reader.delivered - discarded == len(lab.text), "every character once"
    if "restart" not in resume:
        assert not reader.discarded
    assert lab.is_true, lab.text
    if lab.completion is None:
        event(type(lab.error).__name__)
        assert isinstance(lab.error, StreamError)
        assert lab.error.partial_text == lab.text
        return
    event(lab.completion.guarantee.name)
    assert lab.completion.text == lab.text
    earned = [each.guarantee for each in lab.resumptions]
    assert lab.completion.guarantee is min([Guarantee.SINGLE, *earned])
    made = lab.completion.tool_calls
    assert list(made) == [each for each in lab.log if isinstance(each, ToolCall)]
    if made:
        assert [(each.name, each.arguments_json) for each in made] in [
            [(call.name, call.arguments) for call in one.answer.tool_calls]
            for one in lab.service.generations
        ]

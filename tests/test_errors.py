"""The errors: one tree, as it is drawn; what each carries, says and keeps."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

import holystream
from holystream import errors
from holystream.errors import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    HolystreamError,
    InvalidRequest,
    Phase,
    PoolError,
    QueueTimeout,
    RateLimited,
    StreamError,
    StreamInterrupted,
    StreamInUse,
    StreamTimeout,
    Verdict,
)

ERRORS = (Path(__file__).parent.parent / "docs" / "errors.md").read_text("utf-8")

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, HolystreamError)
}
OF_A_STREAM = [kind for kind in CLASSES.values() if issubclass(kind, StreamError)]

VERDICTS = {
    "ConnectionFailed": Verdict.NOT_SENT,
    "ConnectTimeout": Verdict.NOT_SENT,
    "ProxyFailed": Verdict.NOT_SENT,
    "ConnectionLost": Verdict.INTERRUPTED,
    "IncompleteAnswer": Verdict.INTERRUPTED,
    "StreamTimeout": Verdict.INTERRUPTED,
    "FirstTokenTimeout": Verdict.INTERRUPTED,
    "IdleTimeout": Verdict.INTERRUPTED,
    "TokenIdleTimeout": Verdict.INTERRUPTED,
    "MalformedEvent": Verdict.INTERRUPTED,
    "RateLimited": Verdict.THROTTLED,
    "ServerError": Verdict.SERVER_ERROR,
    "Overloaded": Verdict.SERVER_ERROR,
    "StreamCancelled": Verdict.CANCELLED,
    "StreamClosed": Verdict.CANCELLED,
    "CircuitOpen": Verdict.NOT_SENT,
}
"""What they mean for another attempt, where that is not FATAL."""


def drawn():
    """The tree in the module's docstring: class -> its base and what else it is."""
    found, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([ |`-]*)(\w+)(?: .*?)?(?:\((\w+)\))?", line)
        if match is None or match[2] not in CLASSES:
            continue
        depth = len(match[1]) // 3
        path[depth:] = [match[2]]
        found[match[2]] = (path[depth - 1] if depth else None, match[3])
    return found


def test_the_tree_is_drawn_as_it_is():
    real = {
        name: next((base.__name__ for base in kind.__bases__ if base in known()), None)
        for name, kind in CLASSES.items()
    }
    assert {name: base for name, (base, _) in drawn().items()} == real


def test_the_table_of_the_docs_is_the_tree():
    """docs/errors.md: each class once, below its base, as deep as it is."""
    rows = re.findall(r"^\| ((?:&nbsp;)*)`([A-Z]\w+)` \|", ERRORS, re.MULTILINE)
    assert sorted(name for _, name in rows) == sorted(CLASSES)
    path = ["HolystreamError"]
    for space, name in rows[1:]:
        # The children of HolystreamError stand at its own depth: all are below it.
        depth = len(space) // len("&nbsp;&nbsp;") + 1
        path[depth:] = [name]
        assert CLASSES[path[depth - 1]] in CLASSES[name].__bases__, name


def known():
    return set(CLASSES.values())


def test_what_is_also_a_builtin_says_so():
    builtin = {
        name: [base.__name__ for base in kind.__bases__ if base not in known()]
        for name, kind in CLASSES.items()
        if kind is not HolystreamError
    }
    said = {name: [also] if also else [] for name, (_, also) in drawn().items()}
    del said["HolystreamError"]
    assert said == builtin
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidRequest, ValueError)
    assert issubclass(StreamInUse, RuntimeError)
    assert issubclass(StreamTimeout, TimeoutError)


def test_all_of_them_are_public():
    assert set(CLASSES) <= set(holystream.__all__)


@pytest.mark.parametrize("kind", OF_A_STREAM)
def test_its_attributes_are_there_from_the_start(kind):
    error = kind("it happened")
    assert error.partial_text == ""
    assert (error.stream_id, error.request_id, error.endpoint) == (None, None, None)
    assert (error.phase, error.attempts, error.retry_after) == (None, 0, None)
    assert error.message == str(error) == "it happened"


@pytest.mark.parametrize("kind", OF_A_STREAM)
def test_its_verdict(kind):
    assert kind("").verdict is VERDICTS.get(kind.__name__, Verdict.FATAL)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, None])
@pytest.mark.parametrize("kind", CLASSES.values())
def test_it_survives_a_pickle_with_all_that_it_carries(kind, duplicate):
    error = kind("it happened")
    if isinstance(error, StreamError):
        error.describe(
            partial_text="naïve 🚀",
            stream_id="s",
            request_id="r",
            endpoint="e",
            attempts=3,
        )
        error.phase, error.retry_after = Phase.BODY, 1.5
        error.verdict = Verdict.THROTTLED
    if isinstance(error, APIError):
        error.status, error.code, error.type = 429, "slow_down", "requests"
    error.__cause__ = OSError("not for others")
    same = duplicate(error) if duplicate else pickle.loads(pickle.dumps(error))
    assert type(same) is kind
    assert same.args == error.args
    assert vars(same) == vars(error)
    assert str(same) == str(error)
    if duplicate is None:
        assert same.__cause__ is None, "the cause may hold what must not travel"


class TestWhatItSays:
    def error(self, kind=ConnectionLost):
        error = kind("the connection broke")
        error.phase = Phase.BODY
        return error.describe(
            partial_text="Hello",
            stream_id="s-1",
            request_id="req_7",
            endpoint="holysheep",
            attempts=2,
        )

    @pytest.mark.parametrize("kind", [ConnectionLost, StreamTimeout, QueueTimeout])
    def test_the_facts_follow_the_message(self, kind):
        error = self.error(kind)
        error.retry_after = 1.5
        assert str(error) == (
            "the connection broke [5 characters kept in .partial_text; "
            "retry after 1.5 s; attempts: 2; phase: BODY; endpoint: holysheep; "
            "request_id: req_7; stream_id: s-1]"
        )
        assert error.message == "the connection broke"
        assert error.args == ("the connection broke",)

    def test_what_is_not_known_is_not_said(self):
        error = RateLimited("slow down", status=429)
        error.retry_after = 0.0
        assert str(error) == "slow down [retry after 0 s]"

    def test_a_wait_is_told_in_hundredths(self):
        error = holystream.CircuitOpen("all rest", retry_after=0.9169137413437056)
        assert str(error) == "all rest [retry after 0.92 s]"

    def test_the_text_itself_is_not_in_it(self):
        assert "Hello" not in str(self.error())
        assert "Hello" not in repr(self.error())

    def test_describing_it_returns_it(self):
        assert self.error(PoolError).attempts == 2


class TestStreamInterrupted:
    def test_it_takes_over_what_its_cause_knows(self):
        cause = RateLimited("slow down")
        cause.phase, cause.retry_after = Phase.HEADERS, 7.0
        error = StreamInterrupted("it broke off", cause=cause)
        assert error.cause is cause
        assert error.verdict is Verdict.THROTTLED
        assert (error.phase, error.retry_after) == (Phase.HEADERS, 7.0)

    def test_its_cause_travels_with_it(self):
        error = StreamInterrupted("it broke off", cause=ConnectionLost("it broke"))
        same = pickle.loads(pickle.dumps(error))
        assert type(same.cause) is ConnectionLost
        assert str(same.cause) == "it broke"

    def test_it_may_have_none(self):
        assert StreamInterrupted("it broke off").cause is None


def test_the_phases_are_in_order():
    assert list(Phase) == sorted(Phase)
    assert Phase.CONNECT < Phase.SENT < Phase.HEADERS < Phase.BODY

"""Several endpoints: an answer that breaks off at one goes on at another.

Live simulators are the regions. What a breaker or the router does alone is tested in
tests/resilience; here it is whole streams that must end right.
"""

import collections
import math
import random
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from loopback import Reader, free_port, until

from holystream import (
    AuthenticationError,
    BreakerPolicy,
    CircuitOpen,
    Client,
    ConfigurationError,
    Connected,
    ConnectionFailed,
    Endpoint,
    Guarantee,
    HolystreamError,
    InvalidAPIKey,
    ModelNotFound,
    NotFound,
    Resumed,
    RetryBudget,
    RetryPolicy,
    ServerError,
    StreamInterrupted,
    Timeouts,
    Verdict,
    Waiting,
)
from holystream.simulator import Script, Simulator

KEY, OTHER_KEY = "sk-0123456789abcdef", "sk-fedcba9876543210"
SOON = RetryPolicy(base=0.001, cap=0.002)
PLENTY = RetryBudget(floor=1e6)


def text_of(prompt):
    return f"The answer to {prompt!r}: " + " ".join(f"{prompt}-{n}" for n in range(30))


def answer_to(body):
    return text_of(body["messages"][0]["content"])


@pytest.fixture
def regions():
    """Make a simulator for each script, each with the same answers."""
    with ExitStack() as stack:

        def make(*scripts, **options):
            return [
                stack.enter_context(Simulator(script=script, text=answer_to, **options))
                for script in scripts
            ]

        yield make


@contextmanager
def refusing():
    """A port at which nobody listens, for as long as the block lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def client_of(*endpoints, **options):
    options.setdefault("retry", SOON)
    options.setdefault("retry_budget", PLENTY)
    return Client(KEY, endpoints=endpoints, model="sim", **options)


def client_of_two(first, second, **options):
    """A client of "a", and of "b" for when "a" will not do."""
    return client_of(
        Endpoint(first, name="a"), Endpoint(second, name="b", priority=1), **options
    )


def ask(client, prompt, **options):
    options.setdefault("temperature", 0)
    return client.stream(prompt, **options).get_final_completion()


def until_it_waits(stream):
    """Read until its first attempt has failed, and another will follow."""
    while not isinstance(next(stream), Waiting):
        pass


class TestOneStream:
    def test_it_goes_on_elsewhere_where_it_broke_off(self, regions):
        cut, good = regions(Script(cut_at=4000, cut="rst"), Script())
        with client_of_two(cut.base_url, good.base_url) as client:
            events = list(client.stream("hello", temperature=0))
        assert "".join(map(str, events)) == text_of("hello")
        at = [event.endpoint for event in events if isinstance(event, Connected)]
        assert at == ["a", "b"]
        assert events[-1].completion.endpoint == "b"
        assert events[-1].completion.guarantee is Guarantee.REPLAYED

    def test_a_cursor_is_asked_where_the_answer_is_kept(self, regions):
        keeping, other = regions(Script(ids="named", cut_at=4000), Script(times=0))
        with client_of(
            Endpoint(other.base_url, name="other", priority=1),
            Endpoint(keeping.base_url, name="keeping"),
        ) as client:
            events = list(client.stream("hello", temperature=1))
        assert "".join(map(str, events)) == text_of("hello")
        assert [each.endpoint for each in events if isinstance(each, Connected)] == [
            "keeping",
            "keeping",
        ]
        assert events[-1].completion.guarantee is Guarantee.VERBATIM
        assert other.requests == ()

    def test_without_the_server_that_kept_it_the_next_way_is_taken(self, regions):
        keeping, other = regions(Script(ids="named", gate=None, cut_at=4000), Script())
        with client_of(
            Endpoint(keeping.base_url, name="keeping"),
            Endpoint(other.base_url, name="other", priority=1),
        ) as client:
            stream = client.stream("hello", temperature=0)
            events = []
            for event in stream:
                events.append(event)
                if type(event).__name__ == "Interrupted":
                    keeping.close()
        assert "".join(map(str, events)) == text_of("hello")
        (resumed,) = [each for each in events if isinstance(each, Resumed)]
        assert resumed.strategy == "replay"
        assert events[-1].completion.endpoint == "other"
        assert [cost.strategy for cost in events[-1].completion.interruption_costs] == [
            "cursor",
            "replay",
        ]

    def test_the_first_retry_of_what_was_not_sent_is_elsewhere_and_at_once(
        self, regions
    ):
        (good,) = regions(Script())
        with (
            refusing() as nowhere,
            client_of_two(nowhere, good.base_url) as client,
        ):
            events = list(client.stream("hello", temperature=0))
        (waiting,) = [event for event in events if isinstance(event, Waiting)]
        assert (waiting.delay, waiting.reason) == (0.0, "immediate")
        assert events[-1].completion.endpoint == "b"

    def test_a_key_that_is_refused_is_left_for_another(self, regions):
        (one,) = regions(Script(), api_keys=[OTHER_KEY])
        with client_of(
            Endpoint(one.base_url, name="a"),
            Endpoint(one.base_url, name="b", key=OTHER_KEY, priority=1),
        ) as client:
            assert ask(client, "hello").text == text_of("hello")
            assert ask(client, "again").attempts == 1, "it is left for a while"

    def test_where_there_is_no_other_key_the_refusal_is_the_error(self, regions):
        one, two = regions(Script(), Script(), api_keys=[OTHER_KEY])
        with (
            client_of_two(one.base_url, two.base_url) as client,
            pytest.raises(AuthenticationError) as caught,
        ):
            # A key at two hosts is two credentials: each is asked once.
            ask(client, "hello")
        assert caught.value.attempts == 2

    def test_each_key_goes_to_its_own_endpoint_alone(self, regions):
        one, two = regions(Script(cut_at=4000), Script())
        with client_of(
            Endpoint(one.base_url, name="a"),
            Endpoint(two.base_url, name="b", key=OTHER_KEY, priority=1),
        ) as client:
            ask(client, "hello")
        assert [each.headers["Authorization"] for each in one.requests] == [
            f"Bearer {KEY}"
        ]
        assert [each.headers["Authorization"] for each in two.requests] == [
            f"Bearer {OTHER_KEY}"
        ]


class TestHints:
    """A hint binds the endpoint that gave it, which rests for so long."""

    @pytest.mark.parametrize("hint", [31, 3600])
    @pytest.mark.parametrize("status", [429, 503])
    def test_another_endpoint_is_tried_at_once(self, regions, status, hint):
        asking, good = regions(
            Script(status=status, headers={"retry-after": f"{hint}"}), Script()
        )
        with client_of_two(asking.base_url, good.base_url) as client:
            events = list(client.stream("hello", temperature=0))
            assert ask(client, "another").endpoint == "b", "the first one rests"
        assert events[-1].completion.endpoint == "b"
        (waiting,) = [event for event in events if isinstance(event, Waiting)]
        assert (waiting.delay, waiting.reason) == (0.0, "immediate")
        assert waiting.attempts_left == 4

    def test_the_policy_still_counts(self, regions):
        asking, good = regions(
            Script(status=503, headers={"retry-after": "31"}), Script(times=0)
        )
        with (
            client_of_two(asking.base_url, good.base_url) as client,
            pytest.raises(ServerError) as caught,
        ):
            ask(client, "hello", retry=RetryPolicy(attempts=1))
        assert caught.value.retry_after == 31
        assert good.requests == ()

    def test_where_all_ask_to_wait_the_shortest_wait_counts(
        self, regions, holystream_clock
    ):
        brief, long = (
            Script(status=503, headers={"retry-after": hint}) for hint in ("5", "3600")
        )
        one, two = regions(brief, long)
        with client_of_two(one.base_url, two.base_url) as client:
            events = list(client.stream("hello", temperature=0))
        at_once, waiting = [event for event in events if isinstance(event, Waiting)]
        assert at_once.delay == 0.0
        assert 4.0 < waiting.delay <= 10.0
        assert waiting.reason == "server hint"
        assert events[-1].completion.endpoint == "a"

    def test_who_was_waited_for_goes_before_one_that_is_still_to_be(
        self, regions, holystream_clock
    ):
        brief, longer, long = (
            Script(status=503, headers={"retry-after": hint})
            for hint in ("5", "20", "3600")
        )
        one, two, three = regions(brief, longer, long)
        with client_of(
            Endpoint(one.base_url, name="a", priority=1),
            Endpoint(two.base_url, name="b", priority=2),
            Endpoint(three.base_url, name="c"),
        ) as client:
            with pytest.raises(ServerError):
                ask(client, "hello", retry=RetryPolicy(attempts=1))
            events = list(client.stream("hello", temperature=0))
        delays = [event.delay for event in events if isinstance(event, Waiting)]
        assert delays[0] == 0.0
        assert 4.0 < delays[1] <= 10.0
        assert len(delays) == 2
        assert events[-1].completion.endpoint == "a"
        assert len(three.requests) == 1

    def test_one_that_is_shut_is_no_other(self, regions, holystream_clock):
        (asking,) = regions(Script(status=503, headers={"retry-after": "31"}))
        with (
            refusing() as nowhere,
            client_of_two(asking.base_url, nowhere) as client,
        ):
            client.breakers["b"].force_open()
            events = list(client.stream("hello", temperature=0))
        (waiting,) = [event for event in events if isinstance(event, Waiting)]
        assert waiting.delay >= 31

    @pytest.mark.parametrize(
        ("hint", "endpoint", "guarantee"),
        [
            (20, "keeping", Guarantee.VERBATIM),
            (3600, "other", Guarantee.REPLAYED),
        ],
    )
    def test_who_keeps_the_rest_is_waited_for_unless_it_takes_too_long(
        self, regions, holystream_clock, hint, endpoint, guarantee
    ):
        keeping, other = regions(
            [
                Script(ids="named", cut_at=4000),
                Script(status=503, headers={"retry-after": f"{hint}"}),
                Script(ids="named"),
            ],
            Script(times=0),
        )
        with client_of(
            Endpoint(keeping.base_url, name="keeping"),
            Endpoint(other.base_url, name="other", priority=1),
        ) as client:
            completion = ask(client, "hello")
        assert completion.text == text_of("hello")
        assert completion.endpoint == endpoint
        assert completion.guarantee is guarantee
        assert (max(holystream_clock.waits) >= hint) == (endpoint == "keeping")


class TestWrongPaths:
    """An endpoint whose base URL is wrong is one that cannot serve anybody."""

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_another_endpoint_is_tried_and_the_wrong_one_rests(self, regions, status):
        wrong, good = regions(Script(status=status, error=b"no", times=0), Script())
        with client_of_two(wrong.base_url, good.base_url) as client:
            assert ask(client, "hello").text == text_of("hello")
            assert ask(client, "again").attempts == 1
            resting = {each.name: each.resting for each in client.metrics().endpoints}
        assert resting["a"] > 50
        assert len(wrong.requests) == 1

    def test_so_it_is_with_two_paths_of_one_host(self, regions):
        (good,) = regions(Script(times=0))
        with client_of(
            Endpoint(good.base_url.replace("/v1", "/wrong"), name="a"),
            Endpoint(good.base_url, name="b", priority=1),
        ) as client:
            assert ask(client, "hello").text == text_of("hello")

    def test_where_all_are_wrong_it_says_so(self, regions):
        one, two = regions(*[Script(status=404, error=b"no", times=0)] * 2)
        with (
            client_of_two(one.base_url, two.base_url) as client,
            pytest.raises(NotFound) as caught,
        ):
            ask(client, "hello")
        assert caught.value.attempts == 2

    def test_a_model_that_is_unknown_is_not_the_endpoint(self, regions):
        error = {"error": {"code": "model_not_found", "message": "no such model"}}
        one, two = regions(Script(status=404, error=error), Script(times=0))
        with (
            client_of_two(one.base_url, two.base_url) as client,
            pytest.raises(ModelNotFound),
        ):
            ask(client, "hello")
        assert two.requests == ()


class TestBreakers:
    def test_with_every_region_out_the_error_says_when_to_try_again(self):
        policy = BreakerPolicy(failures=1, open_for=60, jitter=0)
        with (
            refusing() as one,
            refusing() as two,
            client_of_two(one, two, breaker=policy) as client,
        ):
            with pytest.raises(HolystreamError):
                ask(client, "hello")
            with pytest.raises(CircuitOpen) as caught:
                ask(client, "hello")
            assert 50 < caught.value.retry_after <= 60
            assert caught.value.attempts == 0
            statistics = client.pool.statistics()
            assert statistics.in_use == 0

    def test_the_error_names_what_failed_and_when_it_is_tried_again(self, regions):
        (busy,) = regions(Script(status=503, times=0))
        policy = BreakerPolicy(failures=1, open_for=60, jitter=0)
        with (
            refusing() as nowhere,
            client_of_two(nowhere, busy.base_url, breaker=policy) as client,
        ):
            with pytest.raises(HolystreamError):
                ask(client, "a secret prompt")
            with pytest.raises(CircuitOpen) as caught:
                ask(client, "hello")
        message = caught.value.message
        assert "a (open; last failure: the connection could not be made" in message
        assert "refused" in message
        assert "b (open; last failure: Overloaded, status 503)" in message
        assert re.search(r"to be tried again in (60|5\d)", message)
        assert message.endswith("Nothing was sent.")
        assert "secret" not in str(caught.value)

    def test_what_was_sent_is_not_denied(self, regions):
        (busy,) = regions(Script(status=503, times=0))
        with client_of(Endpoint(busy.base_url, name="a")) as client:
            waiting = client.stream("hello")
            until_it_waits(waiting)
            client.breakers["a"].force_open()
            with pytest.raises(CircuitOpen) as caught:
                waiting.until_done()
        assert "sent" not in caught.value.message
        assert "until its reset()" in caught.value.message
        assert "status 503" in caught.value.message
        assert isinstance(caught.value.__cause__, ServerError)

    def test_a_stream_with_text_tries_first_and_waits_for_nobody(
        self, regions, holystream_clock
    ):
        (cut,) = regions([Script(cut_at=4000), Script(status=503)])
        policy = BreakerPolicy(failures=1, open_for=30, jitter=0)
        with (
            refusing() as nowhere,
            client_of_two(cut.base_url, nowhere, breaker=policy) as client,
        ):
            events = list(client.stream("hello", temperature=0))
        assert "".join(map(str, events)) == text_of("hello")
        assert max(each.delay for each in events if isinstance(each, Waiting)) < 1

    def test_a_stream_with_text_waits_for_a_probe(self, regions, holystream_clock):
        (cut,) = regions([Script(cut_at=4000), Script(status=503, times=2)])
        policy = BreakerPolicy(failures=1, open_for=30, jitter=0)
        with (
            refusing() as nowhere,
            client_of_two(cut.base_url, nowhere, breaker=policy) as client,
        ):
            events = list(client.stream("hello", temperature=0))
        assert "".join(map(str, events)) == text_of("hello")
        assert max(each.delay for each in events if isinstance(each, Waiting)) >= 29

    def test_a_stream_with_text_waits_longer_than_it_would_for_a_server(
        self, regions, holystream_clock
    ):
        (cut,) = regions([Script(cut_at=4000), Script(status=503, times=2)])
        policy = BreakerPolicy(failures=1, open_for=100, jitter=0)
        with (
            refusing() as nowhere,
            client_of_two(cut.base_url, nowhere, breaker=policy) as client,
        ):
            events = list(client.stream("hello", temperature=0))
        assert "".join(map(str, events)) == text_of("hello")
        longest = max(
            (each for each in events if isinstance(each, Waiting)),
            key=lambda each: each.delay,
        )
        assert longest.delay >= 99
        assert longest.reason == "circuit open"

    def test_a_stream_with_text_waits_for_no_probe_after_its_deadline(
        self, regions, holystream_clock
    ):
        (cut,) = regions([Script(cut_at=4000), Script(status=503, times=2)])
        policy = BreakerPolicy(failures=1, open_for=100, jitter=0)
        with (
            refusing() as nowhere,
            client_of_two(cut.base_url, nowhere, breaker=policy) as client,
        ):
            stream = client.stream("hello", temperature=0, deadline=90)
            with pytest.raises(StreamInterrupted) as caught:
                stream.until_done()
        assert "is left alone for now" in caught.value.message
        assert "would begin after the deadline" in caught.value.message
        assert "asks" not in caught.value.message
        assert text_of("hello").startswith(caught.value.partial_text)

    def test_an_only_endpoint_is_not_left_for_cuts_that_end_what_cannot_go_on(
        self, regions
    ):
        (cut,) = regions(Script(cut_at=4000, times=20))
        with client_of(Endpoint(cut.base_url, name="a")) as client:
            for _ in range(20):
                with pytest.raises(StreamInterrupted) as caught:
                    ask(client, "hello", temperature=1)
                assert not caught.value.exhausted
            assert ask(client, "hello").text == text_of("hello")

    def test_nor_for_cuts_that_its_streams_go_on_through(self, regions):
        (cut,) = regions([Script(cut_at=4000, times=9), Script(times=0)])
        policy = BreakerPolicy(failures=1)
        with client_of(Endpoint(cut.base_url, name="a"), breaker=policy) as client:
            streams = [client.stream(f"{n}", temperature=0) for n in range(9)]
            for stream in streams:
                until_it_waits(stream)
            texts = [stream.get_final_text() for stream in streams]
            assert client.breakers["a"].statistics().opened == 0
        assert texts == [text_of(f"{n}") for n in range(9)]

    def test_nor_where_the_budget_cannot_pay_for_going_on(self, regions):
        """They have not tried again: one restart of a proxy may cut all of them."""
        (cut,) = regions([Script(cut_at=4000, times=9), Script(times=0)])
        budget = RetryBudget(ratio=0, floor=0)
        with client_of(Endpoint(cut.base_url, name="a"), retry_budget=budget) as client:
            for _ in range(9):
                with pytest.raises(StreamInterrupted, match="budget is spent"):
                    ask(client, "hello")
            assert ask(client, "hello").text == text_of("hello")

    def test_nor_where_there_is_no_second_attempt(self, regions):
        (cut,) = regions([Script(cut_at=4000, times=20), Script(times=0)])
        with client_of(
            Endpoint(cut.base_url, name="a"), retry=RetryPolicy(attempts=1)
        ) as client:
            for _ in range(20):
                with pytest.raises(StreamInterrupted) as caught:
                    ask(client, "hello")
                assert caught.value.exhausted
            assert ask(client, "hello").text == text_of("hello")

    @pytest.mark.parametrize("attempts", [2, 3])
    @pytest.mark.parametrize(
        "script",
        [
            Script(cut_at=5000, times=0),
            Script(cut_at=5000, cut="rst", times=0),
            Script(error_event_at=9, error_event="openai", times=0),
            Script(malformed_at=9, times=0),
        ],
    )
    def test_it_is_left_by_the_streams_that_gave_up_behind_their_text(
        self, regions, attempts, script
    ):
        (cut,) = regions(script)
        with client_of(
            Endpoint(cut.base_url, name="a"),
            retry=RetryPolicy(attempts=attempts, base=0.001, cap=0.002),
        ) as client:
            for _ in range(5):
                with pytest.raises(StreamInterrupted) as caught:
                    ask(client, "hello")
                assert caught.value.exhausted
            with pytest.raises(CircuitOpen):
                ask(client, "hello")
        assert len(cut.requests) == 5 * attempts

    def test_an_only_endpoint_that_serves_nobody_is_left(self):
        with (
            refusing() as nowhere,
            client_of(
                Endpoint(nowhere, name="a"), retry=RetryPolicy(attempts=1)
            ) as client,
        ):
            for _ in range(5):
                with pytest.raises(ConnectionFailed):
                    ask(client, "hello")
            with pytest.raises(CircuitOpen):
                ask(client, "hello")

    def test_one_that_is_opened_by_hand_is_left_until_its_reset(self, regions):
        one, two = regions(Script(times=0), Script(times=0))
        with client_of(
            Endpoint(one.base_url, name="a"),
            Endpoint(two.base_url, name="b", priority=1),
        ) as client:
            assert set(client.breakers) == {"a", "b"}
            found = []
            for act in ("force_open", "reset", "disable"):
                getattr(client.breakers["a"], act)()
                found.append(ask(client, act).endpoint)
            assert found == ["b", "a", "a"]
            assert client.with_options(model="x").breakers is client.breakers

    def test_a_cancelled_stream_trips_none(self, regions):
        (good,) = regions(Script(times=0))
        with client_of(
            Endpoint(good.base_url, name="a"), breaker=BreakerPolicy(failures=1)
        ) as client:
            for _ in range(10):
                stream = client.stream("hello").open()
                stream.cancel()
            (endpoint,) = client.metrics().endpoints
        assert endpoint.breaker.failed == 0
        assert endpoint.in_flight == 0


class TestWhatRoutingIsTold:
    """Of each stream, as it goes: else breakers and estimates would be in vain."""

    def test_a_stream_counts_once_however_often_it_fails(self):
        with (
            refusing() as one,
            refusing() as two,
            client_of(
                Endpoint(one, name="a"),
                Endpoint(two, name="b"),
                breaker=BreakerPolicy(failures=2),
                retry=RetryPolicy(attempts=8, base=0.001, cap=0.002),
            ) as client,
        ):
            with pytest.raises(ConnectionFailed):
                ask(client, "hello")
            for endpoint in client.metrics().endpoints:
                assert endpoint.breaker.failed > 2
                assert (endpoint.breaker.failures, endpoint.breaker.opened) == (1, 0)

    def test_a_model_goes_where_it_is(self, regions):
        one, two = regions(Script(times=0), Script(times=0))
        with client_of(
            Endpoint(one.base_url, name="a", models=["gpt-*"]),
            Endpoint(two.base_url, name="b", priority=1),
        ) as client:
            assert ask(client, "hello").endpoint == "b"
            assert ask(client, "hello", model="gpt-x").endpoint == "a"

    def test_a_probe_succeeds_by_its_first_event(self, regions, holystream_clock):
        gate = threading.Semaphore(1)
        (server,) = regions([Script(status=503), Script(gate=gate)])
        with client_of(
            Endpoint(server.base_url, name="a"),
            breaker=BreakerPolicy(failures=1),
            retry=RetryPolicy(attempts=1),
        ) as client:
            with pytest.raises(ServerError):
                ask(client, "hello")
            holystream_clock.advance(60)
            probe = Reader(lambda: ask(client, "hello"))
            until(lambda: client.breakers["a"].state.value == "closed")
            gate.release(1000)
            assert probe.ended() is None

    def test_the_time_to_the_first_token(self, regions):
        (server,) = regions(Script(times=0))
        with client_of(Endpoint(server.base_url, name="a")) as client:
            assert client.metrics().endpoints[0].ttft is None
            ask(client, "hello")
            assert client.metrics().endpoints[0].ttft > 0

    def test_another_answer_is_no_fault_of_who_gave_it(self, regions):
        """Where a replay brings another text, the endpoint did as it was asked."""
        cut, other = regions(Script(cut_at=4000), Script(differ_at=5, times=0))
        with client_of(
            Endpoint(cut.base_url, name="a"),
            Endpoint(other.base_url, name="b", priority=1),
            resume=("replay",),
        ) as client:
            with pytest.raises(StreamInterrupted):
                ask(client, "hello")
            failed = [each.breaker.failed for each in client.metrics().endpoints]
        assert other.requests
        assert failed == [1, 0]

    def test_a_key_that_is_accepted_again(self, regions):
        (server,) = regions(Script(status=401))
        with client_of(Endpoint(server.base_url, name="a")) as client:
            with pytest.raises(AuthenticationError):
                ask(client, "hello")
            assert client.metrics().endpoints[0].ejected > 0
            ask(client, "hello")
            assert client.metrics().endpoints[0].ejected == 0


class TestManyThatFailAtOnce:
    """A blip meets every stream that is under way; none of them may be lost by it."""

    @pytest.mark.parametrize("many", [4, 5, 10, 50])
    @pytest.mark.parametrize(
        "blip",
        [{"status": 503}, {"cut_before_headers": "rst"}, {"stall_headers": True}],
        ids=["503", "reset", "silence"],
    )
    def test_each_tries_again(self, regions, many, blip):
        (server,) = regions(Script(times=many, **blip))
        with client_of(
            Endpoint(server.base_url, name="a"),
            timeout=Timeouts(first_token=0.5),
            # A busy machine may be slower than that, and no test of how fast it is.
            retry=RetryPolicy(
                attempts=99, base=0.001, cap=0.002, first_token_attempts=99
            ),
        ) as client:
            with ThreadPoolExecutor(many) as executor:
                asked = [
                    executor.submit(client.complete, f"{n}", temperature=0)
                    for n in range(many)
                ]
            assert [each.result().text for each in asked] == [
                text_of(f"{n}") for n in range(many)
            ]
            (endpoint,) = client.metrics().endpoints
            assert endpoint.breaker.state.value == "closed"
            assert endpoint.breaker.refused == 0

    def test_those_under_way_go_on_though_every_breaker_is_open(self, regions):
        one, two = regions(*[Script(status=503, times=4)] * 2)
        with client_of(
            Endpoint(one.base_url, name="a"), Endpoint(two.base_url, name="b")
        ) as client:
            streams = [client.stream(f"{n}", temperature=0) for n in range(4)]
            for stream in streams:
                until_it_waits(stream)
            for breaker in client.breakers.values():
                while breaker.retry_after == 0.0:
                    breaker.acquire().failed(Verdict.NOT_SENT)
            with pytest.raises(CircuitOpen):
                ask(client, "a new one")
            texts = [stream.get_final_text() for stream in streams]
            assert ask(client, "a new one").text == text_of("a new one")
        assert texts == [text_of(f"{n}") for n in range(4)]

    def test_a_dead_host_is_the_error_of_those_that_are_under_way(self):
        with (
            refusing() as nowhere,
            client_of(
                Endpoint(nowhere, name="a"), breaker=BreakerPolicy(failures=1)
            ) as client,
        ):
            waiting = client.stream("hello")
            until_it_waits(waiting)
            with pytest.raises(ConnectionFailed):
                ask(client, "another")
            with pytest.raises(CircuitOpen):
                ask(client, "a new one")
            with pytest.raises(ConnectionFailed) as caught:
                waiting.until_done()
            assert caught.value.attempts == 6
            (endpoint,) = client.metrics().endpoints
            assert endpoint.breaker.opened == 1, "no longer by what was under way"

    def test_the_first_that_succeeds_closes_the_breaker(self, regions):
        (server,) = regions(Script(status=503, times=2))
        with client_of(
            Endpoint(server.base_url, name="a"), breaker=BreakerPolicy(failures=1)
        ) as client:
            waiting = client.stream("hello", temperature=0)
            until_it_waits(waiting)
            with pytest.raises(ServerError):
                ask(client, "another", retry=RetryPolicy(attempts=1))
            with pytest.raises(CircuitOpen):
                ask(client, "a new one")
            assert waiting.get_final_text() == text_of("hello")
            assert ask(client, "a new one").attempts == 1

    def test_what_was_forced_open_stays_so(self, regions):
        (server,) = regions(Script(status=503, times=2))
        with client_of(Endpoint(server.base_url, name="a")) as client:
            waiting = client.stream("hello", temperature=0)
            until_it_waits(waiting)
            client.breakers["a"].force_open()
            with pytest.raises(CircuitOpen):
                waiting.until_done()


class TestBudget:
    def test_a_budget_that_is_spent_ends_the_retries(self, regions):
        (bad,) = regions(Script(status=503, times=0))
        budget = RetryBudget(ratio=0, floor=0.2, window=10)
        with Client(
            KEY, base_url=bad.base_url, model="sim", retry=SOON, retry_budget=budget
        ) as client:
            with pytest.raises(HolystreamError, match="the retry budget is spent"):
                ask(client, "hello")
            assert client.metrics().budget.refused == 1
        assert len(bad.requests) == 3, "two retries were in the budget"


class TestManyAtOnce:
    @pytest.mark.slow
    def test_four_regions_three_of_them_bad(self, regions, holystream_clock):
        seed = 20261121
        rng = random.Random(seed)
        cuts = [
            Script(cut_at=rng.randint(1, 12000), cut=rng.choice(["fin", "rst", "end"]))
            for _ in range(2000)
        ]
        good, stalling = regions(Script(times=0), Script(times=0, stall_at=0))
        nobodys = free_port()
        with (
            Simulator(script=cuts, text=answer_to) as cutting,
            client_of(
                Endpoint(good.base_url, name="good"),
                Endpoint(stalling.base_url, name="stalling"),
                Endpoint(cutting.base_url, name="cutting"),
                Endpoint(f"http://127.0.0.1:{nobodys}/v1", name="refusing"),
                # Long enough for a good region on a busy machine.
                timeout=Timeouts(first_token=3.0),
                retry=RetryPolicy(base=0.001, cap=0.002, first_token_attempts=5),
                pool=None,
            ) as client,
        ):

            def work(number):
                return [
                    ask(client, f"{number} {turn}").text == text_of(f"{number} {turn}")
                    for turn in range(10)
                ]

            with ThreadPoolExecutor(50) as executor:
                results = [
                    exact for each in executor.map(work, range(50)) for exact in each
                ]
            standing = {each.name: each for each in client.metrics().endpoints}
            assert results == [True] * 500, f"seed {seed}"
            assert standing["good"].breaker.failed == 0
            for name in ("stalling", "cutting", "refusing"):
                # 50 threads may be there before the first of them has failed; one that
                # is slow is left even before its breaker opens.
                assert standing[name].picked <= 50 + 5, name
                assert standing[name].breaker.opened or standing[name].picked <= 5, name
            assert all(each.in_flight == 0 for each in standing.values())

            # Mended, each comes back by one stream: first those whose breaker asks for
            # a probe, then those that never had a token and were left before that.
            opened = {name for name, each in standing.items() if each.breaker.opened}
            untold = {name for name, each in standing.items() if each.ttft is None}
            cutting.clear()
            stalling.clear()
            with Simulator(nobodys, text=answer_to):
                for names in (opened, untold - opened):
                    holystream_clock.advance(60)
                    back = [ask(client, f"back {number}") for number in range(4)]
                    assert {each.endpoint for each in back[: len(names)]} == names
                    assert {each.attempts for each in back} == {1}
            for each in client.metrics().endpoints:
                assert each.breaker.state.value == "closed", each.name

    def test_a_mended_region_comes_back_by_a_probe(self, regions):
        (mended, good) = regions(Script(status=503, times=5), Script(times=0))
        policy = BreakerPolicy(failures=1, open_for=0.001, open_cap=0.002, jitter=0)
        with client_of(
            Endpoint(mended.base_url, name="mended"),
            Endpoint(good.base_url, name="good", priority=1),
            breaker=policy,
        ) as client:
            at = collections.Counter(ask(client, f"{n}").endpoint for n in range(60))
        assert at["mended"] > 0
        assert at["mended"] + at["good"] == 60


class TestMetrics:
    def test_they_show_themselves_in_a_few_words(self, regions):
        (good,) = regions(Script(times=0))
        with (
            refusing() as nowhere,
            client_of_two(
                nowhere, good.base_url, breaker=BreakerPolicy(failures=1)
            ) as client,
        ):
            ask(client, "hello")
            metrics = client.metrics()
        assert repr(metrics.streams) == (
            "<Metrics: 1 stream opened, 1 ended (1 done), 1 reconnect>"
        )
        assert repr(metrics.streams.endpoints["b"]).startswith("<Numbers: ")
        assert repr(metrics) == (
            "<ClientMetrics: 1 stream opened, 1 ended (1 done), 1 reconnect; "
            "0 of 50 permits in use, 0 waiting; breakers: a open, b closed; "
            f"{math.floor(metrics.budget.balance)} retries to spend>"
        )


class TestSettings:
    def test_endpoints_take_the_place_of_a_base_url(self):
        with pytest.raises(ConfigurationError, match="give one"):
            Client(KEY, base_url="http://localhost/v1", endpoints=[])

    @pytest.mark.parametrize("endpoints", [[], ["http://localhost/v1"], [None]])
    def test_only_endpoints_will_do(self, endpoints):
        with pytest.raises(ConfigurationError, match="endpoints"):
            Client(KEY, endpoints=endpoints)

    def test_a_key_needs_https(self):
        with pytest.raises(ConfigurationError, match="allow_http"):
            Client(KEY, endpoints=[Endpoint("http://example.com/v1")])
        good = Endpoint("https://eu.example.com/v1", name="eu")
        bad = Endpoint("http://us.example.com/v1", name="us")
        with pytest.raises(
            ConfigurationError,
            match=r"^the base_url of the endpoint 'us' with http:// would send",
        ):
            Client(KEY, endpoints=[good, bad])
        with pytest.raises(ConfigurationError, match=r"^base_url with http://"):
            Client(KEY, base_url="http://us.example.com/v1")
        with pytest.raises(ConfigurationError, match=r"^base_url must begin with"):
            Client(KEY, base_url="us.example.com/v1")

    def test_a_provider_that_needs_a_key_says_so(self, monkeypatch):
        monkeypatch.delenv("HOLYSHEEP_API_KEY", raising=False)
        with pytest.raises(InvalidAPIKey):
            Client(
                provider="holysheep", endpoints=[Endpoint("https://eu.example.com/v1")]
            )

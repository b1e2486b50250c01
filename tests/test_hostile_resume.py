"""How an answer that goes on must not end, whatever servers do: one test for each."""

from __future__ import annotations

import gc
import itertools
import json
import re
import sys
import threading
from contextlib import contextmanager

import pytest
from loopback import Peer, read_request

from holystream import (
    BadRequest,
    BreakerPolicy,
    Client,
    DeadlineExceeded,
    Endpoint,
    Guarantee,
    NotAnEventStream,
    RetryBudget,
    RetryPolicy,
)
from holystream.driver import Driver
from holystream.simulator import Script, Simulator

KEY = "sk-0123456789abcdef"
ALWAYS = 10**9
SOON = RetryPolicy(base=0.001, cap=0.002)


def text_of(prompt):
    return f"The answer to {prompt!r}: " + " ".join(f"{prompt}-{n}" for n in range(30))


def answer_to(body):
    return text_of(body["messages"][0]["content"])


@contextmanager
def two_regions(script, **options):
    """A client of two simulators that do the same, with a budget that ends nothing."""
    options.setdefault("retry", SOON)
    with (
        Simulator(script=script, text=answer_to) as one,
        Simulator(script=script, text=answer_to) as two,
        Client(
            KEY,
            endpoints=[
                Endpoint(one.base_url, name="a"),
                Endpoint(two.base_url, name="b", priority=1),
            ],
            model="sim",
            retry_budget=RetryBudget(floor=1e6),
            **options,
        ) as client,
    ):
        yield client, one, two


class TestFinalErrorsOfOneRegion:
    """What another region would say as well is not asked there."""

    def test_a_bad_request_is_sent_once(self):
        # Bounded, or it would go round for ever.
        bad = Script(status=400, times=50)
        with two_regions(bad) as (client, one, two):
            with pytest.raises(BadRequest):
                client.complete("hello")
            assert (len(one.requests), len(two.requests)) == (1, 0)

    def test_a_deadline_ends_the_stream_wherever_it_is(self):
        with (
            two_regions(Script(stall_at=500, times=ALWAYS)) as (client, _, _),
            client.stream("hello", temperature=0, deadline=0.2) as stream,
        ):
            # Bounded, or it would go round for ever.
            events = itertools.islice(stream, 100)
            with pytest.raises(DeadlineExceeded):
                list(events)

    def test_what_is_wrong_with_each_region_is_found_out_once(self):
        # Bounded, or it would go round for ever.
        wrong = Script(content_type="text/html", times=50)
        with two_regions(wrong) as (client, one, two):
            with pytest.raises(NotAnEventStream):
                client.complete("hello")
            assert (len(one.requests), len(two.requests)) == (1, 1)


class TestWhereTheRestIsKept:
    """Another process asks the server that kept the answer, and no other."""

    @contextmanager
    def broken_off(self, journal, *, temperature):
        """Break a stream off at the second of two endpoints that keep answers."""
        with (
            Simulator(script=Script(ids="named"), text=answer_to) as one,
            # However much a read brings, it is not all.
            Simulator(script=Script(ids="named", stall_at=4000), text=answer_to) as two,
        ):

            def client(*, first=0, **options):
                return Client(
                    KEY,
                    endpoints=[
                        Endpoint(one.base_url, name="a", priority=first),
                        Endpoint(two.base_url, name="b", priority=1),
                    ],
                    model="sim",
                    retry=SOON,
                    **options,
                )

            stream = client(first=2, journal=journal).stream(
                "hello", temperature=temperature, stream_id="one"
            )
            with stream:
                for _ in itertools.takewhile(
                    lambda _: len(stream.partial_text) < 50, stream
                ):
                    pass
            yield client, stream, one, two

    def test_a_recorded_stream_goes_on_where_it_was(self, tmp_path):
        journal = tmp_path / "journal.db"
        with self.broken_off(journal, temperature=1) as (client, _, one, _):
            completion = client(journal=journal).resume("one").get_final_completion()
            assert completion.text == text_of("hello")
            assert completion.guarantee is Guarantee.VERBATIM
            assert one.requests == ()

    def test_so_does_the_stream_of_a_token(self):
        with self.broken_off(None, temperature=1) as (client, stream, one, _):
            completion = (
                client()
                .resume(
                    stream.resume_token,
                    messages="hello",
                    partial_text=stream.partial_text,
                )
                .get_final_completion()
            )
            assert completion.text == text_of("hello")
            assert completion.guarantee is Guarantee.VERBATIM
            assert one.requests == ()

    def test_no_other_server_is_asked_for_what_this_one_kept(self, tmp_path):
        journal = tmp_path / "journal.db"
        once = BreakerPolicy(failures=1, open_for=60, jitter=0)
        with self.broken_off(journal, temperature=0) as (client, _, one, two):
            later = client(first=2, breaker=once, journal=journal)
            two.play(Script(status=500))
            later.complete("something else")
            completion = later.resume("one").get_final_completion()
            assert completion.text == text_of("hello")
            assert completion.guarantee is Guarantee.REPLAYED
            assert [each.headers.get("Last-Event-ID") for each in one.requests] == [
                None,
                None,
            ]


class TestABodyThatIsKept:
    def test_one_that_comes_from_its_beginning_is_not_its_rest(self):
        """A proxy drops the query that says where the rest begins."""

        def body(*deltas, finish_reason=None):
            choice = {"index": 0, "finish_reason": finish_reason}
            return b"".join(
                b"data: %s\n\n"
                % json.dumps(
                    {"id": "x", "choices": [{**choice, "delta": delta}]}
                ).encode()
                for delta in deltas
            )

        words = [{"content": word} for word in re.findall(r"\S+ ?", text_of("hello"))]
        begun = body({"role": "assistant", "content": None}, *words[:20])
        rest = body(*words[20:]) + body({}, finish_reason="stop") + b"data: [DONE]\n\n"
        answers = [begun, begun + rest]
        asked = []

        def serve(peer):
            asked.append(read_request(peer).split()[0])
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            peer.sendall(b"Connection: close\r\n\r\n")
            peer.sendall(answers[min(len(asked), 2) - 1])

        with (
            Peer(serve) as server,
            Client(
                KEY,
                provider="llama.cpp",
                base_url=f"{server.url}/v1",
                model="sim",
                retry=SOON,
            ) as client,
        ):
            completion = client.complete("hello", temperature=0)
        assert asked[:2] == [b"POST", b"GET"]
        assert completion.text == text_of("hello")
        assert completion.guarantee is not Guarantee.VERBATIM

    def test_streams_of_one_id_have_each_their_own(self):
        """A server that names no answers keeps them by our names alone."""
        kept = {}

        def body(request):
            head, _, asked = request.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                place = re.search(rb"conv_id=(\S+)&from=(\d+)", head)
                return kept[place[1]][int(place[2]) :]
            name = re.search(rb"X-Conversation-Id: (\S+)", head)[1]
            word = json.loads(asked)["messages"][0]["content"]
            texts = [
                {"index": 0, "delta": {"content": f"{word}{n} "}} for n in range(20)
            ]
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            kept[name] = b"".join(
                b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode()
                for choice in (*texts, end)
            )
            return kept[name][: len(kept[name]) // 2]

        def serve(peer):
            answer = body(read_request(peer))
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            peer.sendall(b"Connection: close\r\n\r\n" + answer)

        with (
            Peer(serve) as server,
            Client(
                KEY,
                provider="llama.cpp",
                base_url=f"{server.url}/v1",
                model="sim",
                retry=SOON,
            ) as client,
            client.stream("a", stream_id="one", temperature=1) as one,
            client.stream("b", stream_id="one", temperature=1) as other,
        ):
            one.open()
            other.open()
            assert one.get_final_text() == "".join(f"a{n} " for n in range(20))
            assert other.get_final_text() == "".join(f"b{n} " for n in range(20))
            assert one.guarantee is Guarantee.VERBATIM


def test_a_stream_that_a_signal_kept_from_being_made_ends_in_silence(monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    object.__new__(Driver)
    gc.collect()
    assert complaints == []


def test_an_id_that_was_taken_back_is_no_place_for_what_follows():
    """What came behind an empty ``id:`` came behind the last place there was."""
    words = [f"w{number} " for number in range(10)]

    def piece(text, **more):
        choice = {"index": 0, "delta": {"content": text}, **more}
        return json.dumps({"id": "r1", "choices": [choice]})

    def serve(connection):
        request = read_request(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        )
        asked = re.search(rb"(?i)last-event-id: r1-(\d+)", request)
        first = int(asked[1]) if asked else 0
        for number in range(first, 10):
            event_id = f"r1-{number + 1}" if number < 3 else ""
            event = f"id: {event_id}\ndata: {piece(words[number])}\n\n"
            connection.sendall(event.encode())
            # Read alone: two in one read go another way.
            read[number].wait(10)
            if number == 5 and not asked:
                return
        connection.sendall(f"data: {piece('', finish_reason='stop')}\n\n".encode())
        connection.sendall(b"data: [DONE]\n\n")

    read = [threading.Event() for _ in words]
    with Peer(serve) as peer, Client(KEY, base_url=peer.url, model="m") as client:
        with client.stream("hello") as stream:
            for text in stream.text_stream:
                read[int(text[1:])].set()
        assert stream.completion.text == "".join(words)

"""Cursors: what of a second connection is new, against a server that knows the answer.

The server has an answer in messages, numbered or not, and sends any of them again, in
any order. The gate may refuse, and it may hold back; what it lets through is what comes
next, each message once.
"""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import event, example, given, strategies as st

from holystream.resume import SeamMismatch
from holystream.resume.cursor import ByteGate, IdGate
from holystream.resume.tracker import CursorTracker, digest, numbered
from holystream.wire.sse import ServerSentEvent

NAME = "chatcmpl-1"


def said(text, name=NAME):
    return json.dumps({"id": name, "choices": [{"delta": {"content": text}}]}).encode()


def name_of(message):
    return json.loads(message.raw).get("id") if message.raw[:1] == b"{" else None


def wire(sent, before=""):
    """Give messages the ids that a parser gives them: none of its own is the last one.

    ``sent`` are pairs of a message's own id, or None, and its data.
    """
    messages = []
    for own, raw in sent:
        before = before if own is None else own
        messages.append(ServerSentEvent(raw, id=before))
    return messages


def cursor_behind(sent, name=NAME, batches=1):
    tracker = CursorTracker()
    messages = wire(sent)
    for at in range(0, len(messages), batches):
        tracker.note(messages[at : at + batches])
    return tracker.cursor(name)


def gate_behind(sent, **options):
    return IdGate(cursor_behind(sent, **options), name_of)


def admitted(gate, sent, sizes=(1,)):
    found, messages, sizes = [], wire(sent), itertools.cycle(sizes)
    while messages:
        size = next(sizes)
        found += [message.raw for message in gate.admit(messages[:size])]
        messages = messages[size:]
    return found


def numbers(*texts, start=1, prefix=""):
    return [
        (f"{prefix}{number}", said(text)) for number, text in enumerate(texts, start)
    ]


class TestNumberedMessages:
    A, B, C, D = numbers("a", "b", "c", "d")

    def test_the_next_ones_pass(self):
        assert admitted(gate_behind([self.A]), [self.B, self.C]) == [
            self.B[1],
            self.C[1],
        ]

    def test_those_that_came_are_passed_over(self):
        gate = gate_behind([self.A, self.B])
        assert admitted(gate, [self.A, self.B, self.C]) == [self.C[1]]
        assert gate.whole

    def test_those_that_come_early_wait(self):
        gate = gate_behind([self.A])
        assert admitted(gate, [self.C, self.D]) == []
        assert not gate.whole
        (last,) = wire([self.B])
        assert [each.raw for each in gate.admit([last])] == [
            self.B[1],
            self.C[1],
            self.D[1],
        ]
        assert gate.whole

    def test_a_last_one_that_is_another_now_is_another_answer(self):
        gate = gate_behind([self.A, self.B])
        with pytest.raises(SeamMismatch, match="another one now"):
            admitted(gate, [("2", said("other"))])

    @pytest.mark.parametrize("behind", [False, True])
    def test_so_is_one_of_the_same_name_that_is_another_from_its_beginning_on(
        self, behind
    ):
        """All answers have one id there, and the last message says the same in both."""
        sent = [*numbers("The", " sky", " looks", start=0)]
        other = [*numbers("Honestly,", " grass", " looks", " green", start=0)]
        cursor = cursor_behind(sent)
        if behind:
            tracker = CursorTracker.behind(cursor_behind(sent[:2]))
            tracker.note(wire(sent[2:]))
            assert tracker.cursor(NAME) == cursor, "it goes on in another process"
        for size in (1, 4):
            with pytest.raises(SeamMismatch, match="another one now"):
                admitted(IdGate(cursor, name_of), other, sizes=[size])
        whole = [*sent, other[-1]]
        assert admitted(IdGate(cursor, name_of), whole) == [other[-1][1]]

    def test_nor_does_a_part_of_the_beginning_prove_it(self):
        sent = [*numbers("The", " sky", " looks", start=0)]
        rest = numbers(" green", start=3)
        for again in (sent[:2], [sent[0], sent[2]]):
            gate = gate_behind(sent)
            assert admitted(gate, [*again, *rest]) == []
            assert not gate.whole
        mixed = [sent[1], rest[0], sent[0], sent[2]]
        assert admitted(gate_behind(sent), mixed) == [rest[0][1]], "in any order"
        many = numbers(*["x"] * 1100, start=0)
        end = numbers(" end", start=1100)
        assert admitted(gate_behind(many), [*many[1:], *end]) == [end[0][1]]
        assert admitted(gate_behind(many), [*many, *end]) == [end[0][1]]
        twice = [sent[0], sent[1], sent[0], sent[1], sent[2]]
        assert admitted(gate_behind(sent), [*twice, *rest]) == [rest[0][1]]
        assert admitted(gate_behind(sent), [sent[2], *rest]) == [rest[0][1]]

    def test_another_name_is_another_answer(self):
        gate = gate_behind([self.A])
        with pytest.raises(SeamMismatch, match="another name"):
            admitted(gate, [("2", said("b", "chatcmpl-2"))])

    def test_a_number_alone_proves_nothing(self):
        gate = gate_behind([self.A])
        with pytest.raises(SeamMismatch, match="nothing says"):
            admitted(gate, [("2", b'{"choices": []}')])

    def test_an_end_mark_needs_no_name(self):
        gate = gate_behind([self.A])
        assert admitted(gate, [("2", b"[DONE]")]) == [b"[DONE]"]
        assert gate.whole

    def test_ids_of_another_kind_are_not_compared(self):
        gate = gate_behind([self.A])
        for other in ("x2", "two", "2."):
            with pytest.raises(SeamMismatch, match="another way"):
                admitted(gate, [(other, said("b"))])

    def test_nothing_came_and_nothing_is_proven(self):
        gate = gate_behind([self.A])
        assert not gate.whole
        admitted(gate, [self.A])
        assert not gate.whole

    def test_too_many_that_come_early_are_too_many(self):
        gate = gate_behind([self.A])
        with pytest.raises(SeamMismatch, match="missing"):
            admitted(gate, numbers(*["x"] * 1100, start=3), sizes=[500])

    def test_what_was_passed_over_is_told_of_each_batch(self):
        gate = gate_behind([self.A, self.B])
        gate.admit(wire([self.A, self.B, self.C]))
        assert gate.passed_over == "2"
        gate.admit(wire([self.D]))
        assert gate.passed_over == ""


class TestMessagesWithoutNumbers:
    A, B, C = numbers("a", "b", "c")
    X, Y = (None, said("x")), (None, said("y"))

    def test_one_belongs_behind_the_one_before_it(self):
        gate = gate_behind([self.A])
        assert admitted(gate, [self.B, self.X, self.C]) == [
            self.B[1],
            self.X[1],
            self.C[1],
        ]

    def test_and_waits_with_it(self):
        gate = gate_behind([self.A])
        assert admitted(gate, [self.C, self.X, self.B]) == [
            self.B[1],
            self.C[1],
            self.X[1],
        ]
        gate = gate_behind([self.A])
        d = ("4", said("d"))
        found = admitted(gate, [self.C, self.X, d, self.Y, self.B])
        assert found == [self.B[1], self.C[1], self.X[1], d[1], self.Y[1]]

    @pytest.mark.parametrize(
        "sent",
        [
            # Word for word the one before: sent twice, or said twice?
            [B, (None, B[1])],
            [B, X, X],
            # The one before it came again, so it may have come as well.
            [B, X, B, X],
            [B, X, C, B, X],
            [C, X, C, X],
            [A, X, A, X],
            # It belongs between two that are through already.
            [C, B, X],
        ],
    )
    def test_where_its_place_is_in_doubt_all_is(self, sent):
        gate = gate_behind([self.A])
        with pytest.raises(SeamMismatch, match=r"belongs|behind the ones"):
            admitted(gate, sent)

    def test_those_that_came_must_come_again(self):
        sent = [self.A, self.X, self.Y]
        gate = gate_behind(sent)
        z = (None, said("z"))
        assert admitted(gate, [self.X, self.Y, z, self.B]) == [z[1], self.B[1]]
        gate = gate_behind(sent)
        assert admitted(gate, [*sent, z]) == [z[1]]
        for other in ([self.Y], [self.X, z], [self.B], [z]):
            with pytest.raises(SeamMismatch):
                admitted(gate_behind(sent), other)

    def test_ids_that_are_not_numbers_say_nothing_of_what_comes_next(self):
        sent = [("a", said("a")), ("b", said("b"))]
        with pytest.raises(SeamMismatch, match="where it goes on"):
            admitted(gate_behind(sent), [("c", said("c"))])
        assert admitted(gate_behind(sent), [sent[1], ("c", said("c"))]) == [said("c")]


groups = st.lists(
    st.lists(st.sampled_from("xy"), max_size=2), min_size=1, max_size=6
).map(lambda followers: [["n", *each] for each in followers])


@st.composite
def conversations(draw):
    """An answer, where it was cut, and what of it is sent then, in what order."""
    answer = draw(groups | groups.map(lambda all_: [each[:1] for each in all_]))
    flat = [
        (str(number) if not place else None, said(text))
        for number, group in enumerate(answer, 1)
        for place, text in enumerate(group)
    ]
    starts = [at for at, (own, _) in enumerate(flat) if own is not None]
    cut = draw(st.integers(1, len(flat)))
    here = max(at for at in starts if at < cut)
    first = draw(st.sampled_from([here, here + 1, *starts[: starts.index(here)]]))
    sent = flat[first:]
    if all(own is not None for own, _ in flat[:cut]):
        # Whole runs, as a server sends them: from a numbered message to the next one.
        runs = [flat[at:end] for at, end in itertools.pairwise([*starts, len(flat)])]
        later = draw(st.lists(st.sampled_from(runs), max_size=8))
        rest = runs[starts.index(here)][1:]
        if draw(st.booleans()):
            sent = [*rest, *itertools.chain(*later)]
    return flat, cut, sent[: draw(st.integers(0, len(sent)))]


@given(conversations(), st.lists(st.integers(1, 3), min_size=1), st.integers(1, 3))
@example(  # two messages without numbers that say the same
    (
        [("1", said("n")), ("2", said("x")), (None, said("x"))],
        1,
        [("2", said("x"))] * 2,
    ),
    [1],
    1,
)
def test_only_what_comes_next_passes_whatever_is_sent(conversation, sizes, batches):
    flat, cut, sent = conversation
    gate = gate_behind(flat[:cut], batches=batches)
    passed = []
    messages, sizes = wire(sent), itertools.cycle(sizes)
    try:
        while messages:
            size = next(sizes)
            passed += [each.raw for each in gate.admit(messages[:size])]
            messages = messages[size:]
    except SeamMismatch:
        event("refused")
    else:
        event("whole" if gate.whole else "not whole")
    assert passed == [raw for _, raw in flat[cut : cut + len(passed)]]


@given(conversations(), st.integers(1, 3))
def test_a_cursor_of_a_cursor_is_one_too(conversation, batches):
    """What a tracker notes behind a gate leads the next gate to the same answer."""
    flat, cut, sent = conversation
    tracker = CursorTracker()
    tracker.note(wire(flat[:cut]))
    gate = IdGate(tracker.cursor(NAME), name_of)
    tracker.reconnected()
    passed, messages = 0, wire(sent)
    while messages:
        try:
            taken = gate.admit(messages[:batches])
        except SeamMismatch:
            break
        if gate.passed_over:
            tracker.passed_over(gate.passed_over)
        tracker.note(taken)
        passed += len(taken)
        messages = messages[batches:]
    there = cut + passed
    cursor = tracker.cursor(NAME)
    last = max(at for at, (own, _) in enumerate(flat[:there]) if own is not None)
    assert cursor.last_event_id == flat[last][0]
    assert cursor.last == digest(ServerSentEvent(flat[last][1]))
    behind = [digest(ServerSentEvent(raw)) for _, raw in flat[last + 1 : there]]
    assert list(cursor.behind) == behind
    # The server honours it: exactly what is missing passes.
    again = IdGate(cursor, name_of)
    try:
        found = admitted(again, flat[last + 1 :])
    except SeamMismatch:
        event("refused")
    else:
        assert found == [raw for _, raw in flat[there:]]


@given(st.permutations(range(2, 9)), st.lists(st.integers(1, 8), max_size=6), st.data())
def test_numbered_messages_in_any_order_and_any_number_of_times(order, more, data):
    texts = [data.draw(st.sampled_from(["a", "b"])) for _ in range(8)]
    every = dict(enumerate(numbers(*texts), 1))
    sent = [*order]
    for number in more:
        sent.insert(data.draw(st.integers(0, len(sent))), number)
    # Next to itself, a message without an id of its own would look the same.
    sent = [number for number, _ in itertools.groupby(sent)]
    gate = gate_behind([every[1]])
    assert admitted(gate, [every[number] for number in sent], sizes=[2, 1]) == [
        every[number][1] for number in range(2, 9)
    ]
    assert gate.whole


@given(st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_an_answer_that_begins_anew_does_not_pass(cut, count, same_text):
    """A server that does not know the id sends another generation, numbered anew."""
    flat = numbers(*"abcdefghi")
    other = [
        (own, said("abcdefghijkl"[at] if same_text else "z", "chatcmpl-2"))
        for at, (own, _) in enumerate(numbers(*"x" * count))
    ]
    gate = gate_behind(flat[:cut])
    with pytest.raises(SeamMismatch):
        admitted(gate, other)


class TestTracker:
    def test_without_ids_or_a_name_there_is_no_cursor(self):
        tracker = CursorTracker()
        tracker.note(wire([(None, said("a"))]))
        assert not tracker.keeps_ids
        assert tracker.cursor(NAME) is None
        tracker.note(wire([("1", said("a"))]))
        assert tracker.keeps_ids
        assert tracker.cursor(None) is None

    @pytest.mark.parametrize(
        ("ids", "consecutive"),
        [
            (["1", "2", "3"], True),
            (["a:1", "a:2"], True),
            (["7", "8"], True),
            (["1", "3"], False),
            (["2", "1"], False),
            (["a:1", "b:2"], False),
            (["9", "10"], True),
            (["09", "10"], True),
            (["x", "y"], False),
            (["1", None], False),
            (["1", ""], False),
        ],
    )
    def test_it_knows_whether_numbers_count_up(self, ids, consecutive):
        cursor = cursor_behind([(each, said("a")) for each in ids])
        assert cursor.consecutive is consecutive

    def test_with_too_many_messages_behind_the_last_id_there_is_none(self):
        tracker = CursorTracker()
        tracker.note(wire([("1", said("a")), *[(None, said("b"))] * 1024]))
        assert len(tracker.cursor(NAME).behind) == 1024
        for _ in range(3):
            tracker.note([ServerSentEvent(said("b"), id="1")])
            assert tracker.cursor(NAME) is None, "it would go on at the wrong place"
        tracker.note([ServerSentEvent(said("c"), id="2")])
        assert tracker.cursor(NAME).behind == ()

    def test_it_stands_where_a_cursor_says(self):
        flat = [*numbers("a", "b"), (None, said("x"))]
        cursor = cursor_behind(flat)
        assert CursorTracker.behind(cursor).cursor(NAME) == cursor

    def test_of_bytes_that_cannot_be_counted_there_is_none(self):
        tracker = CursorTracker("conversation")
        tracker.reached(70)
        assert tracker.cursor(None).offset == 70
        tracker.reached(None)
        assert tracker.cursor(None) is None
        tracker.reached(90)
        assert tracker.cursor(None) is None

    @given(st.text(), st.integers(0, 10**17))
    def test_a_number_at_the_end_is_found(self, before, number):
        if before[-1:].isdecimal():
            before += ":"
        assert numbered(f"{before}{number}") == (before, number)


class TestBytes:
    def gate(self):
        tracker = CursorTracker("conversation")
        return ByteGate(tracker.cursor(NAME), name_of)

    def test_all_passes_under_our_own_name_for_it(self):
        gate = self.gate()
        assert not gate.whole
        assert admitted(gate, [(None, said("a")), (None, b"[DONE]")]) != []
        assert gate.whole

    def test_but_no_answer_of_another_name(self):
        with pytest.raises(SeamMismatch, match="another name"):
            admitted(self.gate(), [(None, said("a", "chatcmpl-2"))])

"""Resume tokens: what they hold, what they refuse, and each way to go on by one."""

from __future__ import annotations

import base64
import hashlib
import json

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st
from jobs import KEY, client_for

from holystream import (
    Client,
    ConfigurationError,
    Guarantee,
    HolystreamError,
    InvalidRequest,
    ResumeTokenInvalid,
    Rewound,
    StreamInterrupted,
    ToolCallDelta,
)
from holystream.providers.base import Cursor
from holystream.resume.checkpoint import Checkpoint
from holystream.resume.token import ResumeToken
from holystream.simulator import Script, Simulator

PROMPT = "How does the promptest of prompts arrive?"
TOOLS = [
    {"type": "function", "function": {"name": "look_around", "parameters": {"x": {}}}}
]
ARGUMENTS = json.dumps({"where": "the secret city of Atlantis", "how": "x" * 200})
SAMPLED = {"temperature": 0.7}
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def sim():
    with Simulator(length=40) as made:
        yield made


@pytest.fixture
def client(sim):
    with client_for(sim.base_url) as made:
        yield made


def broken(sim, client, *, script=None, **options):
    """Break a stream off; return its error."""
    sim.play(script or Script(cut_at=6000))
    options = {"prompt": PROMPT, "resume": (), **options}
    with pytest.raises(StreamInterrupted) as caught:
        client.stream(**options).until_done()
    return caught.value


def whole(sim, sample=None, **options):
    request = {"model": "sim", "messages": [{"role": "user", "content": PROMPT}]}
    return sim.answer(request | options, sample).text


WAYS = {
    "cursor": ("openai-compatible", Script(ids="named"), SAMPLED, Guarantee.VERBATIM),
    "bytes": ("llama.cpp", Script(), SAMPLED, Guarantee.VERBATIM),
    "prefill": (
        "vllm",
        Script(prefill="continue", tokens=True),
        GREEDY,
        Guarantee.VERIFIED,
    ),
    "replay": ("openai-compatible", Script(), {"seed": 3}, Guarantee.REPLAYED),
    "stitch": (
        "openai-compatible",
        Script(stitch="continue", overlap=30),
        SAMPLED,
        Guarantee.STITCHED,
    ),
    "restart": ("openai-compatible", Script(), SAMPLED, Guarantee.RESTARTED),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_goes_on_by_a_token(sim, way):
    provider, script, options, worth = WAYS[way]
    headers = {"X-Simulator": str(script)}
    name = {"bytes": "cursor"}.get(way, way)
    with client_for(sim.base_url, provider=provider) as client:
        cut = {**headers, "X-Simulator": f"{script}; cut_at=6000".removeprefix("; ")}
        with pytest.raises(StreamInterrupted) as caught:
            client.stream(PROMPT, resume=(), extra_headers=cut, **options).until_done()
        text = caught.value.partial_text
    # Another client, as in another process.
    with (
        client_for(sim.base_url, provider=provider) as client,
        client.resume(
            caught.value.resume_token,
            messages=PROMPT,
            partial_text=text,
            resume=(name,),
            extra_headers=headers,
        ) as stream,
    ):
        for event in stream:
            text = "" if isinstance(event, Rewound) else text + str(event)
    assert stream.completion.text == text
    assert stream.completion.guarantee is worth
    assert stream.stream_id == caught.value.stream_id
    if worth is Guarantee.VERBATIM:
        assert text == sim.generations[-1].text


def test_everything_that_the_stream_had_is_asked_for_again(sim, client):
    asked = {
        "stop": ["never said"],
        "tools": TOOLS,
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "extra_body": {"user": "u-1", "n_probs": 0, "logprobs": True},
    }
    numbers = {"temperature": 0, "top_p": 0.5, "max_tokens": 900, "seed": 5, "n": 1}
    error = broken(sim, client, **asked, **numbers)
    with client.resume(
        error.resume_token,
        messages=PROMPT,
        partial_text=error.partial_text,
        resume=("replay",),
        **asked,
    ) as stream:
        stream.until_done()
    first, last = sim.requests[-2:]
    assert first.json == last.json
    assert first.json.items() >= {**numbers, "stop": ["never said"]}.items()
    assert stream.completion.guarantee is Guarantee.REPLAYED
    for name in asked:
        others = {**asked, name: None}
        with pytest.raises(ResumeTokenInvalid, match="another request: pass the same"):
            client.resume(
                error.resume_token,
                messages=PROMPT,
                partial_text=error.partial_text,
                **others,
            )


def test_numbers_have_the_hosts_own_names(sim):
    with client_for(sim.base_url, provider="openai") as client:
        error = broken(sim, client, max_tokens=900, **GREEDY)
        assert sim.requests[-1].json["max_completion_tokens"] == 900
        with client.resume(
            error.resume_token,
            messages=PROMPT,
            partial_text=error.partial_text,
            resume=("replay",),
        ) as stream:
            stream.until_done()
        assert sim.requests[-1].json["max_completion_tokens"] == 900


def test_messages_are_the_same_as_a_prompt(sim, client):
    error = broken(sim, client, **GREEDY)
    messages = [{"role": "user", "content": PROMPT}]
    with client.resume(
        error.resume_token,
        messages=messages,
        partial_text=error.partial_text,
        resume=("replay",),
    ) as stream:
        rest = "".join(stream.text_stream)
    assert error.partial_text + rest == whole(sim, **GREEDY)


def test_before_the_first_word_it_says_so_much(sim, client):
    token = client.stream(PROMPT, **GREEDY).resume_token
    for text in ("", None):
        with client.resume(token, messages=PROMPT, partial_text=text) as stream:
            assert stream.get_final_text() == whole(sim, **GREEDY)
        assert stream.completion.guarantee is Guarantee.SINGLE


def test_a_token_leads_to_another(sim, client):
    """Broken again and again, by an interruption each time."""
    text, token = "", client.stream(PROMPT, **GREEDY).resume_token
    for end in (6000, 9000, 12000):
        sim.play(Script(cut_at=end), Script(status=400))
        stream = client.resume(token, messages=PROMPT, partial_text=text)
        pieces = []
        with pytest.raises(HolystreamError):
            pieces.extend(stream.text_stream)
        text += "".join(pieces)
        token = stream.resume_token
        stream.close()
    with client.resume(token, messages=PROMPT, partial_text=text) as stream:
        assert text + "".join(stream.text_stream) == whole(sim, **GREEDY)


def test_several_answers_and_whole_calls_have_none(sim, client):
    with client.stream(PROMPT, n=2) as several:
        several.until_done()
    assert several.resume_token is None
    with client.stream("call:look_around {}", tools=TOOLS) as called:
        called.until_done()
    assert called.resume_token is None


class TestContent:
    """No URL, key, header, prompt or text, in the token or in what is packed in it."""

    def decoded(self, token):
        """All that can be unpacked of a token, as text."""
        packed = base64.urlsafe_b64decode(token.partition(".")[2] + "===")[:-6]
        found = msgspec.msgpack.decode(packed)
        checkpoint = msgspec.msgpack.decode(found[-1])
        state = [msgspec.msgpack.decode(part) for part in checkpoint if _packed(part)]
        return repr((packed, found, checkpoint, state, token))

    def contents(self, text):
        # Shorter ones are in anything, by chance.
        yield from (text[at : at + 9] for at in range(len(text) - 8))

    @pytest.mark.parametrize("cut", [3000, 6000, 9000, 12000])
    @pytest.mark.parametrize("way", ["cursor", "bytes"])
    def test_it_holds_none(self, sim, way, cut):
        provider, script, options, _ = WAYS[way]
        script = Script(ids=script.ids, cut_at=cut, split_surrogates=True)
        with (
            client_for(sim.base_url, provider=provider) as client,
            pytest.raises(StreamInterrupted) as caught,
        ):
            client.stream(
                PROMPT,
                resume=(),
                extra_headers={"X-Simulator": str(script), "X-Mine": "headerly"},
                extra_body={"account": 4711000815},
                **options,
            ).until_done()
        decoded = self.decoded(caught.value.resume_token)
        text = caught.value.partial_text
        for content in (
            *self.contents(text),
            *self.contents(PROMPT),
            *(KEY, "headerly", "4711000815", f":{sim.port}", "127.0.0.1", "http"),
        ):
            assert content not in decoded

    def test_nor_half_a_tool_call(self, sim, client):
        stream = client.stream(
            f"call:look_around {ARGUMENTS}",
            tools=TOOLS,
            extra_headers={"X-Simulator": str(Script(ids="named", cut_at=4000))},
            resume=(),
        )
        seen = []
        with pytest.raises(HolystreamError):
            seen.extend(stream)
        assert any(isinstance(event, ToolCallDelta) for event in seen)
        decoded = self.decoded(stream.resume_token)
        for content in ("look_around", "Atlantis", "the secret", "call_"):
            assert content not in decoded

    def test_nor_what_was_thought(self, sim, client):
        stream = client.stream(
            PROMPT,
            model="reasoner",
            extra_headers={"X-Simulator": str(Script(ids="named", cut_at=4000))},
            resume=(),
        )
        with pytest.raises(HolystreamError):
            stream.until_done()
        thought = stream._exchange.transcript.choices(1, {})[0].reasoning
        assert thought
        decoded = self.decoded(stream.resume_token)
        assert not any(each in decoded for each in self.contents(thought))


def _packed(part):
    return isinstance(part, bytes) and part


class TestRefused:
    @pytest.fixture
    def error(self, sim, client):
        return broken(sim, client, **GREEDY)

    def resume(self, client, token, text, **options):
        options = {"messages": PROMPT, "partial_text": text, **options}
        return client.resume(token, **options)

    def test_another_prompt(self, client, error):
        with pytest.raises(ResumeTokenInvalid, match="the same messages="):
            self.resume(client, error.resume_token, error.partial_text, messages="Why?")

    def test_another_text(self, client, error):
        text = error.partial_text
        for other in ("", text[:-1], text + "x", "#" + text[1:], "\ud83d" * len(text)):
            with pytest.raises(ResumeTokenInvalid, match=f"of {len(text)} characters"):
                self.resume(client, error.resume_token, other)

    @pytest.mark.parametrize("other", [5, b"text", ["text"]])
    def test_what_is_no_text(self, client, error, other):
        with pytest.raises(InvalidRequest, match="partial_text must be a str"):
            self.resume(client, error.resume_token, other)

    def test_another_provider(self, sim, error):
        with (
            client_for(sim.base_url, provider="vllm") as other,
            pytest.raises(ConfigurationError, match="provider='openai-compatible'"),
        ):
            self.resume(other, error.resume_token, error.partial_text)

    def test_a_length_is_for_recorded_streams(self, client, error):
        with pytest.raises(InvalidRequest, match="pass partial_text="):
            self.resume(client, error.resume_token, error.partial_text, after=5)

    def test_any_part_of_it(self, client, error):
        token = error.resume_token
        for size in range(len(token)):
            with pytest.raises(ResumeTokenInvalid, match="not a whole one"):
                self.resume(client, token[:size], error.partial_text)

    def test_any_damage(self, client, error):
        token = error.resume_token
        for place in range(len(token)):
            for other in ("A", "_", " ", "\n", "é", "="):
                damaged = token[:place] + other + token[place + 1 :]
                # The last character may hold bits that mean nothing.
                if damaged != token and place < len(token) - 1:
                    with pytest.raises(ResumeTokenInvalid):
                        self.resume(client, damaged, error.partial_text)

    @pytest.mark.parametrize("token", [None, 5, b"hst1.abc", "", "hst1.", "hst9.abc"])
    def test_what_is_no_token(self, client, token):
        with pytest.raises(ResumeTokenInvalid, match="not a resume token"):
            self.resume(client, token, "")

    def test_a_token_without_its_messages(self, client, error, tmp_path):
        with pytest.raises(ConfigurationError, match="with a token, pass messages="):
            client.resume(error.resume_token)
        with pytest.raises(InvalidRequest, match="resume token: pass messages="):
            client.resume(error.resume_token, journal=tmp_path / "streams.db")


def sealed(token):
    """A token of somebody's own making, with the right sum."""
    data = msgspec.msgpack.encode(token)
    check = hashlib.blake2b(data, digest_size=6).digest()
    return "hst1." + base64.urlsafe_b64encode(data + check).rstrip(b"=").decode()


def made(**changes):
    """A token as it should be, but for something."""
    with Client(KEY, base_url="http://127.0.0.1:9/v1", model="sim") as client:
        token = ResumeToken.decode(client.stream(PROMPT).resume_token)
    return msgspec.structs.replace(token, **changes)


def state(**changes):
    return msgspec.structs.replace(Checkpoint(), **changes).encode()


class TestForged:
    """The sum is no signature: whoever makes a token gets typed errors, if any."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"stream_id": "a\r\nX-Other: b"},
            {"stream_id": ""},
            {"stream_id": "x" * 129},
            {"checkpoint": b""},
            {"checkpoint": b"\xc1"},
            {"checkpoint": state(version=2)},
            {"checkpoint": state(guarantee=99)},
            {"checkpoint": state(decoder=b"\x99nonsense")},
            {"checkpoint": state(cursor=Cursor(response_id="a", last_event_id="b\nc"))},
            {"checkpoint": state(cursor=Cursor(response_id="a", conversation="b\rc"))},
            {"min_guarantee": 77},
        ],
        ids=str,
    )
    def test_nonsense_is_told(self, client, changes):
        with pytest.raises(ResumeTokenInvalid):
            client.resume(sealed(made(**changes)), messages=PROMPT)

    @pytest.mark.parametrize(
        "changes",
        [
            {"model": ""},
            {"numbers": {"temperature": -1}},
            {"numbers": {"temperature": float("nan")}},
            {"numbers": {"max_tokens": 2.5}},
            {"resume": ("magic",)},
        ],
        ids=str,
    )
    def test_a_wrong_request_is_told(self, client, changes):
        with pytest.raises((InvalidRequest, ConfigurationError)):
            client.resume(sealed(made(**changes)), messages=PROMPT)


@settings(max_examples=300)
@given(st.text() | st.text().map("hst1.".__add__), st.text())
@example("hst1.\ud800", "")
@example("hst1." + "A" * 70_000, "")
def test_any_string_is_refused_by_name(token, text):
    with (
        Client(KEY, base_url="http://127.0.0.1:9/v1", model="sim") as client,
        pytest.raises(ResumeTokenInvalid),
    ):
        client.resume(token, messages=PROMPT, partial_text=text)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_anything_that_is_sealed_is_refused_by_name(data):
    check = hashlib.blake2b(data, digest_size=6).digest()
    token = "hst1." + base64.urlsafe_b64encode(data + check).rstrip(b"=").decode()
    with pytest.raises(ResumeTokenInvalid):
        ResumeToken.decode(token)


states = st.builds(
    Checkpoint,
    segment=st.integers(-3, 3),
    guarantee=st.integers(-1, 9),
    attempts=st.integers(-3, 2**63 - 1),
    model=st.none() | st.text(max_size=5),
    half_call=st.booleans(),
    decoder=st.binary(max_size=30) | st.just(b""),
    cursor=st.none()
    | st.builds(
        Cursor,
        response_id=st.text(max_size=5),
        last_event_id=st.text(max_size=5),
        last=st.binary(max_size=5),
        behind=st.tuples(st.binary(max_size=3)),
        consecutive=st.booleans(),
        conversation=st.text(max_size=5),
        offset=st.integers(-3, 10**6),
    ),
).map(Checkpoint.encode)


@settings(max_examples=150)
@given(states, st.sampled_from(["openai-compatible", "llama.cpp"]))
def test_any_state_ends_in_an_answer_or_a_typed_error(sim, checkpoint, provider):
    """Nor does it reach the wire as anything but a request."""
    with client_for(sim.base_url, provider=provider) as client:
        token = ResumeToken.decode(client.stream(PROMPT, **GREEDY).resume_token)
        forged = sealed(msgspec.structs.replace(token, checkpoint=checkpoint))
        try:
            with client.resume(forged, messages=PROMPT) as stream:
                assert stream.get_final_text() == whole(sim, **GREEDY)
        except HolystreamError:
            pass

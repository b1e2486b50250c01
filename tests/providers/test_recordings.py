"""Whole streams of each host, and what is left of them when they are cut anywhere."""

import pytest
from recordings import ALL, OF_A_HOST, messages_of

from holystream.events import (
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    UsageReport,
)
from holystream.providers.base import ChatRequest
from holystream.providers.registry import PROFILES, provider
from holystream.wire.faults import FaultKind

# Hosts may send these where what was received before cannot be a whole answer.
FAILURES = {
    "deepseek": b'data: {"id":"6a7f","choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"insufficient_system_resource"}]}\n\n',
    "openrouter": b'data: {"id":"gen-176","object":"chat.completion.chunk","provider":'
    b'"openai","error":{"code":"server_error","message":"Provider disconnected '
    b'unexpectedly"},"choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"error"}]}\n\n',
    "mistral": b'data: {"id":"m1","choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"error"}]}\n\n',
    "vllm": b'data: {"error":{"message":"EngineCore died","type":"InternalServerError",'
    b'"param":null,"code":500}}\n\ndata: [DONE]\n\n',
    "llama.cpp": b'data: {"error":{"code":500,"message":"slot lost","type":'
    b'"server_error"}}\n\n',
    "litellm": b'data: {"error": {"message": "upstream", "type": null, "param": null, '
    b'"code": "500"}}\n\n',
    "vllm, aborted": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"abort","stop_reason":null}]}\n\ndata: [DONE]\n\n',
}


def decode(name, body, model=None):
    recording = ALL[name]
    dialect = provider(name if name in PROFILES else "openai-compatible")
    request = ChatRequest(
        path="/",
        body={},
        model=model or recording.model or "m",
        choices=1,
        deterministic=False,
    )
    decoder = dialect.decoder(request, segment=0)
    return decoder, decoder.decode(messages_of(body))


def said(events, kind):
    return "".join(event.text for event in events if type(event) is kind)


def test_each_host_has_a_recording():
    assert set(OF_A_HOST) == set(PROFILES)


@pytest.mark.parametrize("name", ALL)
def test_a_stream_is_read_as_its_host_means_it(name):
    recording = ALL[name]
    decoder, events = decode(name, recording.body)
    assert said(events, TextDelta) == recording.text
    assert said(events, ReasoningDelta) == recording.reasoning
    assert said(events, RefusalDelta) == recording.refusal
    assert decoder.usage == recording.usage
    assert decoder.failure is None
    assert decoder.ended is recording.ended
    assert decoder.finish_reasons == {0: recording.finish_reason}
    assert decoder.model == recording.model
    assert decoder.complete(clean_end=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_stream_that_is_cut_is_a_prefix_and_whole_only_with_evidence(name):
    recording = ALL[name]
    reason = recording.body.index(f'"{recording.finish_reason}"'.encode())
    reported = -1
    for cut in range(len(recording.body) + 1):
        decoder, events = decode(name, recording.body[:cut])
        assert recording.text.startswith(said(events, TextDelta))
        assert recording.reasoning.startswith(said(events, ReasoningDelta))
        assert decoder.failure is None, "the cut itself is no word of the server's"
        if decoder.complete(clean_end=True):
            assert cut > reason
            assert said(events, TextDelta) == recording.text
        reports = [event for event in events if type(event) is UsageReport]
        assert len(reports) >= reported, "what was reported stays so"
        reported = len(reports)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_the_host_is_none_of_its_answers(name):
    host = name.partition(",")[0]
    recording = ALL[host]
    halfway = (
        recording.body.index(b'"finish_reason":"stop"')
        if (b'"finish_reason":"stop"' in recording.body)
        else len(recording.body) // 2
    )
    start = recording.body[: recording.body.rindex(b"data:", 0, halfway)]
    decoder, events = decode(host, start + FAILURES[name])
    assert decoder.failure.kind is FaultKind.ERROR_EVENT
    assert not decoder.complete(clean_end=True)
    assert recording.text.startswith(said(events, TextDelta))


@pytest.mark.parametrize("host", ["holysheep", "openrouter"])
def test_a_translated_gemini_needs_more_than_its_finish_reason(host):
    body = ALL["holysheep"].body.removesuffix(b"data: [DONE]\n\n")
    decoder, _ = decode("holysheep", body)
    assert decoder.complete(clean_end=True)
    assert not decoder.complete(clean_end=False)
    other, _ = decode(host, body, model="deepseek-v3.2")
    assert other.complete(clean_end=False)
    translated, _ = decode(host, body, model="google/Gemini-3-flash")
    assert not translated.complete(clean_end=False)

"""A client and each host: what the host is sent, and what comes of its stream."""

import dataclasses
import http.server
import json
import threading

import pytest
from recordings import OF_A_HOST

import holystream

KEY = "sk-0123456789abcdef"


class Host(http.server.BaseHTTPRequestHandler):
    """Answers any POST with the stream it was given, in chunks of odd sizes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.seen = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": json.loads(self.rfile.read(length)),
        }
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = self.server.stream
        for start in range(0, len(body), 37):
            piece = body[start : start + 37]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *arguments):
        """Keep quiet."""


@pytest.fixture
def host():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CHAT = "/v1/chat/completions"
SAME = {"temperature": 0, "stop": ["END"], "n": 1}
ASKED = {**SAME, "max_tokens": 9, "seed": 7}
USAGE = {"stream_options": {"include_usage": True}}
PLAIN = {**USAGE, "max_tokens": 9, "seed": 7}
RENAMED = {**USAGE, "max_completion_tokens": 9, "seed": 7}
# Host, path of the base URL, model; path, key header and fields of the request.
REQUESTS = [
    ("holysheep", "/v1", "deepseek-v3.2", CHAT, "bearer", PLAIN),
    ("openai", "/v1", "gpt-4.1", CHAT, "bearer", RENAMED),
    (
        "azure",
        "",
        "my gpt",
        "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        "api-key",
        PLAIN,
    ),
    (
        "azure",
        "",
        "o4-mini",
        "/openai/deployments/o4-mini/chat/completions?api-version=2025-04-01-preview",
        "api-key",
        RENAMED,
    ),
    ("deepseek", "", "deepseek-chat", "/chat/completions", "bearer", PLAIN),
    ("openrouter", "/api/v1", "openai/o3", "/api" + CHAT, "bearer", PLAIN),
    ("mistral", "/v1", "m", CHAT, "bearer", {"max_tokens": 9, "random_seed": 7}),
    ("vllm", "/v1", "Qwen/Qwen3-8B", CHAT, None, PLAIN),
    ("llama.cpp", "/v1", "qwen3.gguf", CHAT, None, PLAIN),
    ("ollama", "/v1", "llama3.2", CHAT, None, PLAIN),
    ("openai-compatible", "/v1", "m", CHAT, None, PLAIN),
]


@pytest.mark.parametrize(
    "row", REQUESTS, ids=[f"{row[0]} {row[2]}" for row in REQUESTS]
)
def test_a_host_is_asked_in_its_own_way(host, monkeypatch, row):
    name, base, model, path, key_header, fields = row
    known = holystream.profile(name)
    variable = known.key_variable
    monkeypatch.delenv(variable, raising=False)
    if key_header:
        monkeypatch.setenv(variable, KEY)
    if known.base_url is not None:
        assert known.base_url.partition("://")[2].partition("/")[2] == base.strip("/")
    recording = OF_A_HOST[name]
    host.stream = recording.body
    url = f"http://127.0.0.1:{host.server_port}{base}"
    with holystream.Client(provider=name, base_url=url) as client:
        completion = client.stream("Hi", model=model, **ASKED).get_final_completion()
    seen = host.seen
    assert seen["path"] == path
    keys = {
        header: seen["headers"].get(header) for header in ("authorization", "api-key")
    }
    bearer = f"Bearer {KEY}" if key_header == "bearer" else None
    assert keys["authorization"] == bearer
    assert keys["api-key"] == (KEY if key_header == "api-key" else None)
    assert seen["headers"]["accept"] == "text/event-stream"
    assert seen["body"] == {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        **SAME,
        **fields,
    }
    assert completion.text == recording.text
    assert completion.reasoning == recording.reasoning
    assert completion.finish_reason == recording.finish_reason
    assert completion.usage == recording.usage
    assert completion.guarantee is holystream.Guarantee.SINGLE
    assert completion.attempts == 1


def test_azure_without_dated_versions_is_a_change_of_two_fields(host):
    host.stream = OF_A_HOST["azure"].body
    azure = dataclasses.replace(
        holystream.profile("azure"),
        base_url=f"http://127.0.0.1:{host.server_port}",
        path="/openai/v1/chat/completions",
        query={},
        models={},
    )
    with holystream.Client(KEY, provider=azure) as client:
        assert client.stream("Hi", model="my-gpt").get_final_text() == "Hello"
    assert host.seen["path"] == "/openai/v1/chat/completions"
    assert host.seen["headers"]["api-key"] == KEY


def test_the_key_cannot_be_replaced_by_a_header_of_the_callers(host):
    host.stream = OF_A_HOST["azure"].body
    url = f"http://127.0.0.1:{host.server_port}"
    with holystream.Client(KEY, provider="azure", base_url=url) as client:
        stream = client.stream("Hi", model="m", extra_headers={"API-Key": "other"})
        stream.until_done()
    assert host.seen["headers"]["api-key"] == KEY

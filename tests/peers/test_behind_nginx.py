"""A WSGI application under gunicorn, behind nginx: buffered, unbuffered, and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pytest
from gate import Gate
from loopback import Reader, client_for, free_port
from peer_presence import need, need_packages
from peer_processes import Server, program

from holystream import (
    ConnectionLost,
    Guarantee,
    IncompleteAnswer,
    Interrupted,
    RetryPolicy,
    ServerError,
    StreamInterrupted,
)

PROMPT = "What has been said once — “naïve”, 日本, 🦉 — must not be said twice"
WORDS = PROMPT.split(" ")
PIECES = [WORDS[0], *(f" {word}" for word in WORDS[1:])]
ALL_EVENTS = len(PIECES) + 3
"""The role, the pieces, the finish reason, [DONE]."""

NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /plain/ {{
            proxy_pass http://unix:{socket}:/;
        }}
        location /unbuffered/ {{
            proxy_buffering off;
            proxy_pass http://unix:{socket}:/;
        }}
        location /unbuffered11/ {{
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://unix:{socket}:/;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory):
    need_packages("gunicorn")
    # The path of a socket must be short.
    folder = tmp_path_factory.mktemp("g")
    path = str(folder / "s")
    command = [sys.executable, "-m", "gunicorn", "gated_app:app", "--bind"]
    command += [f"unix:{path}", "--worker-class", "gthread", "--threads", "8"]
    with Server([*command, "--no-control-socket"], path, folder / "log") as server:
        server.path = path
        yield server


@pytest.fixture(scope="module")
def nginx(gunicorn, tmp_path_factory):
    executable = program("nginx")
    need(executable, "nginx")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, socket=gunicorn.path))
    log = folder / "log"
    command = [executable, "-c", config, "-p", folder, "-e", log]
    with Server(command, ("127.0.0.1", port), log) as server:
        server.url = f"http://127.0.0.1:{port}"
        yield server


@contextlib.contextmanager
def stream(nginx, location, gate, *, temperature=0.0, **headers):
    retry = RetryPolicy(attempts=4, base=0.001, cap=0.002)
    with (
        client_for(f"{nginx.url}/{location}/v1", retry=retry) as client,
        client.stream(
            PROMPT,
            temperature=temperature,
            extra_headers={**gate.headers, **headers},
        ) as made,
    ):
        yield made


@pytest.mark.parametrize("location", ["unbuffered", "unbuffered11"])
def test_what_is_not_buffered_arrives_word_by_word(nginx, location):
    """Each word is sent only after the one before it has been handed over."""
    with Gate(2) as gate, stream(nginx, location, gate) as answer:
        texts = answer.text_stream
        assert next(texts) == PIECES[0]
        session = gate.session()
        for piece in PIECES[1:]:
            session.release(1)
            assert next(texts) == piece
        session.release_all()
        assert list(texts) == []
        assert answer.get_final_completion().guarantee is Guarantee.SINGLE


def test_the_header_of_the_application_turns_buffering_off(nginx):
    headers = {"X-Unbuffered": "1"}
    with Gate(3) as gate, stream(nginx, "plain", gate, **headers) as answer:
        texts = answer.text_stream
        assert [next(texts), next(texts)] == PIECES[:2]
        gate.session().release_all()
        assert "".join(texts) == "".join(PIECES[2:])


def test_what_is_buffered_comes_at_the_end_and_is_exact(nginx):
    with Gate(ALL_EVENTS) as gate, stream(nginx, "plain", gate) as answer:
        reader = Reader(answer.get_final_text)
        session = gate.session()
        session.sent(ALL_EVENTS)
        # All was sent, but the end of the body.
        assert answer.partial_text == ""
        session.release_all()
        assert reader.ended() is None
        assert reader.result == PROMPT


def failures(events):
    return [event.error for event in events if isinstance(event, Interrupted)]


# Between nginx and the application HTTP/1.0 is the default, where the end of the
# connection is the end of the body: nginx makes a clean end of a killed worker.
@pytest.mark.parametrize(
    ("location", "error"),
    [("unbuffered", IncompleteAnswer), ("unbuffered11", ConnectionLost)],
)
class TestAWorkerIsKilled:
    def test_its_answer_is_replayed(self, nginx, location, error):
        with Gate(3) as gate, stream(nginx, location, gate) as answer:
            texts = answer.text_stream
            said = [next(texts), next(texts)]
            killed = gate.session().pid
            os.kill(killed, signal.SIGKILL)
            events = list(answer)
            said += map(str, events)
            assert "".join(said) == PROMPT
            assert [type(each) for each in failures(events)] == [error]
            assert answer.get_final_completion().guarantee is Guarantee.REPLAYED
            assert gate.session().pid != killed

    def test_or_what_came_of_it_is_kept(self, nginx, location, error):
        with Gate(3) as gate, stream(nginx, location, gate, temperature=1) as answer:
            texts = answer.text_stream
            said = next(texts) + next(texts)
            os.kill(gate.session().pid, signal.SIGKILL)
            with pytest.raises(StreamInterrupted) as caught:
                next(texts)
        assert caught.value.partial_text == said
        assert type(caught.value.cause) is error


def test_nginx_is_killed_and_comes_back(nginx):
    with Gate(3) as gate, stream(nginx, "unbuffered", gate) as answer:
        texts = answer.text_stream
        said = [next(texts), next(texts)]
        nginx.kill()
        errors = []
        for event in answer:
            said.append(str(event))
            if isinstance(event, Interrupted):
                errors.append(type(event.error))
                nginx.start()
        assert "".join(said) == PROMPT
        assert errors == [ConnectionLost]


def test_the_application_is_gone_for_a_while(nginx, gunicorn):
    """Where it was, nginx answers 502, until it is back."""
    with Gate(3) as gate, stream(nginx, "unbuffered11", gate) as answer:
        texts = answer.text_stream
        said = [next(texts), next(texts)]
        gunicorn.kill()
        errors = []
        for event in answer:
            said.append(str(event))
            if isinstance(event, Interrupted):
                errors.append(event.error)
                if isinstance(event.error, ServerError):
                    gunicorn.start()
        assert "".join(said) == PROMPT
    assert [type(error) for error in errors] == [ConnectionLost, ServerError]
    assert errors[1].status == 502

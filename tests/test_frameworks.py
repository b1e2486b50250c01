"""Views that stream, under a real threaded WSGI server, and the one who reads them.

The views are those of the README, with the question and the error handling that each
framework is used with. The viewer's side is plain requests.
"""

import contextlib
import threading

import django
import flask
import pytest
import requests
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from werkzeug.serving import WSGIRequestHandler, make_server

import holystream
from holystream import Client, Guarantee, PrioritySemaphore
from holystream.simulator import Script

SOON = 25.0
"""Seconds within which what must happen at once has happened on any machine."""


class Quiet(WSGIRequestHandler):
    def log(self, *arguments):
        pass


@contextlib.contextmanager
def serving(application):
    """The application's URL, while a server with a thread for each viewer runs it."""
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=Quiet
    )
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(SOON)
        server.server_close()


def flask_application(client):
    app = flask.Flask(__name__)

    @app.get("/ask")
    def ask():
        stream = client.stream(flask.request.args["q"], temperature=0).open()
        return flask.Response(stream.text_stream, mimetype="text/plain")

    @app.errorhandler(holystream.APIError)
    def refused(error):
        return error.message, error.status or 502

    return app


def django_application(client):
    def ask(request):
        try:
            stream = client.stream(request.GET["q"], temperature=0).open()
        except holystream.APIError as error:
            return HttpResponse(error.message, status=error.status or 502)
        return StreamingHttpResponse(
            stream.text_stream, content_type="text/plain; charset=utf-8"
        )

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of the test", DEBUG=False)
        django.setup()
    # Whoever configured the settings, the routes are ours.
    settings.ROOT_URLCONF = (path("ask", ask),)
    return WSGIHandler()


@pytest.fixture(params=[flask_application, django_application])
def site(request, client):
    with serving(request.param(client)) as url:
        yield url


def ask(site, question="Hello"):
    return requests.get(f"{site}/ask", {"q": question}, stream=True, timeout=SOON)


def expected(simulator, question="Hello"):
    messages = [{"role": "user", "content": question}]
    return simulator.answer({"model": "sim", "messages": messages, "temperature": 0})


def test_the_viewer_reads_the_answer(simulator, site):
    with ask(site) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.content.decode() == expected(simulator).text


def test_it_arrives_while_it_streams(simulator, site):
    """The server sends the next piece only after the viewer has read the one before."""
    gate = threading.Semaphore(0)
    simulator.play(Script(gate=gate))
    gate.release(2)  # the role, and the first piece
    with ask(site) as response:
        for piece in expected(simulator).deltas:
            assert response.raw.read(len(piece.encode())).decode() == piece
            gate.release()
        gate.release(100)
        assert response.raw.read() == b""


def test_a_connection_that_drops_behind_it_is_not_noticed(simulator, site):
    simulator.play(Script(cut_at=3000, cut="rst"))
    with ask(site) as response:
        assert response.content.decode() == expected(simulator).text
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_a_refusal_has_its_status(simulator, site, status):
    simulator.play(Script(status=status, headers={"Retry-After": "3600"}))
    with ask(site) as response:
        assert response.status_code == status
        assert str(status) in response.text


def test_an_answer_that_breaks_off_breaks_off_the_response(simulator, site):
    """The viewer is not told that what he has is the whole text."""
    simulator.play(Script(cut_at=3000), Script(status=400))
    with ask(site) as response:
        assert response.status_code == 200
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = response.content
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("application", [flask_application, django_application])
def test_a_viewer_who_leaves_ends_the_stream(simulator, application):
    pool = PrioritySemaphore(1)
    client = Client(
        "sk-0123456789abcdef", base_url=simulator.base_url, model="sim", pool=pool
    )
    gate, ended = threading.Semaphore(0), threading.Event()
    simulator.play(Script(gate=gate))
    gate.release(2)

    def go_on():
        # That he left is noticed when the next pieces are written to him.
        while not ended.wait(0.001):
            gate.release()

    pushing = threading.Thread(target=go_on)
    with serving(application(client)) as site:
        with ask(site, "echo:" + "word " * 10_000) as response:
            assert response.raw.read(1)
            assert pool.statistics().in_use == 1
        pushing.start()
        try:
            # Had the answer been read to its end, the connection would be kept.
            assert simulator.wait_until(lambda: simulator.open_connections == 0)
            pool.acquire(timeout=SOON).release()
        finally:
            ended.set()
            pushing.join()


def test_many_viewers_at_once(simulator, client, site):
    answers = {}

    def view(number):
        with ask(site, f"Question {number}") as response:
            answers[number] = response.content.decode()

    viewers = [threading.Thread(target=view, args=(number,)) for number in range(20)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join(SOON)
    assert answers == {
        number: expected(simulator, f"Question {number}").text for number in range(20)
    }


CELL = """
with client.stream("Why is the sky blue?", temperature=0) as stream:
    for text in stream.text_stream:
        print(text, end="")
stream.completion.guarantee
"""


def test_a_notebook_cell(simulator, client, capsys):
    try:
        from IPython.core.interactiveshell import InteractiveShell
    except ImportError:
        names = {"client": client}
        exec(compile(CELL, "<cell>", "exec"), names)
        result = names["stream"].completion.guarantee
    else:
        shell = InteractiveShell()
        shell.user_ns["client"] = client
        result = shell.run_cell(CELL).result
    assert result is Guarantee.SINGLE
    assert expected(simulator, "Why is the sky blue?").text in capsys.readouterr().out

"""The configuration and the views of docs/concurrency.md do what is said of them."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import path
from loopback import KEY, SOON, client_for
from werkzeug.test import Client as Viewer

from holystream import PrioritySemaphore, Timeouts
from holystream.simulator import Script, Simulator

TEXT = (Path(__file__).parents[1] / "docs" / "concurrency.md").read_text("utf-8")
FILES = dict(re.findall(r"```python\n# (\w[\w.]*)\.py\n(.*?)```", TEXT, re.DOTALL))


def run(name):
    module = types.ModuleType(name)
    exec(compile(FILES[name], f"{name} in concurrency.md", "exec"), vars(module))
    return module


def flask_application():
    return run("flask_views").app


def django_application():
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of the test", DEBUG=False)
        django.setup()
    settings.ROOT_URLCONF = (path("ask", run("django_views").ask),)
    return WSGIHandler()


@pytest.fixture(params=[flask_application, django_application])
def viewer_of(request, monkeypatch):
    """Make somebody who asks the views, which have a client of ours."""

    def make(client):
        module = types.ModuleType("site_client")
        module.client = client
        monkeypatch.setitem(sys.modules, "site_client", module)
        return Viewer(request.param())

    return make


def ask(viewer):
    with viewer.get("/ask", query_string={"q": "echo:Hello"}) as response:
        later = response.headers.get("Retry-After")
        return response.status_code, later, response.get_data(as_text=True)


def test_the_answer_comes(client, viewer_of):
    assert ask(viewer_of(client)) == (200, None, "Hello")


def test_who_finds_no_permit_is_told_to_come_back(client, viewer_of):
    viewer = viewer_of(client.with_options(timeout=Timeouts(queue=0.001)))
    client.pool.resize(1)
    with client.pool.acquire(timeout=SOON):
        assert ask(viewer)[:2] == (503, "5")
        assert client.pool.statistics().timeouts == 1
    assert ask(viewer) == (200, None, "Hello")


def test_who_finds_no_room_in_the_queue_is_told_so(simulator, viewer_of):
    pool = PrioritySemaphore(1, max_queue=0)
    with client_for(simulator.base_url, pool=pool) as client:
        viewer = viewer_of(client)
        with pool.acquire(timeout=SOON):
            assert ask(viewer)[:2] == (503, "5")
            assert pool.statistics().refused == 1
        assert ask(viewer) == (200, None, "Hello")


def test_who_comes_while_the_provider_asks_for_quiet_is_told_how_long(
    simulator, viewer_of
):
    simulator.play(Script(status=429, headers={"Retry-After": "90"}))
    with client_for(simulator.base_url, pool=PrioritySemaphore(1)) as client:
        assert ask(viewer_of(client))[:2] == (503, "90")


@pytest.mark.parametrize(
    "script",
    [
        Script(status=500),
        Script(status=529),
        Script(cut_before_headers="rst"),
        Script(stall_headers=True),
    ],
    ids=["500", "529", "cut", "silent"],
)
def test_a_provider_that_is_down_is_no_fault_of_the_site(simulator, viewer_of, script):
    simulator.play(script)
    quick = Timeouts(first_token=0.1) if script.stall_headers else Timeouts()
    with client_for(simulator.base_url, timeout=quick) as client:
        assert ask(viewer_of(client))[:2] == (503, "5")
        patient = client.with_options(timeout=Timeouts())
        assert ask(viewer_of(patient)) == (200, None, "Hello")


def test_a_provider_that_cannot_be_reached_is_no_fault_of_the_site(viewer_of):
    with Simulator() as gone:
        pass
    with client_for(gone.base_url) as client:
        assert ask(viewer_of(client))[:2] == (503, "5")


@pytest.mark.parametrize("status", [400, 401])
def test_what_is_a_fault_of_the_site_is_told_as_one(simulator, viewer_of, status):
    simulator.play(Script(status=status))
    with client_for(simulator.base_url) as client:
        assert ask(viewer_of(client))[:2] == (500, None)


def test_the_servers_on_the_way_are_told_to_hold_nothing_back(client, viewer_of):
    with viewer_of(client).get("/ask", query_string={"q": "echo:Hello"}) as response:
        assert response.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("workers", [None, 4])
def test_the_limit_is_divided_among_the_workers(monkeypatch, workers):
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if workers:
        monkeypatch.setenv("WEB_CONCURRENCY", str(workers))
    with run("site_client").client as client:
        pool, server = client.pool, run("gunicorn.conf")
    assert server.workers == (workers or 2)
    assert pool.limit * server.workers == 100
    assert pool.max_queue == 20
    # Whoever holds a permit or waits for one has a thread, and others have some too.
    assert pool.limit + pool.max_queue < server.threads


def test_gunicorn_takes_its_settings():
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed: bash .ci/peers installs it")
    from gunicorn.config import Config

    server, config = run("gunicorn.conf"), Config()
    names = [name for name in vars(server) if not name.startswith("_") and name != "os"]
    for name in names:
        config.set(name, getattr(server, name))
    assert config.worker_class_str == "gthread"
    assert config.preload_app
    assert config.worker_connections == config.threads == 96

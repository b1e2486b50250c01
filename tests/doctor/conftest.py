"""What the tests of the checks share: a case, its findings, servers of a few lines."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import ssl

import pytest
import trustme
from loopback import Peer, read_request

from holystream.cli.doctor.case import Case
from holystream.cli.doctor.examination import examine
from holystream.providers.registry import profile
from holystream.simulator import Simulator

KEY = "sk-4711-never-show-me"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A key, and nothing else that would decide how requests travel."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOLYSTREAM_API_KEY", KEY)
    return monkeypatch


@pytest.fixture
def case():
    """Make cases; they are closed at the end."""
    with contextlib.ExitStack() as opened:

        def make(base_url, provider="openai-compatible", **options):
            made = Case(profile(provider), base_url, **{"seconds": 30.0, **options})
            opened.callback(made.close)
            return made

        yield make


@pytest.fixture
def diagnose(case):
    """Run all checks; return the findings by name. The key is in none of them."""

    def run(base_url, provider="openai-compatible", **options):
        findings = dict(examine(case(base_url, provider, **options)))
        assert KEY not in repr(findings)
        return findings

    return run


@pytest.fixture
def sim():
    with Simulator(api_keys=[KEY]) as simulator:
        yield simulator


@pytest.fixture
def serve():
    """Serve requests by a function of the request's bytes; return the base URL."""
    with contextlib.ExitStack() as opened:

        def start(respond):
            def converse(sock):
                while request := read_request(sock):
                    sock.sendall(respond(request))

            return f"{opened.enter_context(Peer(converse)).url}/v1"

        yield start


@pytest.fixture(scope="session")
def authority():
    return trustme.CA(organization_name="Certainly Ltd")


@pytest.fixture
def trust(authority, tmp_path, environment):
    """Let requests trust our own authority."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    environment.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


@pytest.fixture
def tls_sim(authority):
    """Start simulators whose certificate is as it is told to be."""
    with contextlib.ExitStack() as opened:

        def start(name="127.0.0.1", begin=-100, end=100):
            now = dt.datetime.now(dt.UTC)
            certificate = authority.issue_cert(
                name,
                not_before=now + dt.timedelta(days=begin),
                not_after=now + dt.timedelta(days=end),
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            return opened.enter_context(Simulator(tls=context, api_keys=[KEY]))

        yield start

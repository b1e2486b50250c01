"""Names and connections: of the server, or of the proxy before it."""

import contextlib
import socket
import threading

import pytest

from holystream.cli.doctor import network
from holystream.cli.doctor.findings import Status


def at(case, host, port=443, **options):
    made = case(f"https://{host}/v1", **options)
    made.base_url = f"https://{host}:{port}/v1"
    return made


@pytest.fixture
def names(monkeypatch):
    """What names resolve to; addresses resolve to themselves."""
    known = {}
    real = socket.getaddrinfo

    def look_up(host, port, *, type=0, flags=0):  # noqa: A002 - as the real one
        with contextlib.suppress(OSError):
            return real(host, port, type=type, flags=socket.AI_NUMERICHOST)
        if flags or host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        entries = [
            entry for each in known[host] for entry in look_up(each, port, type=type)
        ]
        # As for several socket types: equal, and not the same.
        return entries + [(*entry,) for entry in entries]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def closed_port():
    """A port that nobody listens on; bound, so that nobody begins to."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_an_address_needs_no_look_up(case):
    made = at(case, "127.0.0.1")
    finding = network.dns(made)
    assert (finding.status, finding.text) == (Status.OK, "127.0.0.1 is an address")
    assert len(made.addresses) == 1


def test_a_name_is_told_with_its_addresses_once_each(case, names):
    names["api.example"] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    finding = network.dns(at(case, "api.example"))
    assert finding.status is Status.OK
    assert "192.0.2.1, 192.0.2.2, 2001:db8::1 (2 IPv4, 1 IPv6)" in finding.text
    assert finding.facts["addresses"] == names["api.example"]


def test_a_name_that_does_not_resolve_is_named(diagnose, names):
    assert names == {}
    findings = diagnose("https://api.exmaple/v1")
    assert findings["dns"].problem == "dns.unresolved"
    assert "api.exmaple: [Errno -2] Name or service not known" in findings["dns"].text
    for name in ("tcp", "tls", "clock", "authentication", "buffering"):
        assert findings[name].status is Status.SKIPPED
        assert findings[name].text.startswith("needs ")
    assert findings["key"].status is Status.OK


def test_a_name_server_that_does_not_answer_is_not_waited_for(case, monkeypatch):
    answered = threading.Event()

    def look_up(*_args, flags=0, **_options):
        if not flags:
            answered.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    finding = network.dns(at(case, "api.example", seconds=0.1))
    answered.set()
    assert finding.problem == "dns.unresolved"
    assert finding.text == "api.example: no answer within 0.1 s"


@pytest.mark.parametrize(("seconds", "problem"), [(0.9, None), (1.1, "dns.slow")])
def test_a_slow_name_server_is_warned_of(case, names, seconds, problem):
    names["api.example"] = ["192.0.2.1"]
    times = iter([5.0, 5.0 + seconds])
    finding = network.dns(at(case, "api.example", now=lambda: next(times)))
    assert finding.problem == problem
    assert f"after {seconds * 1000:.0f} ms" in finding.text


def test_each_address_is_tried(case, sim, names):
    # The simulator listens on the first of them only.
    names["api.example"] = ["127.0.0.1", "127.0.0.9"]
    made = at(case, "api.example", sim.port)
    network.dns(made)
    finding = network.tcp(made)
    assert finding.problem == "tcp.partly"
    good, bad = finding.facts["addresses"]
    assert (good["address"], good["problem"]) == ("127.0.0.1", None)
    assert bad["address"] == "127.0.0.9"
    assert "refused" in bad["problem"]
    assert f"127.0.0.9 port {sim.port}: " in finding.text


def test_a_closed_port_fails_and_what_follows_is_skipped(diagnose, closed_port):
    findings = diagnose(f"http://127.0.0.1:{closed_port}/v1")
    assert findings["tcp"].problem == "tcp.unreachable"
    assert "refused" in findings["tcp"].text.lower()
    assert findings["authentication"].text == "needs tls"


def test_through_a_proxy_it_is_the_proxy_that_is_looked_for(
    case, names, environment, sim
):
    names["proxy.example"] = ["127.0.0.1"]
    environment.setenv("HTTPS_PROXY", f"http://proxy.example:{sim.port}")
    made = at(case, "api.example")
    finding = network.dns(made)
    assert finding.text.startswith("the proxy proxy.example is 127.0.0.1 (")
    assert network.tcp(made).facts["addresses"][0]["port"] == sim.port


def test_a_proxy_that_is_not_there_is_named(diagnose, environment, closed_port, names):
    environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port}")
    finding = diagnose("https://api.example/v1")["tcp"]
    assert finding.problem == "tcp.proxy-unreachable"
    assert finding.text.startswith(f"the proxy 127.0.0.1 port {closed_port}: ")
    assert "HTTPS_PROXY" in finding.advice
    environment.setenv("HTTPS_PROXY", "http://gone.example:3128")
    finding = diagnose("https://api.example/v1")["dns"]
    assert finding.problem == "dns.proxy-unresolved"
    assert finding.text.startswith("the proxy gone.example")
    assert "HTTPS_PROXY" in finding.advice


def test_a_connect_that_is_never_answered_is_bounded(case):
    from loopback import blackhole

    with blackhole() as port:
        made = at(case, "127.0.0.1", port, seconds=0.1)
        network.dns(made)
        finding = network.tcp(made)
    assert finding.problem == "tcp.unreachable"
    assert "took too long" in finding.text


def test_an_address_of_a_kind_that_this_machine_lacks_is_told(case, sim):
    made = at(case, "127.0.0.1", sim.port)
    network.dns(made)
    # As where IPv6 is switched off: the socket itself cannot be made.
    odd = (socket.AF_INET, socket.SOCK_RAW, 0, "", ("127.0.0.8", sim.port))
    made.addresses.append(odd)
    finding = network.tcp(made)
    assert finding.problem == "tcp.partly"
    assert "127.0.0.8" in finding.text
    assert finding.facts["addresses"][1]["problem"]

"""TLS: the library's own verdict, and what the certificate says of itself."""

import base64
import contextlib
import datetime as dt
import selectors
import socket
import ssl

import pytest
import trustme
from cryptography import x509
from hypothesis import given, strategies as st
from loopback import Peer, answer, read_request

from holystream.cli.doctor.certificate import _element, _moment, read_certificate
from holystream.cli.doctor.findings import Status


def test_a_trusted_certificate_is_described(diagnose, tls_sim, trust):
    with tls_sim() as server:
        findings = diagnose(server.base_url)
    finding = findings["tls"]
    assert finding.status is Status.OK, finding
    assert finding.text.startswith("TLSv1.3, certificate of ")
    assert "Certainly Ltd" in finding.facts["issuer"]
    assert f"trusted by REQUESTS_CA_BUNDLE ({trust})" in finding.text
    assert findings["authentication"].status is Status.OK


def test_an_issuer_that_nobody_knows_is_named(diagnose, tls_sim):
    with tls_sim() as server:
        findings = diagnose(server.base_url)
        # The key was not sent to it: no request was.
        assert server.requests == ()
    finding = findings["tls"]
    assert finding.problem == "tls.untrusted"
    assert "Certainly Ltd" in finding.text
    assert "not trusted by certifi's bundle" in finding.text
    assert "REQUESTS_CA_BUNDLE" in finding.advice
    assert findings["authentication"].text == "needs tls"
    assert findings["clock"].text == "needs tls"


@pytest.mark.parametrize(
    ("options", "problem", "said"),
    [
        ({"end": -1}, "tls.expired", "expired"),
        ({"begin": 1, "end": 9}, "tls.not-yet-valid", "not yet valid"),
        ({"name": "other.example"}, "tls.wrong-host", "127.0.0.1"),
        ({"end": 3}, "tls.expires-soon", "until"),
    ],
)
@pytest.mark.usefixtures("trust")
def test_what_is_wrong_with_a_certificate_is_told(
    diagnose, tls_sim, options, problem, said
):
    with tls_sim(**options) as server:
        finding = diagnose(server.base_url)["tls"]
    assert finding.problem == problem, finding
    assert said in finding.text
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=options.get("end", 100))
    told = dt.datetime.fromisoformat(finding.facts["not_after"])
    assert abs(told - end) < dt.timedelta(days=1)
    if problem != "tls.wrong-host":
        assert f"{told:%Y-%m-%d}" in finding.text


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_does_not_exist_is_named(diagnose, tls_sim, environment, name):
    environment.setenv(name, "/nowhere/bundle.pem")
    with tls_sim() as server:
        finding = diagnose(server.base_url)["tls"]
    assert finding.problem == "tls.bundle"
    assert finding.text == f"{name} names /nowhere/bundle.pem, which does not exist"
    assert name in finding.advice


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\x00"])
def test_a_bundle_that_holds_nothing_is_named(
    diagnose, tls_sim, environment, tmp_path, content
):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(content)
    environment.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with tls_sim() as server:
        finding = diagnose(server.base_url)["tls"]
    assert finding.problem == "tls.bundle"
    assert "holds no certificates" in finding.text


def test_a_bundle_may_be_a_folder(diagnose, tls_sim, environment, tmp_path):
    environment.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with tls_sim() as server:
        finding = diagnose(server.base_url)["tls"]
    assert finding.problem == "tls.untrusted"
    assert f"not trusted by REQUESTS_CA_BUNDLE ({tmp_path})" in finding.text


def test_a_port_without_tls_is_told(diagnose):
    def converse(sock):
        sock.recv(65536)
        sock.sendall(answer(b"", status="400 Bad Request"))

    with Peer(converse) as peer:
        finding = diagnose(f"https://127.0.0.1:{peer.port}/v1")["tls"]
    assert finding.problem == "tls.failed"
    assert "WRONG_VERSION_NUMBER" in finding.text


def test_a_handshake_that_is_never_answered_is_bounded(diagnose):
    with Peer(lambda sock: sock.recv(1) and sock.recv(65536) and wait(sock)) as peer:
        finding = diagnose(f"https://127.0.0.1:{peer.port}/v1", seconds=0.2)["tls"]
    assert finding.problem == "tls.failed"


def wait(sock):
    while sock.recv(65536):
        pass


def test_http_has_no_tls(diagnose, sim):
    finding = diagnose(sim.base_url)["tls"]
    assert (finding.status, finding.stops) == (Status.SKIPPED, False)


def tunnel(port, login=None):
    """A proxy that lets through to one port, whatever it is asked for."""

    def converse(sock):
        request = read_request(sock)
        if login and base64.b64encode(login) not in request:
            sock.sendall(answer(b"", status="407 Proxy Authentication Required"))
            return
        if request:
            pass_through(sock, port)

    return Peer(converse)


def pass_through(sock, port):
    sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    with (
        socket.create_connection(("127.0.0.1", port)) as far,
        selectors.DefaultSelector() as ready,
    ):
        ready.register(sock, selectors.EVENT_READ, far)
        ready.register(far, selectors.EVENT_READ, sock)
        while True:
            for key, _ in ready.select():
                data = key.fileobj.recv(65536)
                # What TLS has taken off the socket already wakes no selector.
                while getattr(key.fileobj, "pending", int)():
                    data += key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


@pytest.mark.usefixtures("trust")
def test_a_certificate_is_seen_through_a_proxy(diagnose, tls_sim, environment):
    with tls_sim("api.example") as server, tunnel(server.port, b"me:s3cret-pw") as way:
        url = f"http://me:s3cret-pw@127.0.0.1:{way.port}"
        environment.setenv("HTTPS_PROXY", url)
        findings = diagnose("https://api.example/v1")
    assert findings["proxy"].text == f"http://127.0.0.1:{way.port}, from HTTPS_PROXY"
    assert findings["tls"].status is Status.OK, findings["tls"]
    assert "Certainly Ltd" in findings["tls"].text
    assert findings["authentication"].status is Status.OK
    assert "s3cret-pw" not in repr(findings)


def test_a_proxy_that_takes_tls_apart_is_found_out(diagnose, tls_sim, environment):
    with tls_sim("api.example") as server, tunnel(server.port) as way:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{way.port}")
        finding = diagnose("https://api.example/v1")["tls"]
    assert finding.problem == "tls.untrusted"
    assert "Certainly Ltd" in finding.text


def test_a_proxy_that_refuses_is_told(diagnose, tls_sim, environment):
    with tls_sim("api.example") as server, tunnel(server.port, b"you:other") as way:
        environment.setenv("HTTPS_PROXY", f"http://me:s3cret-pw@127.0.0.1:{way.port}")
        findings = diagnose("https://api.example/v1")
    assert findings["tls"].problem == "tls.tunnel"
    assert "407" in findings["tls"].text
    assert "s3cret-pw" not in repr(findings)


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize(
    "grudging",
    [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"", b"x" * 70000],
    ids=["refused", "hangs up", "garbage"],
)
def test_a_certificate_that_cannot_be_seen_is_no_failure(
    diagnose, tls_sim, environment, grudging
):
    """The library got through to it: that counts, and not what we see of it."""
    asked = []

    def converse(sock):
        asked.append(read_request(sock))
        # The first is of the check of tcp, the second of the library.
        if len(asked) == 3:
            sock.sendall(grudging)
        elif asked[-1]:
            pass_through(sock, server.port)

    with tls_sim("api.example") as server, Peer(converse) as way:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{way.port}")
        finding = diagnose("https://api.example/v1")["tls"]
    assert finding.status is Status.OK, finding
    assert finding.text.startswith("trusted by REQUESTS_CA_BUNDLE")


@pytest.mark.usefixtures("trust")
def test_what_is_behind_a_proxy_over_tls_is_left_to_the_library(
    diagnose, tls_sim, environment, authority
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def converse(sock):
        if read_request(sock):
            pass_through(sock, server.port)

    with tls_sim("api.example") as server, Peer(converse, tls=context) as way:
        environment.setenv("HTTPS_PROXY", f"https://127.0.0.1:{way.port}")
        finding = diagnose("https://api.example/v1")["tls"]
    assert finding.status is Status.OK
    assert finding.text.startswith("trusted by REQUESTS_CA_BUNDLE")


def certificates():
    authority = trustme.CA(organization_name="Prüfstelle \N{SNOWMAN}")
    long_ago = dt.datetime(1977, 3, 1, tzinfo=dt.UTC)
    far_away = dt.datetime(2077, 12, 31, 23, 59, 58, tzinfo=dt.UTC)
    leaf = authority.issue_cert(
        "a.example", common_name="A", not_before=long_ago, not_after=far_away
    )
    plain = authority.issue_cert("b.example", key_type=trustme.KeyType.RSA)
    pems = [leaf.cert_chain_pems[0], plain.cert_chain_pems[0], authority.cert_pem]
    return [ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in pems]


DERS = certificates()


@pytest.mark.parametrize("der", DERS)
def test_a_certificate_is_read_as_others_read_it(der):
    ours, theirs = read_certificate(der), x509.load_der_x509_certificate(der)
    assert ours.not_before == theirs.not_valid_before_utc
    assert ours.not_after == theirs.not_valid_after_utc
    for name, said in ((theirs.issuer, ours.issuer), (theirs.subject, ours.subject)):
        for oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
            for attribute in name.get_attributes_for_oid(oid):
                assert attribute.value in said


@given(st.sampled_from(DERS), st.data())
def test_what_is_no_certificate_is_a_value_error(der, data):
    broken = bytearray(der[: data.draw(st.integers(0, len(der)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            at = data.draw(st.integers(0, min(len(broken), 300) - 1))
            broken[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_certificate(bytes(broken))


@pytest.mark.parametrize("der", [b"", b"0", b"0\x80", DERS[0][:-1]])
def test_half_a_certificate_is_none(der):
    with pytest.raises(ValueError, match="not a"):
        read_certificate(der)


def test_a_certificate_of_the_first_version_has_no_version():
    tbs, rest = _element(_element(DERS[0])[0])
    fields = _element(tbs)[1]
    old = wrapped(wrapped(fields) + rest)
    assert read_certificate(old) == read_certificate(DERS[0])


def wrapped(content):
    length = len(content).to_bytes(2, "big")
    return b"\x30\x82" + length + content


@pytest.mark.parametrize(
    ("tag", "text", "year"),
    [
        (0x17, b"490301000000Z", 2049),
        (0x17, b"500301000000Z", 1950),
        (0x17, b"690301000000Z", 1969),
        (0x18, b"20500301000000Z", 2050),
    ],
)
def test_years_of_two_digits_are_those_of_the_standard(tag, text, year):
    assert _moment(tag, text) == dt.datetime(year, 3, 1, tzinfo=dt.UTC)

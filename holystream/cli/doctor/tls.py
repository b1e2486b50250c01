"""Whether the server's certificate is trusted, and what it says.

The verdict is that of the library's own connection. What the certificate says is read
from a second one, which asks for no trust and sends nothing: if the verdict is bad, one
wants to know who issued it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from holystream.cli.doctor.certificate import Certificate, read_certificate
from holystream.cli.doctor.findings import Finding, fine, found, skipped
from holystream.errors import Phase
from holystream.wire.connecting import connect
from holystream.wire.faults import Fault, FaultKind

if TYPE_CHECKING:
    import socket

    from holystream.cli.doctor.case import Case

_SOON: Final = dt.timedelta(days=14)
_CODES: Final = {
    9: "tls.not-yet-valid",
    10: "tls.expired",
    62: "tls.wrong-host",
    64: "tls.wrong-host",
}
"""OpenSSL's X509_V_ERR_* that are not about the issuer."""


def tls(case: Case) -> Finding:
    """Make a TLS connection as the library does, and look at the certificate."""
    if not case.is_tls:
        return skipped("http:// has none")
    bundle, variable = case.route.bundle, case.route.bundle_variable
    facts: dict[str, Any] = {"bundle": bundle}
    if bundle is not None and (complaint := _unusable(Path(bundle))):
        text = f"{variable} names {case.clean(bundle)}, which {complaint}"
        return found("tls.bundle", text, facts, {"variable": variable})
    trusted_by = f"{variable} ({case.clean(bundle)})" if bundle else "certifi's bundle"
    probe = case.probe
    fault = probe.fault
    untrusted = fault is not None and fault.kind is FaultKind.CERTIFICATE
    if fault is not None and fault.phase is Phase.CONNECT and not untrusted:
        problem = "tls.tunnel" if fault.kind is FaultKind.PROXY else "tls.failed"
        return found(problem, probe.said, facts)
    seen = _look(case, facts)
    described = ""
    if seen is not None:
        described = f"certificate of {facts['subject']} by {facts['issuer']}"
    if fault is not None and untrusted:
        problem, reason = _why(fault)
        text = f"{reason}: {described or 'the certificate could not be read'}"
        if seen and problem in {"tls.expired", "tls.not-yet-valid"}:
            text += f", valid from {_day(seen.not_before)} to {_day(seen.not_after)}"
        if problem == "tls.untrusted":
            text += f", not trusted by {trusted_by}"
        return found(problem, text, facts)
    text = f"trusted by {trusted_by}"
    if seen is None:
        return fine(text, facts)
    left = seen.not_after - dt.datetime.now(dt.UTC)
    text = f"{facts['version']}, {described}, {text}, until {_day(seen.not_after)}"
    return found("tls.expires-soon", text, facts) if left < _SOON else fine(text, facts)


def speaks_tls(case: Case) -> bool:
    """Whether a port that was spoken to without TLS would have liked it better."""
    if case.is_tls or case.route.proxy is not None:
        return False
    guard = case.guard()
    with contextlib.ExitStack() as opened:
        opened.callback(guard.release)
        try:
            sock = opened.enter_context(
                connect(case.addresses, guard, source=None, options=[])
            )
            sock.settimeout(case.seconds)
            opened.enter_context(
                _untrusting().wrap_socket(sock, server_hostname=case.host)
            )
        except ssl.SSLError as error:
            # An alert: only who speaks TLS says in TLS what it does not like.
            return (error.reason or "").startswith(("TLSV1", "SSLV3_ALERT"))
        except (OSError, ValueError, Fault):
            return False
    return True


def _untrusting() -> ssl.SSLContext:
    """Return what shows a certificate, and is of no use for anything else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _unusable(bundle: Path) -> str | None:
    """Say what is wrong with a bundle of certificates, if anything is."""
    if not bundle.exists():
        return "does not exist"
    try:
        if bundle.is_file():
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except OSError:
        return "holds no certificates that can be read"
    return None


def _look(case: Case, facts: dict[str, Any]) -> Certificate | None:
    """Add what the certificate says to the facts, if it can be seen."""
    guard = case.guard()
    with contextlib.ExitStack() as opened:
        opened.callback(guard.release)
        try:
            sock = opened.enter_context(
                connect(case.addresses, guard, source=None, options=[])
            )
            if case.route.proxy is not None:
                _tunnel(case, sock)
            sock.settimeout(case.seconds)
            wrapped = opened.enter_context(
                _untrusting().wrap_socket(sock, server_hostname=case.host)
            )
            seen = read_certificate(wrapped.getpeercert(binary_form=True) or b"")
        except (OSError, ValueError, Fault):
            return None
        facts["version"] = wrapped.version()
    facts["subject"] = case.clean(seen.subject)
    facts["issuer"] = case.clean(seen.issuer)
    facts["not_before"] = seen.not_before.isoformat()
    facts["not_after"] = seen.not_after.isoformat()
    return seen


def _tunnel(case: Case, sock: socket.socket) -> None:
    """Ask the proxy for a way to the server.

    Raises:
        OSError: It gives none.
    """
    parts = urlsplit(case.route.proxy or "")
    if parts.scheme != "http":
        raise OSError("a proxy over TLS is left to the library's own connection")
    host = f"[{case.host}]" if ":" in case.host else case.host
    place = f"{host}:{case.port}"
    head = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        head.append(f"Proxy-Authorization: Basic {_base64(login)}")
    end = case.now() + case.seconds
    sock.settimeout(case.seconds)
    sock.sendall("\r\n".join([*head, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        # Byte by byte: what follows the answer belongs to the server.
        byte = sock.recv(1)
        if not byte or case.now() > end:
            raise OSError("no answer to CONNECT")
        answer += byte
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        raise OSError("CONNECT was refused")


def _why(fault: Fault) -> tuple[str, str]:
    """Return the problem, and OpenSSL's words for it."""
    links: list[Any] = [fault.__cause__]
    for link in links:
        if isinstance(link, BaseException):
            reason = getattr(link, "reason", None)
            nearby = (link.__cause__, link.__context__, reason, *link.args)
            links += [each for each in nearby if not _is_in(each, links)]
    # One of them is what made it a fault of this kind.
    error = next(
        link for link in links if isinstance(link, ssl.SSLCertVerificationError)
    )
    problem = _CODES.get(error.verify_code, "tls.untrusted")
    return problem, error.verify_message.rstrip(".")


def _is_in(link: object, links: list[Any]) -> bool:
    return any(link is other for other in links)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _day(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d}"

"""What a check finds, and the table of everything that can be wrong.

A `Finding` that is not ok names its row in `PROBLEMS`, which holds the verdict and the
advice; docs/doctor.md is compared with that table. What goes into a text may come from
a server: it is one printable line before it gets here.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Status(enum.Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A row of `PROBLEMS`.

    Attributes:
        status: How bad it is.
        advice: What to do about it; words in braces are filled in.
    """

    status: Status
    advice: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        status: How it ended.
        text: What was seen, on one line.
        problem: The row of `PROBLEMS`; None if nothing is wrong.
        advice: What to do about it; empty if nothing is.
        facts: What was measured, for programs.
        blocked: It was skipped because of what another check found.
    """

    status: Status
    text: str
    problem: str | None = None
    advice: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    blocked: bool = False

    @property
    def stops(self) -> bool:
        """Whether the checks that build on this one make no sense."""
        return self.blocked or self.status is Status.FAIL


_EMPTY: Final[Mapping[str, Any]] = {}


def fine(text: str, facts: Mapping[str, Any] = _EMPTY) -> Finding:
    """Return that all is well."""
    return Finding(status=Status.OK, text=text, facts=facts)


def skipped(text: str, facts: Mapping[str, Any] = _EMPTY) -> Finding:
    """Return that there is nothing to judge."""
    return Finding(status=Status.SKIPPED, text=text, facts=facts)


def found(
    problem: str,
    text: str,
    facts: Mapping[str, Any] = _EMPTY,
    words: Mapping[str, str] = _EMPTY,
) -> Finding:
    """Return what is wrong: a row of `PROBLEMS`, with its words filled in."""
    row = PROBLEMS[problem]
    return Finding(
        status=row.status,
        text=text,
        problem=problem,
        advice=row.advice.format_map(words),
        facts=facts,
    )


def _warn(advice: str) -> Problem:
    return Problem(Status.WARN, advice)


def _fail(advice: str) -> Problem:
    return Problem(Status.FAIL, advice)


PROBLEMS: Final[Mapping[str, Problem]] = {
    "versions.old": _fail(
        "Install what is missing: pip install --upgrade {requirements}."
    ),
    "versions.python": _fail("Run holystream with Python {minimum} or newer."),
    "versions.openssl": _warn(
        "Use a Python that is built with OpenSSL 3: urllib3 supports nothing older "
        "than 1.1.1, and 1.1.1 gets no more fixes."
    ),
    "key.missing": _fail("Set {variable} to the key that the provider gave you."),
    "key.malformed": _fail("Set {variable} anew; nothing was sent."),
    "base-url.unusable": _fail(
        "Give the URL that the provider documents, as in --base-url {example}."
    ),
    "base-url.endpoint": _fail(
        "Leave {path} out of --base-url: it is added to every request."
    ),
    "base-url.unencrypted": _warn(
        "Use https://, unless the network is your own: everybody on the way can read "
        "prompts and answers."
    ),
    "proxy.unsupported": _fail(
        "Give {variable} an http:// proxy, or name the host in NO_PROXY; SOCKS is not "
        "supported."
    ),
    "dns.unresolved": _fail(
        "Check the spelling of the host, and this machine's name server (in a "
        "container, its DNS settings)."
    ),
    "dns.proxy-unresolved": _fail(
        "Check the proxy's name in {variable}, or unset it if there is no proxy here."
    ),
    "dns.slow": _warn(
        "Every new connection pays for this: check the name servers of this machine, "
        "or run a caching one on it."
    ),
    "tcp.unreachable": _fail(
        "Check port and firewall, and whether the server runs. Where only a proxy "
        "leads out, set HTTPS_PROXY."
    ),
    "tcp.proxy-unreachable": _fail(
        "Check the proxy's host and port in {variable}, and whether it runs; unset it "
        "if there is no proxy here, or name the server in NO_PROXY."
    ),
    "tcp.partly": _warn(
        "Addresses are tried in this order, and each that does not answer delays every "
        "new connection: repair the route (often IPv6), or its entry in the DNS."
    ),
    "tls.bundle": _fail(
        "Let {variable} name a PEM file with the certificates to trust, or unset it."
    ),
    "tls.expired": _fail(
        "Whoever runs the server must renew its certificate, unless the clock of this "
        "machine is wrong."
    ),
    "tls.not-yet-valid": _fail("Set the clock of this machine: it is behind."),
    "tls.untrusted": _fail(
        "If the issuer is your company's proxy or antivirus, append its root "
        "certificate to a copy of the bundle that certifi names, and let "
        "REQUESTS_CA_BUNDLE name the copy (SSL_CERT_FILE is not read). If you do not "
        "know the issuer, send no key."
    ),
    "tls.wrong-host": _fail(
        "Use the host name that the certificate is for; if it is right, something else "
        "answers in the server's place."
    ),
    "tls.tunnel": _fail(
        "The proxy must allow CONNECT to this host and port: check its rules, and the "
        "user name and password in the variable."
    ),
    "tls.failed": _fail(
        "Check that the port speaks TLS 1.2 or newer (http:// instead of https://?), "
        "and that no firewall cuts the handshake."
    ),
    "tls.expires-soon": _warn(
        "Whoever runs the server must renew its certificate by then."
    ),
    "clock.skewed": _warn(
        "Let NTP set the clock of this machine: by a wrong one valid certificates look "
        "expired, and moments in Retry-After are misread where a server sends no Date."
    ),
    "authentication.refused": _fail(
        "Check that {variable} holds a key of this provider, that it is not revoked, "
        "and that --base-url belongs to it."
    ),
    "authentication.key-needed": _fail(
        "Set {variable} to the key that this server expects."
    ),
    "authentication.forbidden": _fail(
        "The server knows the key, or refuses whoever comes from here: check the key's "
        "permissions, IP rules and region."
    ),
    "authentication.no-credit": _fail("Top up the account."),
    "authentication.throttled": _warn(
        "Wait, or send less: the limit of this key or address is reached."
    ),
    "authentication.not-found": _warn(
        "Cannot tell whether the key is good: this server has no list of models, or "
        "--base-url is wrong (it usually ends in /v1). --stream --model NAME tells."
    ),
    "authentication.version-missing": _fail("Use --base-url {right}."),
    "authentication.open": _warn(
        "Cannot tell whether the key is good: the list of models is open to anyone. "
        "--stream --model NAME tells."
    ),
    "authentication.unclear": _warn(
        "Cannot tell whether the key is good; --stream --model NAME tells."
    ),
    "authentication.redirected": _fail(
        "If the target is right, make it the --base-url: a key does not follow."
    ),
    "authentication.redirect-loop": _fail(
        "Check --base-url: behind it there are only redirects."
    ),
    "authentication.tls-port": _fail("Use --base-url {right}: this port speaks TLS."),
    "authentication.not-http": _fail(
        "Check host and port of --base-url: what listens there is no HTTP server."
    ),
    "authentication.not-the-api": _fail(
        "Check --base-url (it usually ends in /v1), and that no login page of a "
        "network or proxy answers in its place."
    ),
    "authentication.proxy": _fail(
        "Put user name and password into the proxy's variable: http://USER:PW@HOST."
    ),
    "authentication.server-error": _fail(
        "The server is in trouble: look at its status page, and try again later."
    ),
    "authentication.no-answer": _fail(
        "The connection was made, but no answer came: look for a firewall or proxy "
        "that drops requests, or try again with a longer --timeout."
    ),
    "buffering.held": _fail(
        "Something on the way collects the answer. nginx: proxy_buffering off, or the "
        "response header X-Accel-Buffering: no. Anywhere: no compression, cache or "
        "scan of text/event-stream (CDN, load balancer, antivirus)."
    ),
    "buffering.lumps": _warn(
        "Something on the way collects a part of the answer at a time: shrink or "
        "switch off its buffer (nginx: proxy_buffering off), and compression with it."
    ),
    "buffering.short": _warn(
        "Cannot tell from so few events: try a model that writes more and does not "
        "think in secret."
    ),
    "buffering.quick": _warn(
        "Cannot tell: a fast server and a buffer look alike here. Try a slower model."
    ),
    "buffering.failed": _fail("See what the message says; the rest of the way works."),
    "doctor.broken": _fail("This is a bug of holystream: please report it."),
}
"""What can be wrong, by the name of the check and of the problem."""

"""What exceptions say of the network that somebody else's code raised, not ours.

The phase in which they were raised is not known, so this says less than faults.py: that
the network failed, and so may work the next time, or that a server answered with an
error status.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import requests
import urllib3.exceptions

from holystream.wire.faults import Answer, chain_of

_OF_THE_NETWORK: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    ssl.SSLError,
    http.client.IncompleteRead,
    http.client.BadStatusLine,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
)
"""What the system says of the network with an OSError that has no class of its own."""


def is_network_error(error: BaseException) -> bool:
    """Tell whether the network failed; a certificate that is not trusted is no such."""
    if isinstance(error, urllib3.exceptions.MaxRetryError):
        return error.reason is not None and is_network_error(error.reason)
    if isinstance(error, _OF_THE_NETWORK):
        return not any(
            isinstance(link, ssl.SSLCertVerificationError) for link in chain_of(error)
        )
    return type(error) is OSError and error.errno in _UNREACHABLE


def answer_of(error: BaseException) -> Answer | None:
    """Return the status and headers that a `requests.HTTPError` complains of."""
    if not isinstance(error, requests.exceptions.HTTPError):
        return None
    response = error.response
    if response is None:
        return None
    return Answer(status=response.status_code, headers=response.headers, body=b"")

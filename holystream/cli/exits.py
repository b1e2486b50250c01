"""Exit statuses: what each means, and which error ends in which.

A script that calls the command can act on these: try again later on 4, ask for help on
3, keep what was printed on 1, 5 and 130. The status follows the class of the error that
ended the stream. An answer that broke off after some of it was printed and could not be
continued is 1, whatever broke it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holystream.errors import (
    AuthenticationError,
    BadRequest,
    ConfigurationError,
    ConnectTimeout,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QueueTimeout,
    QuotaExceeded,
    RateLimited,
    StreamExists,
    StreamTimeout,
    StreamUnknown,
)

if TYPE_CHECKING:
    from holystream.errors import HolystreamError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
LIMITED: Final = 4
TIMEOUT: Final = 5
INTERRUPTED: Final = 130
READER_GONE: Final = 141

_BY_ERROR: Final[tuple[tuple[type[HolystreamError], int], ...]] = (
    (InvalidRequest, USAGE),
    (BadRequest, USAGE),
    (NotFound, USAGE),
    (StreamExists, USAGE),
    (StreamUnknown, USAGE),
    (ConfigurationError, CONFIGURATION),
    (AuthenticationError, CONFIGURATION),
    (PermissionDenied, CONFIGURATION),
    (RateLimited, LIMITED),
    (QuotaExceeded, LIMITED),
    (StreamTimeout, TIMEOUT),
    (ConnectTimeout, TIMEOUT),
    (QueueTimeout, TIMEOUT),
)
"""The first class that an error is an instance of; `FAILED` for all others."""

_MEANINGS: Final = {
    DONE: "done: the answer is complete",
    FAILED: "the answer broke off, no connection, or any other failure",
    USAGE: "wrong arguments or input, or the API found the request wrong",
    CONFIGURATION: "configuration, journal or API key: missing, refused, not permitted",
    LIMITED: "rate limit, or no credit left",
    TIMEOUT: "a timeout or the deadline passed",
    INTERRUPTED: "Ctrl-C; what had arrived was printed",
    READER_GONE: "whoever read the output left (as in: | head)",
}

_REWORDED: Final = (
    (" or pass api_key=", ""),
    (", or the argument api_key=", ""),
    ("base_url=", "--base-url"),
    ("base_url", "--base-url"),
    ("model=", "--model"),
    ("deadline=", "--deadline"),
    ("Timeouts.connect=", "--timeout "),
    ("Timeouts.first_token=", "--timeout "),
    ("Timeouts.idle=", "--timeout "),
    ("Timeouts.token_idle=", ""),
    ("allow_http=True", "--allow-http"),
    (
        ": pass the text that you have as partial_text=, not its length, or take the ",
        ": leave --after out, and take the ",
    ),
    (": pass the text that you have as partial_text=", ""),
    ("client.resume()", "`holystream resume`"),
    ("stream_id=", "--stream-id "),
    ("provider=", "--provider "),
    ("after=", "--after "),
)
"""Names of the library that have another one on the command line."""


def exit_status(error: HolystreamError) -> int:
    """Return the exit status for a command that ended in ``error``."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)


def reworded(message: str) -> str:
    """Return a message of the library in the words of the command line."""
    for ours, theirs in _REWORDED:
        message = message.replace(ours, theirs)
    return message


def table() -> str:
    """Return the statuses and their meanings, for ``--help``."""
    rows = (f"  {code:>3}  {meaning}" for code, meaning in _MEANINGS.items())
    return "\n".join(("exit status:", *rows))

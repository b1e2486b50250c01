"""One line of log for each attempt and each stream, on the logger "holystream".

A line holds what a record holds: names and numbers. Names may come from a server, such
as the id of a request; they are shown printable and short.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Final

from holystream.telemetry.collecting import checked
from holystream.telemetry.records import AttemptRecord, StreamRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.events import Usage
    from holystream.telemetry.collecting import Telemetry

VARIABLE: Final = "HOLYSTREAM_LOG"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""What the variable may say, beside "off" and nothing."""

_ALSO: Final = {
    "warn": logging.WARNING,
    "fatal": logging.CRITICAL,
    **dict.fromkeys(("1", "true", "yes", "on"), logging.INFO),
    **{str(level): level for level in LEVELS.values()},
}
"""What is said elsewhere, and meant for one of these."""
_OFF: Final = frozenset({"", "off", "0", "false", "no", "none"})
_told: set[str] = set()

_LONGEST: Final = 80
_SECRET: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:sk|rk|hs)-[\w*-]{8,}|(?<=Bearer )\S+|(?<=://)[^\s/@]+(?=@)",
    re.ASCII,
)
"""What looks like a key, or like the credentials of a URL."""

_log = logging.getLogger("holystream")
# Guards the handlers of the logger against two clients that are made at once.
_handlers_lock = threading.Lock()


def log_from_environment(
    telemetry: Telemetry, environ: Mapping[str, str] = os.environ
) -> None:
    """Log as the environment variable ``HOLYSTREAM_LOG`` asks; nothing without it.

    It sets the level of the logger "holystream", and gives it a handler to stderr
    unless the program has set up logging. To be called when a client is made.

    Args:
        telemetry: Tells of the attempts and streams.
        environ: The environment.

    Warns:
        RuntimeWarning: The variable says something else; it is passed over. Once.
    """
    said = environ.get(VARIABLE, "").strip().lower()
    if said in _OFF:
        return
    level = LEVELS.get(said) or _ALSO.get(said)
    if level is None:
        # Not an error: it would end programs that never asked for a log.
        if said not in _told:
            _told.add(said)
            warnings.warn(
                f"{VARIABLE} is {said[:20]!r}, and is passed over: it may be "
                f"{', '.join(LEVELS)} or off",
                RuntimeWarning,
                # Whoever makes a client, which has a builder made, which calls this.
                stacklevel=4,
            )
        return
    with _handlers_lock:
        if not _is_set_up():
            handler = _ToStderr()
            handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
            _log.addHandler(handler)
        _log.setLevel(level)
    log_records(telemetry)


def log_records(telemetry: Telemetry) -> Callable[[], None]:
    """Log each attempt and each stream from now on: once, however often it is asked.

    A stream that ends with an error is a warning. Other streams, and attempts that
    failed, are infos; other attempts are for debugging.

    Returns:
        Ends it, whoever asked for it.

    Raises:
        ConfigurationError: It is not a client's telemetry.
    """
    return checked(telemetry).set_hook(_log_record, _log_record)


def line(record: AttemptRecord | StreamRecord) -> str:
    """Return a record as one printable line, without what looks like a key."""
    if isinstance(record, AttemptRecord):
        said = (
            f"attempt {record.number} of stream {_shown(record.stream_id)} "
            f"{record.outcome}"
        )
        facts = {
            "error": record.error_type,
            "verdict": record.verdict,
            "phase": record.phase,
            "strategy": record.strategy,
            "delay": _seconds(record.delay),
            "connect": _seconds(record.connect),
            "first_content": _seconds(record.first_content),
        }
    else:
        outcome = "failed" if record.outcome == "error" else record.outcome
        said = f"stream {_shown(record.stream_id)} {outcome}"
        facts = {
            "error": record.error_type,
            "finish_reason": record.finish_reason,
            "guarantee": record.guarantee,
            "attempts": str(record.attempts),
            "interruptions": str(record.interruptions),
            "strategies": ",".join(record.strategies) or None,
            "tokens": _tokens(record.total_usage or record.usage),
            "ttft": _seconds(record.ttft),
            "request_id": record.request_id,
        }
    facts |= {
        "queued": _seconds(record.queued),
        "duration": _seconds(record.duration),
        "provider": record.provider,
        "endpoint": record.endpoint,
        "model": record.model,
    }
    shown = (f"{key}={_shown(value)}" for key, value in facts.items() if value)
    return " ".join([said, *shown])


def _log_record(record: AttemptRecord | StreamRecord) -> None:
    if isinstance(record, StreamRecord):
        level = logging.WARNING if record.outcome == "error" else logging.INFO
    else:
        level = logging.INFO if record.outcome == "failed" else logging.DEBUG
    if _log.isEnabledFor(level):
        _log.log(level, "%s", line(record))


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.3f}s"


def _tokens(usage: Usage | None) -> str | None:
    return f"{usage.prompt_tokens}+{usage.completion_tokens}" if usage else None


def _shown(name: str) -> str:
    name = _SECRET.sub("***", name)[:_LONGEST]
    # No space either: it would look like the next fact.
    return "".join(char if char.isprintable() and char != " " else "?" for char in name)


def _is_set_up() -> bool:
    """Tell whether what we log goes anywhere already."""
    logger: logging.Logger | None = _log
    while logger is not None:
        if any(not isinstance(each, logging.NullHandler) for each in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class _ToStderr(logging.Handler):
    """Writes to what stderr is at the moment, if there is one. Thread-safe."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as every handler of logging
            self.handleError(record)


class _Formatter(logging.Formatter):
    """Takes out what looks like a key, of tracebacks too. Thread-safe."""

    def format(self, record: logging.LogRecord) -> str:
        return _SECRET.sub("***", super().format(record))

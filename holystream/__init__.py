"""LLM text that arrives: a blocking client that tells the truth about what it has.

A first stream::

    import holystream
    client = holystream.Client()
    with client.stream("Why is the sky blue?", model="deepseek-v3.2") as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
"""

from __future__ import annotations

import logging

from holystream.building import ClientMetrics
from holystream.client import Client
from holystream.clocks import CancelToken, Timeouts
from holystream.decorators.retried import ResumePoint, RetriedStream
from holystream.decorators.retry_stream import retry_stream
from holystream.driven import StreamState
from holystream.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    CertificateError,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    ConnectTimeout,
    ContentFiltered,
    ContextLengthExceeded,
    DeadlineExceeded,
    Fenced,
    FirstTokenTimeout,
    GuaranteeNotMet,
    HolystreamError,
    IdleTimeout,
    IncompleteAnswer,
    InvalidAPIKey,
    InvalidRequest,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    JournalVersion,
    LimitExceeded,
    MalformedEvent,
    ModelNotFound,
    NotAnEventStream,
    NotFound,
    Overloaded,
    PermissionDenied,
    Phase,
    PoolError,
    ProtocolError,
    ProxyFailed,
    QueueFull,
    QueueTimeout,
    QuotaExceeded,
    RateLimited,
    RestartRequired,
    ResumeTokenInvalid,
    ServerError,
    StreamBusy,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamExists,
    StreamFinished,
    StreamInterrupted,
    StreamInUse,
    StreamTimeout,
    StreamUnknown,
    TokenIdleTimeout,
    UnexpectedRedirect,
    Verdict,
)
from holystream.event_source import EventSource
from holystream.events import (
    Choice,
    Completion,
    Connected,
    Event,
    Failed,
    Finished,
    Guarantee,
    Interrupted,
    InterruptionCost,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    Started,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageReport,
    Waiting,
)
from holystream.feed import Comment
from holystream.hooks import Hooks
from holystream.journal import Journal, MemoryJournal, open_journal
from holystream.mapping import Map, MapItem, MapResult, StreamOptions
from holystream.providers.profile import Prefill, Profile
from holystream.providers.registry import profile
from holystream.resilience.budget import RetryBudget
from holystream.resilience.circuit import BreakerPolicy
from holystream.resilience.endpoints import Endpoint
from holystream.resilience.holders import HeldPermit, PermitHolder
from holystream.resilience.pool import Permit, PoolStatistics, PrioritySemaphore
from holystream.resilience.retry import RetryPolicy
from holystream.stream import Stream, TextStream
from holystream.telemetry import AttemptRecord, StreamRecord, Telemetry
from holystream.wire.sse import ServerSentEvent

__all__ = [
    "APIError",
    "AttemptRecord",
    "AuthenticationError",
    "BadRequest",
    "BreakerPolicy",
    "CancelToken",
    "CertificateError",
    "Choice",
    "CircuitOpen",
    "Client",
    "ClientMetrics",
    "Comment",
    "Completion",
    "ConfigurationError",
    "ConnectTimeout",
    "Connected",
    "ConnectionFailed",
    "ConnectionLost",
    "ContentFiltered",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "Endpoint",
    "Event",
    "EventSource",
    "Failed",
    "Fenced",
    "Finished",
    "FirstTokenTimeout",
    "Guarantee",
    "GuaranteeNotMet",
    "HeldPermit",
    "HolystreamError",
    "Hooks",
    "IdleTimeout",
    "IncompleteAnswer",
    "Interrupted",
    "InterruptionCost",
    "InvalidAPIKey",
    "InvalidRequest",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "JournalVersion",
    "LimitExceeded",
    "Logprobs",
    "MalformedEvent",
    "Map",
    "MapItem",
    "MapResult",
    "MemoryJournal",
    "ModelNotFound",
    "NotAnEventStream",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Permit",
    "PermitHolder",
    "Phase",
    "PoolError",
    "PoolStatistics",
    "Prefill",
    "PrioritySemaphore",
    "Profile",
    "ProtocolError",
    "ProxyFailed",
    "QueueFull",
    "QueueTimeout",
    "QuotaExceeded",
    "RateLimited",
    "ReasoningDelta",
    "RefusalDelta",
    "RestartRequired",
    "ResumePoint",
    "ResumeTokenInvalid",
    "Resumed",
    "RetriedStream",
    "RetryBudget",
    "RetryPolicy",
    "Rewound",
    "ServerError",
    "ServerSentEvent",
    "Started",
    "Stream",
    "StreamBusy",
    "StreamCancelled",
    "StreamClosed",
    "StreamError",
    "StreamEvent",
    "StreamExists",
    "StreamFinished",
    "StreamInUse",
    "StreamInterrupted",
    "StreamOptions",
    "StreamRecord",
    "StreamState",
    "StreamTimeout",
    "StreamUnknown",
    "Telemetry",
    "TextDelta",
    "TextStream",
    "Timeouts",
    "TokenIdleTimeout",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "UnexpectedRedirect",
    "Usage",
    "UsageReport",
    "Verdict",
    "Waiting",
    "__version__",
    "open_journal",
    "profile",
    "retry_stream",
]

logging.getLogger("holystream").addHandler(logging.NullHandler())


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib import metadata  # noqa: PLC0415 - reads the disk: only if asked

        return metadata.version("holystream")
    raise AttributeError(f"module 'holystream' has no attribute {name!r}")

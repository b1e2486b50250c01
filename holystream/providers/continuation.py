"""Requests that go on with an answer which a server keeps, or which it has begun.

How each host wants to be asked is in its profile; what may be asked when is decided by
the strategies (resume/). A request that cannot be asked so is None.
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from holystream.providers.base import ChatRequest, Cursor
    from holystream.providers.profile import Profile

__all__ = ["behind", "continued", "conversing", "prefilled"]

CONVERSATION_HEADER: Final = "X-Conversation-Id"
"""llama-server keeps an answer under this name (llama.cpp#23226)."""
STREAM_PATH: Final = "/stream"
"""Where llama-server sends the rest of it, from a byte on."""
GO_ON: Final = (
    "Your previous response was interrupted and ended with {tail}. "
    "Continue from where you left off."
)
"""The wording that Anthropic documents under "Error recovery" of streaming messages."""
_QUOTED: Final = 100
_TOKEN: Final = re.compile(r"[\u2e80-\U0010ffff]{1,4}|[^\s\u2e80-\U0010ffff]{1,16}")
"""No less than a token: a word, or as much of a script without words."""
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def conversing(
    request: ChatRequest, profile: Profile, conversation: str
) -> ChatRequest:
    """Name the answer, where the host keeps it under a name of the client's."""
    if profile.cursor is None:
        return request
    return dataclasses.replace(
        request,
        conversation=conversation,
        headers={**request.headers, CONVERSATION_HEADER: conversation},
    )


def behind(request: ChatRequest, cursor: Cursor) -> ChatRequest:
    """Ask for what lies behind a cursor."""
    if cursor.conversation:
        query = urllib.parse.urlencode(
            {"conv_id": cursor.conversation, "from": cursor.offset}
        )
        return dataclasses.replace(
            request,
            method="GET",
            path=f"{STREAM_PATH}?{query}",
            body={},
            headers={
                name: value
                for name, value in request.headers.items()
                if name != CONVERSATION_HEADER
            },
            conversation=cursor.conversation,
        )
    return dataclasses.replace(request, last_event_id=cursor.last_event_id)


def prefilled(
    request: ChatRequest, profile: Profile, prefix: str, *, written: int
) -> ChatRequest | None:
    """Ask to go on with ``prefix``, in the host's own spelling."""
    prefill = profile.prefill
    if prefill is None:
        return None
    if not prefix:
        return request
    said = prefix
    messages = list(request.body["messages"])
    begun = messages[-1] if messages[-1].get("role") == "assistant" else None
    if begun is not None:
        # The caller has begun the answer himself.
        if not isinstance(begun.get("content"), str) or begun.get("tool_calls"):
            return None
        messages.pop()
        if not prefill.echo:
            prefix = begun["content"] + prefix
        elif not prefix.startswith(begun["content"]):
            # It comes back before what is new, and has not come whole.
            return None
        else:
            said = prefix[len(begun["content"]) :]
    message: dict[str, Any] = {
        **(begun or {"role": "assistant"}),
        "content": prefix,
    }
    changes: dict[str, Any] = {}
    if prefill.spelling == "prefix":
        message["prefix"] = True
    elif prefill.spelling == "continue_final_message":
        changes = {"continue_final_message": True, "add_generation_prompt": False}
    return _shortened(
        dataclasses.replace(
            request, path=prefill.path or request.path, begun=message["content"]
        ),
        {**request.body, **changes, "messages": [*messages, message]},
        _tokens(said, written),
    )


def continued(request: ChatRequest, text: str, *, written: int) -> ChatRequest | None:
    """Ask in a turn of its own to go on behind ``text``."""
    messages = request.body["messages"]
    if messages[-1].get("role") == "assistant":
        return None
    ask = GO_ON.format(tail=json.dumps(text[-_QUOTED:], ensure_ascii=False))
    turns = [
        {"role": "assistant", "content": text},
        {"role": "user", "content": ask},
    ]
    return _shortened(
        request,
        {**request.body, "messages": [*messages, *turns]},
        _tokens(text, written),
    )


def _tokens(text: str, deltas: int) -> int:
    """Return how many tokens have surely been written.

    A delta is no token where a proxy cuts it up as it likes. What was taken off too
    much would be missing; a few tokens more than were asked for do no harm.
    """
    return min(deltas, sum(1 for _ in _TOKEN.finditer(text)))


def _shortened(
    request: ChatRequest, body: dict[str, Any], written: int
) -> ChatRequest | None:
    """Take what was written off the tokens that the answer may have."""
    for name in _LIMITS:
        if isinstance(limit := body.get(name), int):
            if limit <= written:
                return None
            body[name] = limit - written
    return dataclasses.replace(request, body=body)

"""The event-stream algorithm of the HTML standard, written to be obviously right.

It takes a whole body, decodes it, splits it with one regular expression and follows the
standard word by word (https://html.spec.whatwg.org/multipage/server-sent-events.html,
9.2.6). It shares no code with the package; what differs from the standard is `at_end`,
the one deviation, and that a ``retry`` of 10**18 or more is no number.
"""

import json
import re
from dataclasses import dataclass


@dataclass
class Stream:
    """The state at the end of the bytes: ``events`` are (data, event, id, retry)."""

    events: list
    last_event_id: str
    reconnection_time: int | None


def interpret(body, *, last_event_id="", at_end=False):  # noqa: C901 - the standard in one piece
    """Interpret the body; with `at_end` it has ended and the deviation applies."""
    text = body.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    *lines, rest = re.split("\r\n|\n|\r", text)
    if at_end and rest.startswith("data:"):
        lines.append(rest)
    stream = Stream([], last_event_id, None)
    data, event, id_buffer, retry = "", "", last_event_id, None

    def dispatch():
        nonlocal data, event, retry
        stream.last_event_id = id_buffer
        if data:
            data = data.removesuffix("\n")
            stream.events.append((data, event, stream.last_event_id, retry))
        data, event, retry = "", "", None

    for line in lines:
        if line == "":
            dispatch()
        elif line.startswith(":"):
            pass
        else:
            field, colon, value = line.partition(":")
            if colon and value.startswith(" "):
                value = value[1:]
            if field == "event":
                event = value
            elif field == "data":
                data += value + "\n"
            elif field == "id":
                if "\0" not in value:
                    id_buffer = value
            elif field == "retry" and re.fullmatch("0*[0-9]{1,18}", value):
                retry = stream.reconnection_time = int(value)
    if at_end and is_whole(data.removesuffix("\n")):
        dispatch()
    return stream


def is_whole(data):
    """Tell whether data without its blank line counts at the end of a body."""
    if data.strip() == "[DONE]":
        return True
    try:
        return isinstance(json.loads(data), (dict, list, str))
    except (ValueError, RecursionError):
        return False

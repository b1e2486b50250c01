"""The lines of a file of prompts: each is an item of a map, or a mistake."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holystream.errors import InvalidRequest
from holystream.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN: Final = "-"

_OPTIONS: Final = (
    *("model", "temperature", "top_p", "max_tokens", "seed", "stop"),
    *("tools", "tool_choice", "response_format", "extra_body"),
)
"""What a line may say of its own request."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An item as it stands in the file.

    Attributes:
        index: Which item it is, from 0.
        number: Which line it is on, from 1.
        digest: By what the line is known again.
        id: Its own id: a text, a number or None.
        prompt: What to ask; None where the line is wrong.
        options: What it says of its request.
        mistake: Why it cannot be asked, or None.
    """

    index: int
    number: int
    digest: str
    id: Any = None
    prompt: Any = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    mistake: InvalidRequest | None = None

    @property
    def key(self) -> str:
        """By what its result is found: its own id if it has one."""
        return key_of(self.index, self.id)


def key_of(index: int, own: Any) -> str:
    """Return by what the result of an item is found."""
    return f"index {index}" if own is None else f"id {json.dumps(own)}"


def count(path: str) -> int | None:
    """Return how many items a file has; None if it can be read only once."""
    if path == STDIN or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return sum(1 for line in file if line.strip())


def read(path: str) -> Iterator[Line]:
    """Yield the items of a file, as they are asked for.

    Raises:
        OSError: It cannot be read.
        InvalidRequest: An id comes twice.
    """
    seen: dict[str, int] = {}
    index = 0
    for number, raw in enumerate(_lines(path), 1):
        data = raw.strip().removeprefix(b"\xef\xbb\xbf")
        if not data:
            continue
        line = parse(data, index, number)
        if line.id is not None and line.mistake is None:
            if line.key in seen:
                raise InvalidRequest(
                    f"lines {seen[line.key]} and {number} have the same id, "
                    f"{json.dumps(line.id)}: each result needs its own"
                )
            seen[line.key] = number
        index += 1
        yield line


def _lines(path: str) -> Iterator[bytes]:
    if path == STDIN:
        if sys.stdin is not None:
            # Not by its buffer, whose lock a thread would keep when Python ends.
            with open(sys.stdin.fileno(), "rb", closefd=False) as file:
                yield from file
        return
    with Path(path).open("rb") as file:
        yield from file


def parse(data: bytes, index: int, number: int) -> Line:
    """Return the item of a line."""
    digest = hashlib.sha256(data).hexdigest()[:16]
    own = None
    try:
        found = _decoded(data)
        if isinstance(found, dict):
            own = _id(found)
        prompt, options = _request(found)
    except InvalidRequest as mistake:
        return Line(index=index, number=number, digest=digest, id=own, mistake=mistake)
    return Line(
        index=index,
        number=number,
        digest=digest,
        id=own,
        prompt=prompt,
        options=options,
    )


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequest(
            'the line is not JSON: a prompt of its own is written "in quotes"'
        ) from None


def _id(found: dict[str, Any]) -> Any:
    own = found.get("id")
    if own is not None and (not isinstance(own, (str, int)) or isinstance(own, bool)):
        raise InvalidRequest('"id" must be a text or a whole number')
    return own


def _request(found: Any) -> tuple[Any, dict[str, Any]]:
    """Return the prompt and the options of a line.

    Raises:
        InvalidRequest: It is no item.
    """
    if isinstance(found, str):
        return found, {}
    if not isinstance(found, dict):
        raise InvalidRequest('a line is a text, or an object with "prompt"')
    unknown = [name for name in found if name not in _FIELDS]
    if unknown:
        meant = did_you_mean(unknown[0], _FIELDS, shown=json.dumps) or "."
        raise InvalidRequest(
            f"there is no field {json.dumps(unknown[0])}{meant} A line may have "
            f"{', '.join(_FIELDS)}."
        )
    if ("prompt" in found) == ("messages" in found):
        raise InvalidRequest('a line has either "prompt" or "messages"')
    return found.get("prompt", found.get("messages")), {
        name: found[name] for name in _OPTIONS if name in found
    }


_FIELDS: Final = ("id", "prompt", "messages", *_OPTIONS)

"""Where requests go and with which key: checked before anything is sent.

A key that was pasted with its quotes costs an hour when it fails as a 401, and a second
when it is named here; so it is with base URLs, which wire/base_url.py checks. An
`APIKey` never shows itself: only `APIKey.reveal` returns the text, and nothing but the
one place that sets the header should call it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hmac
import re
import urllib.parse
from typing import TYPE_CHECKING, Final

from holystream.errors import ConfigurationError, InvalidAPIKey
from holystream.wire.base_url import check_base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PATH: Final = "/chat/completions"
"""What tutorials show behind a base URL."""

_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"

_PLACEHOLDER: Final = re.compile(
    r"""
    .*\byour[-_ ]?(?:\w+[-_ ])*(?:key|token|secret)\b.*  # your-api-key
    | (?:sk-|hs-)?your[-_].*                             # YOUR_HOLYSHEEP_API_KEY
    | (?:sk-|hs-)?(?:[x*.\u2026]{3,}|x+-[x-]+)           # sk-xxxx, ***, sk-...
    | <.*> | \[.*\] | \{.*\}                            # <key>
    | \$\w+ | \$\{\w+\} | \$\(.*\) | %\w+%               # a variable left as it was
    | change-?_?me | replace-?_?me
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What examples, templates and unset variables leave where the key belongs. Names such
as "test" or "EMPTY" are not among them: local servers are run with those."""

_PRINTABLE: Final = re.compile(r"[!-~]+")

_PROBLEMS: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (
        lambda key: not key.strip(),
        "is empty: set it to the key that the provider gave you",
    ),
    (
        lambda key: "\n" in key or "\r" in key,
        "contains a line break: it was probably read from a file, strip it",
    ),
    (
        lambda key: key != key.strip(),
        "begins or ends with white space: remove it",
    ),
    (
        lambda key: key[0] in _QUOTES or key[-1] in _QUOTES,
        "is wrapped in quotes: remove them",
    ),
    (
        lambda key: key.lower().split()[0] == "bearer",
        'begins with "Bearer": give the key alone, the word is added',
    ),
    (
        _PLACEHOLDER.fullmatch,
        "is a placeholder: put the key that the provider gave you in its place",
    ),
    (
        lambda key: any(char.isspace() for char in key),
        "contains white space: it was probably not copied whole",
    ),
    (
        lambda key: not _PRINTABLE.fullmatch(key),
        "contains characters that no key has, beyond printable ASCII: copy it anew",
    ),
)
"""What can be wrong with a key, and what to say; the first that applies is said."""


class APIKey:
    """A secret that neither `repr`, `str`, a format nor a pickle shows.

    Attributes:
        of_endpoint: It was given to one `Endpoint`, and not to the client.
    """

    __slots__ = ("_text", "of_endpoint")

    def __init__(self, text: str, *, of_endpoint: bool = False) -> None:
        self._text = text
        self.of_endpoint = of_endpoint

    def reveal(self) -> str:
        """Return the key itself, for the header that carries it."""
        return self._text

    def __repr__(self) -> str:
        return "<APIKey>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, APIKey):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("an APIKey cannot be pickled: read it anew where it is needed")


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class Endpoint:
    """One place to send requests to.

    Args:
        base_url: Where the API is, ``/v1`` or the like included.
        key: The key for this origin and no other; None where none is needed.
        name: What messages, events and tokens call it; the host by default.
        region: Where it is, for people and for records.
        priority: Its tier: as long as an endpoint with a lower number can be used,
            this one is not.
        models: The models that it has, as patterns of the shell (``gpt-*``), without
            regard to case; None for any.

    Attributes:
        base_url: As `check_base_url` returned it.
        key: The key, which does not show itself, or None.
        name: What messages, events and tokens call it; never its URL.
        region: Where it is, or None.
        priority: Its tier, the lowest first.
        models: The patterns of its models, or None.

    Raises:
        ConfigurationError: A value cannot be used; the message says why.
        InvalidAPIKey: The key cannot be one.
    """

    base_url: str
    key: APIKey | None
    name: str
    region: str | None
    priority: int
    models: tuple[str, ...] | None

    def __init__(
        self,
        base_url: str,
        *,
        key: APIKey | str | None = None,
        name: str | None = None,
        region: str | None = None,
        priority: int = 0,
        models: Iterable[str] | None = None,
    ) -> None:
        put = object.__setattr__
        for field in dataclasses.fields(self):
            # Shown by a traceback of its own making.
            put(self, field.name, None)
        secret = (
            key
            if key is None or isinstance(key, APIKey)
            else APIKey(key, of_endpoint=True)
        )
        # An error's traceback may be shown with its variables.
        del key
        if secret is not None:
            check_key(secret.reveal(), "key=")
        # Whether a key may go there unencrypted is for the client to say.
        url = check_base_url(
            base_url,
            allow_http=True,
            has_key=False,
            called=f"the base_url of {'an Endpoint' if name is None else called(name)}",
        )
        if url.endswith(_PATH):
            raise ConfigurationError(
                f"base_url ends in {_PATH!r}, which is added to it for each request: "
                f"leave that out (it is {url!r})"
            )
        if name is None:
            name = urllib.parse.urlsplit(url).netloc
        _check_label(name, "name")
        if region is not None:
            _check_label(region, "region")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ConfigurationError(
                f"Endpoint's priority must be a whole number, not {priority!r}"
            )
        put(self, "base_url", url)
        put(self, "key", secret)
        put(self, "name", name)
        put(self, "region", region)
        put(self, "priority", priority)
        put(self, "models", None if models is None else _patterns(models))

    def has(self, model: str) -> bool:
        """Whether it has this model."""
        return self.models is None or any(
            fnmatch.fnmatchcase(model.lower(), pattern.lower())
            for pattern in self.models
        )


def called(name: object) -> str:
    """Return how messages call an endpoint."""
    return f"the endpoint {name!r}"


def _check_label(value: object, field: str) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(
            f"Endpoint's {field} must be a printable str that is not empty, not "
            f"{value!r}"
        )


def _patterns(models: Iterable[object]) -> tuple[str, ...]:
    # A str is an iterable of its letters.
    given = () if isinstance(models, str) else tuple(models)
    patterns = tuple(each for each in given if isinstance(each, str) and each)
    if not patterns or len(patterns) < len(given):
        raise ConfigurationError(
            "Endpoint's models must be the names or patterns of one model or more, "
            f"such as ['gpt-*'], not {models!r}"
        )
    return patterns


def check_key(value: str, source: str) -> APIKey:
    """Return a key that can be one.

    Args:
        value: The key's text.
        source: Where it came from, for the message: ``HOLYSHEEP_API_KEY``.

    Raises:
        InvalidAPIKey: It cannot be a key. The message does not show it.
    """
    if not isinstance(value, str):
        raise InvalidAPIKey(
            f"the API key from {source} must be a str, not {type(value).__name__}"
        )
    complaint = next((text for applies, text in _PROBLEMS if applies(value)), None)
    key = APIKey(value)
    # An error's traceback may be shown with its variables.
    del value
    if complaint is not None:
        raise InvalidAPIKey(f"the API key from {source} {complaint}")
    return key

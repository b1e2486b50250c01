"""What one host can do, what its models differ in, and how to ask it: data, checked.

A `Profile` is a plain value. Those that come with the package are in ``profiles.toml``
and are read by `holystream.providers.registry`; a caller may make others, or change
one with ``dataclasses.replace``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from holystream.errors import ConfigurationError
from holystream.wire.base_url import check_base_url

__all__ = ["Prefill", "Profile"]

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPELLINGS: Final = ("prefix", "continue_final_message", "trailing")
_SPELLED: Final = frozenset({"max_tokens", "seed"})
_REPEATING: Final = frozenset({"temperature", "seed"})
_BY_MODEL: Final = frozenset(
    {
        "cursor",
        "early_stop",
        "failed_finish_reasons",
        "prefill",
        "query",
        "repeatable_by",
        "spellings",
        "usage_option",
    }
)
"""What may differ from model to model."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """How a host is asked to go on with an answer that it has begun.

    Attributes:
        spelling: "prefix": the last message is the assistant's, with ``prefix: true``;
            "continue_final_message": with that field, and ``add_generation_prompt``
            false; "trailing": the last message is the assistant's, and that is all.
        echo: What was sent may come back at the start of the answer.
        path: Where to POST such a request, if not to the profile's own path.
    """

    spelling: Literal["prefix", "continue_final_message", "trailing"]
    echo: bool = False
    path: str | None = None

    def __post_init__(self) -> None:
        if self.spelling not in _SPELLINGS:
            raise _wrong("prefill.spelling", f"one of {_listed(_SPELLINGS)}")
        if self.path is not None:
            _check_path("prefill.path", self.path)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one host can do and how it behaves.

    Attributes:
        name: The name that ``Client(provider=...)`` takes, and that messages show.
        key_variable: The environment variable that holds its API key.
        base_url: Its default base URL; None where the caller must give one.
        base_url_example: What such a URL looks like, for the message that asks for it.
        path: What is POSTed to, behind the base URL; ``{model}`` is the model's name.
        query: The query behind the path.
        key_required: Whether it cannot be used without a key.
        key_header: The header that carries the key: ``Authorization`` as a bearer
            token, any other as it is.
        usage_option: It understands ``stream_options.include_usage``.
        early_stop: It may send a finish reason before the answer's end, so that
            completion also needs ``[DONE]`` or a clean end of the body.
        failed_finish_reasons: Finish reasons that mean the answer broke off.
        spellings: How it spells ``max_tokens`` and ``seed``, where otherwise.
        repeatable_by: What makes the same request likely to give the same answer, so
            that it is worth a replay: "temperature" (0), "seed", both or none. A
            replay compares every character; this only decides whether to try.
        prefill: How it goes on with an answer it has begun; None where it does not.
        cursor: How it sends the rest of an answer that it keeps, beside the ids of
            server-sent events, which every host may give: "llama-server" by the
            bytes received; None where it does not.
        models: What is different for models whose name fits a pattern, by pattern;
            see `for_model`.
        source: Where these facts are from.
        checked: The day on which they were looked up.

    Raises:
        ConfigurationError: A value is wrong.
    """

    name: str
    key_variable: str
    base_url: str | None = None
    base_url_example: str = "http://localhost:8000/v1"
    path: str = "/chat/completions"
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key_required: bool = True
    key_header: str = "Authorization"
    usage_option: bool = True
    early_stop: bool = False
    failed_finish_reasons: frozenset[str] = frozenset(
        {"error", "abort", "insufficient_system_resource"}
    )
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    repeatable_by: frozenset[str] = _REPEATING
    prefill: Prefill | None = None
    cursor: Literal["llama-server"] | None = None
    models: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    source: str = ""
    checked: str = ""

    def __post_init__(self) -> None:
        self._check_kinds()
        self._freeze_names("failed_finish_reasons")
        self._freeze_names("repeatable_by")
        _check_path("path", self.path)
        if self.base_url is not None:
            check_base_url(
                self.base_url,
                # Whether a key may go there unencrypted is for the client to say.
                allow_http=True,
                has_key=False,
                called="a Profile's base_url",
            )
        if not _VARIABLE.fullmatch(self.key_variable):
            # Not shown: it may be the key itself.
            raise _wrong(
                "key_variable",
                "the name of an environment variable, of letters, digits and '_', such "
                "as 'MY_API_KEY': not the key itself",
            )
        if not _HEADER_NAME.fullmatch(self.key_header):
            raise _wrong("key_header", "the name of a header")
        if not self.repeatable_by <= _REPEATING:
            raise _wrong("repeatable_by", f"some of {_listed(_REPEATING)}")
        if not self.spellings.keys() <= _SPELLED:
            raise _wrong("spellings", f"for some of {_listed(_SPELLED)}")
        self._check_models()

    def for_model(self, model: str) -> Profile:
        """Return the profile of one model behind this host.

        A pattern is one of the shell's (``*``, ``?``, ``[a-z]``), without regard to
        case; it is compared with the whole name and with what follows its last slash,
        so that ``gpt-5*`` fits "openai/gpt-5-mini". Where several fit, the later one
        has the last word.
        """
        changes: dict[str, Any] = {}
        name = model.lower()
        for pattern, changed in self.models.items():
            if any(
                fnmatch.fnmatchcase(each, pattern.lower())
                for each in (name, name.rpartition("/")[2])
            ):
                changes |= changed
        if not changes:
            return self
        return dataclasses.replace(self, models={}, **changes)

    def target(self, model: str) -> str:
        """Return the path and query to POST to, for the base URL to precede."""
        path = self.path.replace("{model}", urllib.parse.quote(model, safe=""))
        return f"{path}?{urllib.parse.urlencode(self.query)}" if self.query else path

    def key_headers(self, key: str) -> dict[str, str]:
        """Return the header that carries this key."""
        is_bearer = self.key_header.lower() == "authorization"
        return {self.key_header: f"Bearer {key}" if is_bearer else key}

    def _check_kinds(self) -> None:
        for fields, is_right, expected in _KINDS:
            for field in fields:
                if not is_right(getattr(self, field)):
                    raise _wrong(field, expected)

    def _freeze_names(self, field: str) -> None:
        """Take any collection of names: data files and callers have lists."""
        names = getattr(self, field)
        if isinstance(names, str) or not _is(names, Iterable):
            raise _wrong(field, "a set of texts")
        frozen = frozenset(names)
        if not all(_is(name, str) for name in frozen):
            raise _wrong(field, "a set of texts")
        object.__setattr__(self, field, frozen)

    def _check_models(self) -> None:
        for pattern, changes in self.models.items():
            if not _is(pattern, str) or not _is(changes, Mapping):
                raise _wrong("models", "a mapping from patterns to changes")
            if not changes.keys() <= _BY_MODEL:
                raise _wrong(f"models[{pattern!r}]", f"some of {_listed(_BY_MODEL)}")
            # Whoever wrote it learns of a mistake now, not when a model first fits.
            dataclasses.replace(self, models={}, **changes)


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(text, str) for pair in value.items() for text in pair
    )


_KINDS: Final[tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...]] = (
    (
        ("name", "key_variable", "base_url_example", "key_header"),
        lambda value: isinstance(value, str) and value != "",
        "a text",
    ),
    (
        ("base_url",),
        lambda value: value is None or isinstance(value, str),
        "a text or None",
    ),
    (
        ("key_required", "usage_option", "early_stop"),
        lambda value: isinstance(value, bool),
        "True or False",
    ),
    (
        ("query", "spellings"),
        _is_text_mapping,
        "a mapping from text to text",
    ),
    (
        ("cursor",),
        lambda value: value in (None, "llama-server"),
        "'llama-server' or None",
    ),
    (
        ("prefill",),
        lambda value: value is None or isinstance(value, Prefill),
        "a Prefill or None",
    ),
    (("models",), lambda value: isinstance(value, Mapping), "a mapping from patterns"),
)
"""What each field must be at run time: not every caller has mypy."""


def _is(value: object, kind: type | Any) -> bool:
    """Check at run time what the annotations promise."""
    return isinstance(value, kind)


def _check_path(field: str, path: object) -> None:
    if not isinstance(path, str) or not re.fullmatch(r"/[!-~]*", path):
        raise _wrong(field, "a path that begins with a slash")
    if "?" in path or "#" in path:
        raise _wrong(field, "a path without '?' or '#': use query")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _wrong(field: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"a Profile's {field} must be {expected}")

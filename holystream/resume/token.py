"""The resume token: how to go on without a journal, in a text that holds no content.

It carries digests of the request and of the delivered text, the numbers of the request,
the place where the server could go on and the configured name of the endpoint. It holds
no URL, no key, no prompt and no text; whoever resumes brings those along.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holystream.errors import ResumeTokenInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.providers.base import ChatRequest
    from holystream.providers.profile import Profile
    from holystream.resume.checkpoint import Checkpoint
    from holystream.transcript import Transcript

_PREFIX: Final = "hst1."
_CHECK_BYTES: Final = 6
_DIGEST_BYTES: Final = 16
_LONGEST: Final = 65536
_NAME: Final = re.compile(r"[!-~]{1,128}")
_NUMBERS: Final = ("temperature", "top_p", "max_tokens", "seed", "n")
"""Arguments of a request that are numbers."""


class ResumeToken(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a token says.

    Attributes:
        stream_id: The stream's id, which the one that goes on has too.
        provider: The name of the profile.
        endpoint: The configured name of the endpoint.
        model: The model.
        numbers: What the request says in numbers: temperature and the like.
        deterministic: The same request gives the same answer.
        request: The digest of the request.
        length: Code points of the delivered text.
        text: The digest of the delivered text.
        resume: The names of the ways in which the answer may go on.
        min_guarantee: The least that the answer must be worth, or None.
        checkpoint: Where the exchange stood.
    """

    stream_id: str
    provider: str
    endpoint: str
    model: str
    numbers: dict[str, int | float]
    deterministic: bool
    request: bytes
    length: int
    text: bytes
    resume: tuple[str, ...]
    min_guarantee: int | None
    checkpoint: bytes

    def encode(self) -> str:
        """Return the token as a text of letters, digits and ``._-``."""
        data = msgspec.msgpack.encode(self)
        body = base64.urlsafe_b64encode(data + _check(data)).rstrip(b"=")
        return _PREFIX + body.decode()

    @classmethod
    def decode(cls, token: str) -> ResumeToken:
        """Return what a token says.

        Raises:
            ResumeTokenInvalid: It is none, or not whole.
        """
        data = _unpacked(token)
        if data is not None:
            try:
                found = _decoder.decode(data)
            except (ValueError, msgspec.MsgspecError):
                pass
            else:
                # It becomes part of a header.
                if _NAME.fullmatch(found.stream_id):
                    return found
        raise ResumeTokenInvalid(
            "this is not a resume token, or not a whole one: pass stream.resume_token "
            "as it was"
        )

    def arguments(self, spellings: Mapping[str, str]) -> dict[str, Any]:
        """Return the numbers as arguments of a request that spells them so."""
        return {name: self.numbers.get(spellings.get(name, name)) for name in _NUMBERS}

    def check(self, request: ChatRequest, partial_text: str) -> None:
        """Refuse a request or a text that the token was not made for.

        Raises:
            ResumeTokenInvalid: They do not belong together.
        """
        if request_digest(request) != self.request:
            raise ResumeTokenInvalid(
                "the token was made for another request: pass the same messages=, and "
                "the same stop=, tools=, tool_choice=, response_format= and "
                "extra_body= if the stream had them"
            )
        if len(partial_text) != self.length or text_digest(partial_text) != self.text:
            raise ResumeTokenInvalid(
                f"the token was made for another text, of {self.length} characters: "
                f"partial_text= has {len(partial_text)}; take both from the stream "
                "after its end"
            )


# Made at the import: msgspec learns a type at its first use, and two threads that meet
# there crash the interpreter.
_decoder = msgspec.msgpack.Decoder(ResumeToken)


def looks_like_one(token: Any) -> bool:
    """Whether it was meant for a token."""
    return isinstance(token, str) and token.startswith(_PREFIX)


def token_of(
    request: ChatRequest,
    transcript: Transcript,
    checkpoint: Checkpoint,
    *,
    stream_id: str,
    profile: Profile,
    endpoint: str,
    resume: tuple[str, ...],
    min_guarantee: int | None,
) -> str | None:
    """Return the token of a stream that stands at this checkpoint.

    None where a token cannot hold what it takes: tool calls that were delivered, or
    several answers.
    """
    if request.choices > 1 or transcript.tool_calls or set(transcript.texts) - {0}:
        return None
    if checkpoint.half_call:
        # What the decoder knows of half a call is text.
        checkpoint = msgspec.structs.replace(checkpoint, decoder=b"", cursor=None)
    text = transcript.text
    return ResumeToken(
        stream_id=stream_id,
        provider=profile.name,
        endpoint=endpoint,
        model=request.model,
        numbers=numbers_of(request.body, profile.for_model(request.model).spellings),
        deterministic=request.deterministic,
        request=request_digest(request),
        length=len(text),
        text=text_digest(text),
        resume=resume,
        min_guarantee=min_guarantee,
        checkpoint=checkpoint.encode(),
    ).encode()


def _unpacked(token: Any) -> bytes | None:
    """Return what is in a token, if it is whole."""
    if not looks_like_one(token) or len(token) > _LONGEST:
        return None
    body = token.removeprefix(_PREFIX)
    try:
        packed = base64.b64decode(
            body.encode("ascii") + b"=" * (-len(body) % 4),
            altchars=b"-_",
            validate=True,
        )
    except ValueError:
        return None
    data, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
    return data if check == _check(data) else None


def numbers_of(
    body: Mapping[str, Any], spellings: Mapping[str, str]
) -> dict[str, int | float]:
    """Return which of a request's arguments are numbers, as it spells them.

    Not those of ``extra_body``, which may be anybody's: who resumes brings them along.
    """
    names = [spellings.get(name, name) for name in _NUMBERS]
    return {
        name: body[name]
        for name in names
        if isinstance(body.get(name), (int, float)) and not isinstance(body[name], bool)
    }


def request_digest(request: ChatRequest) -> bytes:
    """Return what tells one request from another, without its content."""
    canonical = msgspec.json.encode([request.path, request.body], order="sorted")
    return hashlib.blake2b(canonical, digest_size=_DIGEST_BYTES).digest()


def text_digest(text: str) -> bytes:
    """Return what tells one text from another, without its content."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES
    ).digest()


def _check(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK_BYTES).digest()

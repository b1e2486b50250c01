"""What a stream that cannot go on ends with: the errors, in words that help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.errors import GuaranteeNotMet, StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import Collection

    from holystream.errors import StreamError
    from holystream.events import Guarantee
    from holystream.providers.profile import Profile
    from holystream.resume.base import ResumeStrategy


def broken_off(error: StreamError, explanation: str) -> StreamInterrupted:
    """Return the error for an answer that broke off after some of it was delivered."""
    interrupted = StreamInterrupted(
        "The answer broke off and could not be continued: "
        f"{sentence(error.message)} {explanation}".rstrip(),
        cause=error,
    )
    interrupted.__cause__ = error
    return interrupted


def too_weak(
    error: StreamError, way: ResumeStrategy, at_least: Guarantee
) -> GuaranteeNotMet:
    """Return the error for an answer that could only go on with a weaker guarantee."""
    unmet = GuaranteeNotMet(
        f"{sentence(error.message)} It could go on by {way.name!r}, which is worth "
        f"{way.guarantee.name}; min_guarantee is {at_least.name}."
    )
    unmet.phase = error.phase
    unmet.__cause__ = error
    return unmet


def how_to_go_on(profile: Profile, ways: Collection[str]) -> str:
    """Return what the caller could allow, so that such an answer goes on.

    Args:
        profile: That of the model: not every one repeats itself.
        ways: The ways that were allowed.
    """
    if not ways:
        return (
            "resume=() forbids to go on with it: leave it out for the default ways, or "
            "name those that are allowed."
        )
    repeatable = [
        {"temperature": "temperature=0", "seed": "seed="}[name]
        for name in sorted(profile.repeatable_by, reverse=True)
    ]
    asked = " or ".join([*repeatable, "deterministic=True"])
    advice = ""
    if "replay" not in ways:
        advice = f'resume= may hold "replay": with {asked} an answer is replayed. '
    elif repeatable:
        advice = f"With {asked} it can be replayed. "
    if "restart" not in ways:
        advice += f"resume={(*ways, 'restart')!r} allows it to be written anew."
    return advice.rstrip()


def sentence(text: str) -> str:
    """Return a text that ends as a sentence does."""
    return text if text.endswith((".", "!", "?")) else f"{text}."

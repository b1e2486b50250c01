"""Log probabilities: how sure the model pretends to be of its deltas.

Each delta counts as one token, so that the tokens of a choice make its text.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from holystream.simulator.prose import seeded

_LEAST = -3.0


def weigh(request: Mapping[str, Any], deltas: Iterable[str]) -> dict[str, Any] | None:
    """Return the `logprobs` of a choice or a chunk, if the request wants them."""
    if not request.get("logprobs"):
        return None
    most = int(request.get("top_logprobs") or 0)
    return {"content": [_token(text, most) for text in deltas], "refusal": None}


def _token(text: str, most: int) -> dict[str, Any]:
    # The likeliest first; the model takes that one.
    random = seeded(text)
    likely = round(random.random() * _LEAST / 3, 6)
    others = [(f"{text}{rank}", likely + _LEAST * rank) for rank in range(1, most)]
    ranks = [(text, likely), *others]
    return {
        **_weighed(text, likely),
        "top_logprobs": [_weighed(*rank) for rank in ranks[:most]],
    }


def _weighed(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": _bytes(text)}


def _bytes(text: str) -> list[int] | None:
    try:
        return list(text.encode())
    except UnicodeEncodeError:  # half of a character
        return None

"""The names of the OpenTelemetry conventions for generative AI, version by version.

The conventions are in development and rename what they have. All that is named after
them is named here; what they have no name for begins with ``holystream.``.
"""

from __future__ import annotations

import dataclasses
import types
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Semconv: TypeAlias = Literal["1.36", "latest"]

OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""The variable that asks for versions: values with commas between them."""
LATEST: Final = "gen_ai_latest_experimental"
"""The value in it that asks for the latest names of generative AI."""

SECONDS: Final = tuple(round(0.01 * 2.0**step, 2) for step in range(14))
"""The bounds that the conventions ask for, 0.01 to 81.92 seconds."""
TOKENS: Final = tuple(4**step for step in range(14))
"""The bounds that the conventions ask for, 1 to 67108864 tokens."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of one version.

    Attributes:
        provider: The attribute that holds the provider.
        providers: What the conventions call the providers that we call otherwise.
    """

    provider: str
    providers: Mapping[str, str]

    # Metrics.
    operation_duration: str = "gen_ai.client.operation.duration"
    time_to_first_chunk: str = "gen_ai.client.operation.time_to_first_chunk"
    token_usage: str = "gen_ai.client.token.usage"

    # Attributes of metrics and spans.
    operation: str = "gen_ai.operation.name"
    request_model: str = "gen_ai.request.model"
    response_model: str = "gen_ai.response.model"
    token_type: str = "gen_ai.token.type"
    error_type: str = "error.type"

    # Attributes of spans.
    stream: str = "gen_ai.request.stream"
    finish_reasons: str = "gen_ai.response.finish_reasons"
    first_chunk: str = "gen_ai.response.time_to_first_chunk"
    input_tokens: str = "gen_ai.usage.input_tokens"
    output_tokens: str = "gen_ai.usage.output_tokens"
    cached_tokens: str = "gen_ai.usage.cache_read.input_tokens"
    reasoning_tokens: str = "gen_ai.usage.reasoning.output_tokens"
    stream_id: str = "holystream.stream.id"
    outcome: str = "holystream.stream.outcome"
    endpoint: str = "holystream.endpoint"
    priority: str = "holystream.priority"
    guarantee: str = "holystream.guarantee"
    attempts: str = "holystream.attempts"
    interruptions: str = "holystream.interruptions"
    strategies: str = "holystream.strategies"
    queued: str = "holystream.queue.duration"
    request_id: str = "holystream.request.id"


VERSIONS: Final[Mapping[Semconv, Names]] = types.MappingProxyType(
    {
        "1.36": Names(
            provider="gen_ai.system",
            providers={"azure": "az.ai.openai", "mistral": "mistral_ai"},
        ),
        "latest": Names(
            provider="gen_ai.provider.name",
            providers={"azure": "azure.ai.openai", "mistral": "mistral_ai"},
        ),
    }
)
"""By version. Where 1.36 had no name yet, it has the latest one."""


def asked_for(environ: Mapping[str, str]) -> Semconv:
    """Return the version that the environment asks for: 1.36 if it says nothing."""
    values = environ.get(OPT_IN, "").split(",")
    return "latest" if LATEST in map(str.strip, values) else "1.36"

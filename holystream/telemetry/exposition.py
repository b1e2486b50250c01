"""Metrics as Prometheus reads them, without any package for it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from holystream.telemetry.metrics import BUCKETS, Timing
from holystream.telemetry.names import FAMILIES, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holystream.telemetry.metrics import Metrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What to serve the text as."""


def render(metrics: Metrics) -> str:
    r"""Return metrics in the text format of Prometheus, version 0.0.4.

    The names are those of `PrometheusExporter`. To be encoded in UTF-8 and served as
    `CONTENT_TYPE`; lines end with "\n".
    """
    return "".join(
        line + "\n" for family in FAMILIES for line in _family(family, metrics)
    )


def _family(family: Family, metrics: Metrics) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for (provider, model), numbers in metrics.models.items():
        common = [("provider", provider), ("model", model)]
        for value, number in family.read(numbers).items():
            labels = [*common, (family.label, value)] if family.label else common
            if isinstance(number, Timing):
                yield from _timing(family, labels, number)
            else:
                yield _sample(family.name, labels, number)


def _timing(
    family: Family, labels: list[tuple[str, str]], timing: Timing
) -> Iterator[str]:
    if family.kind == "histogram":
        bounds = [*map(str, BUCKETS), "+Inf"]
        counts = itertools.accumulate(timing.buckets)
        for bound, count in zip(bounds, counts, strict=True):
            yield _sample(f"{family.name}_bucket", [*labels, ("le", bound)], count)
    yield _sample(f"{family.name}_sum", labels, timing.total)
    yield _sample(f"{family.name}_count", labels, timing.count)


def _sample(name: str, labels: Iterable[tuple[str, str]], number: float) -> str:
    inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{inside}}} {number}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

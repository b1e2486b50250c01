"""The plot of the herd simulation, as SVG written by hand: no library draws it.

Above, a strip for each jitter: how many calls reach the server in each window of the
outage. Below, AWS's two graphs: calls and time of the contention by number of clients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from _herd_claims import NO_BACKOFF
from _herd_outage import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from _herd_claims import Contentions
    from _herd_outage import History

WIDTH, HEIGHT = 960, 1010
LEFT, RIGHT = 150, 740
STRIP, GAP, TOP = 74, 18, 84
FONT = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif"'
SHOWN = 40.0
"""Seconds of the outage that are drawn."""
PANEL_TOP, PANEL_BOTTOM = 735, 930

COLOURS = {
    "none": "#444444",
    "additive 0.25": "#cc79a7",
    "plusminus 0.25": "#d55e00",
    "equal": "#e69f00",
    "full": "#0072b2",
    "decorrelated": "#009e73",
}
"""Okabe and Ito's, which the colour-blind can tell apart."""
DASHED = {"plusminus 0.25"}
"""It lies on another line: as many calls as equal."""


def draw(histories: Mapping[str, History], results: Contentions, seed: int) -> str:
    """Return the SVG of an outage by jitter, and of the contention."""
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = f"Backoff by jitter: an outage, and contention (seed {seed})"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {FONT}>',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_strips(histories, seed),
        *_panels(results),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _strips(histories: Mapping[str, History], seed: int) -> Iterator[str]:
    outage = next(iter(histories.values())).outage
    most = max(max(one.per_window(WINDOW).values()) for one in histories.values())
    yield _text(
        20, 28, f"{outage.clients} clients lose their server for {outage.seconds:g} s",
        size=18, weight="bold",
    )  # fmt: skip
    yield _text(
        20, 50,
        f"Calls that reach it in each {WINDOW * 1000:g} ms; from "
        f"{outage.seconds:g} s on it takes {outage.capacity} of them per window. "
        f"Seed {seed}.",
        fill="#555555",
    )  # fmt: skip
    bottom = TOP + len(histories) * (STRIP + GAP) - GAP
    x = _scale(0, SHOWN, LEFT, RIGHT)
    broad = x(WINDOW) - x(0)
    yield (
        f'<rect x="{x(0):.1f}" y="{TOP}" width="{x(outage.seconds) - x(0):.1f}" '
        f'height="{bottom - TOP}" fill="#f6dcd8"/>'
    )
    yield _text(x(outage.seconds / 2), TOP - 8, "out", anchor="middle", fill="#a03020")
    for row, (name, one) in enumerate(histories.items()):
        base = TOP + row * (STRIP + GAP) + STRIP
        y = _scale(0, most, base, base - STRIP)
        yield _line((LEFT, base), (RIGHT, base))
        yield _text(LEFT - 42, base - STRIP / 2 + 5, name, anchor="end", weight="bold")
        for tick in (0, most):
            yield _text(LEFT - 6, y(tick) + 4, f"{tick}", anchor="end", size=11)
        bars = "".join(
            f"M{x(key * WINDOW):.1f} {base}V{y(count):.1f}h{broad:.2f}V{base}z"
            for key, count in sorted(one.per_window(WINDOW).items())
            if key * WINDOW < SHOWN
        )
        yield f'<path d="{bars}" fill="{COLOURS[name]}"/>'
        said = (
            f"{one.calls / outage.clients:.1f} calls each",
            f"peak after the outage: {one.peak()}",
            f"all back after {one.finished:.0f} s",
        )
        for line, text in enumerate(said):
            yield _text(RIGHT + 16, base - STRIP + 22 + 18 * line, text)
    for seconds in range(0, int(SHOWN) + 1, 5):
        yield _line((x(seconds), bottom), (x(seconds), bottom + 5))
        yield _text(x(seconds), bottom + 19, f"{seconds} s", anchor="middle", size=11)
    yield _text(
        (LEFT + RIGHT) / 2, bottom + 38, "since the connection was lost",
        anchor="middle", fill="#555555",
    )  # fmt: skip


def _panels(results: Contentions) -> Iterator[str]:
    numbers = sorted({number for _, number in results})
    lines = {name: [results[name, number] for number in numbers] for name in COLOURS}
    yield _text(
        20, PANEL_TOP - 42, "Clients that compete for one row, as AWS simulated it",
        size=18, weight="bold",
    )  # fmt: skip
    most = max(one.calls for one in lines["none"])
    yield from _panel(
        (70, 370),
        "calls until all have succeeded",
        numbers,
        {name: [one.calls for one in found] for name, found in lines.items()},
        y=_scale(0, most, PANEL_BOTTOM, PANEL_TOP),
        ticks=[float(tick) for tick in range(0, int(most) + 1, 500)],
    )
    low, high = math.log10(0.2), math.log10(100)
    logarithmic = _scale(low, high, PANEL_BOTTOM, PANEL_TOP)
    yield from _panel(
        (440, 740),
        "seconds until all have succeeded (log scale)",
        numbers,
        {name: [one.seconds for one in found] for name, found in lines.items()},
        y=lambda seconds: logarithmic(math.log10(seconds)),
        ticks=[0.2, 1.0, 10.0, 100.0],
    )
    for row, name in enumerate(COLOURS):
        height = PANEL_TOP + 14 + 22 * row
        yield _line((760, height - 4), (792, height - 4), _stroke(name))
        yield _text(800, height, name)
    worst = results.get((NO_BACKOFF, numbers[-1]))
    if worst:
        height = PANEL_TOP + 22 + 22 * len(COLOURS)
        for line, text in enumerate(
            (f"{NO_BACKOFF}, N={numbers[-1]} (not drawn):",
             f"{worst.calls:.0f} calls in {worst.seconds:.1f} s")
        ):  # fmt: skip
            yield _text(760, height + 16 * line, text, size=11, fill="#555555")


def _panel(
    sides: tuple[int, int],
    title: str,
    numbers: list[int],
    lines: Mapping[str, list[float]],
    *,
    y: Callable[[float], float],
    ticks: list[float],
) -> Iterator[str]:
    left, right = sides
    x = _scale(0, numbers[-1], left, right)
    yield _text(left, PANEL_TOP - 16, title, fill="#555555")
    for tick in ticks:
        yield _line((left, y(tick)), (right, y(tick)), 'stroke="#dddddd"')
        yield _text(left - 6, y(tick) + 4, f"{tick:g}", anchor="end", size=11)
    for number in numbers:
        yield _line((x(number), PANEL_BOTTOM), (x(number), PANEL_BOTTOM + 5))
        yield _text(x(number), PANEL_BOTTOM + 19, f"{number}", anchor="middle", size=11)
    yield _line((left, PANEL_BOTTOM), (right, PANEL_BOTTOM))
    middle = (left + right) / 2
    yield _text(middle, PANEL_BOTTOM + 38, "clients", anchor="middle", fill="#555555")
    for name, values in lines.items():
        points = " ".join(
            f"{x(number):.1f},{y(value):.1f}"
            for number, value in zip(numbers, values, strict=True)
        )
        yield (f'<polyline points="{points}" fill="none" {_stroke(name)}/>')


def _scale(
    low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _dash(name: str) -> str:
    return ' stroke-dasharray="7 5"' if name in DASHED else ""


def _line(
    start: tuple[float, float],
    end: tuple[float, float],
    stroke: str = 'stroke="#888888"',
) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" '
        f'x2="{end[0]:.1f}" y2="{end[1]:.1f}" {stroke}/>'
    )


def _stroke(name: str) -> str:
    return f'stroke="{COLOURS[name]}" stroke-width="2.5"{_dash(name)}'


def _text(
    x: float, y: float, text: str, *,
    size: int = 13, anchor: str = "start", weight: str = "normal",
    fill: str = "#222222",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{fill}">{text}</text>'
    )

"""The picture docs/bench/results.svg: ratios to the peers on a logarithmic scale.

One self-contained SVG without any script or font of its own; it follows the reader's choice of
light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from bench.case import ALONE, NATIVE, PYTHON
from bench.runner import Outcome, Samples

COLOURS = {NATIVE: "native", PYTHON: "python", ALONE: "alone"}  # CSS classes
WIDTH, LEFT, RIGHT = 820, 120, 60
HEADING, ROW, TOP, BOTTOM = 34, 26, 64, 40
LABEL_ROOM = 44  # px that a number beside a dot takes
STEPS = (1, 2, 5)  # ticks of each decade

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.heading { font-weight: 600 }
.small { font-size: 11px; fill: #59636e; stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
.grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #59636e; stroke-width: 1.5 }
.paper { fill: #ffffff } .target { stroke-width: 3; stroke-linecap: round }
.native { fill: #0969da; stroke: #0969da } .python { fill: #bc4c00; stroke: #bc4c00 }
.alone { fill: #8250df; stroke: #8250df } .missed { fill: #ffffff; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1; stroke: #0d1117 }
  .grid { stroke: #3d444d } .one { stroke: #9198a1 }
  .native { fill: #4493f8; stroke: #4493f8 } .python { fill: #f0883e; stroke: #f0883e }
  .alone { fill: #ab7df8; stroke: #ab7df8 } .paper, .missed { fill: #0d1117 }
}"""


class Scale:
    """Ratios to x coordinates, over whole steps of 1, 2, 5."""

    def __init__(self, ratios: Sequence[float]) -> None:
        ticks = [step * 10.0**decade for decade in range(-4, 5) for step in STEPS]
        low, high = min(*ratios, 0.5), max(*ratios, 2.0)
        first = max((tick for tick in ticks if tick <= low), default=ticks[0])
        last = min((tick for tick in ticks if tick >= high), default=ticks[-1])
        self.ticks = [tick for tick in ticks if first <= tick <= last]

    def x(self, ratio: float) -> float:
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        place = (math.log(ratio) - low) / (high - low)
        return LEFT + place * (WIDTH - LEFT - RIGHT)


def render_plot(outcomes: Sequence[Outcome]) -> str:
    """The SVG; empty where no contender of netplug's was compared with a peer."""
    compared = [outcome for outcome in outcomes if _dots(outcome)]
    if not compared:
        return ""
    figures = [ratio for outcome in compared for _, ratio in _dots(outcome)]
    figures += [limit for outcome in compared for _, limit in _limits(outcome)]
    scale = Scale(figures)
    body: list[str] = []
    y = TOP
    for title, group in groupby(compared, key=lambda outcome: outcome.case.title):
        body.append(f'<text class="heading" x="12" y="{y + 22}">{escape(title)}</text>')
        y += HEADING
        for outcome in group:
            body += _render_row(outcome, scale, y + ROW / 2)
            y += ROW
    height = y + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title">',
            '<title id="title">Time as a ratio of the peer\'s, less is better</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
            *_render_legend(),
            *_render_grid(scale, y),
            *body,
            "</svg>\n",
        ]
    )


def _dots(outcome: Outcome) -> list[tuple[Samples, float]]:
    """netplug's contenders with their ratio to a peer."""
    pairs = [(one, outcome.ratio(one)) for one in outcome.samples if one.contender in COLOURS]
    return [(one, ratio) for one, ratio in pairs if ratio]


def _limits(outcome: Outcome) -> list[tuple[Samples, float]]:
    pairs = [(one, outcome.target(one)) for one, _ in _dots(outcome)]
    return [(one, target.limit) for one, target in pairs if target and target.relative]


def _render_row(outcome: Outcome, scale: Scale, y: float) -> Iterable[str]:
    yield f'<text x="24" y="{y + 5:g}">{escape(outcome.operation)}</text>'
    for samples, limit in _limits(outcome):
        x = scale.x(limit)
        kind = COLOURS[samples.contender]
        yield f'<path class="target {kind}" d="M{x:.1f} {y - 9:g}v18"/>'
    ends = -math.inf  # of what stands left of the next number
    for samples, ratio in sorted(_dots(outcome), key=lambda pair: pair[1]):
        x = scale.x(ratio)
        missed = " missed" if outcome.met(samples) is False else ""
        words = f"{samples.contender}: {samples.median:.2f} {outcome.case.unit}"
        yield (
            f'<circle class="{COLOURS[samples.contender]}{missed}" cx="{x:.1f}" cy="{y:g}" r="5">'
            f"<title>{escape(words)}</title></circle>"
        )
        if x - 5 - LABEL_ROOM > max(ends, LEFT):
            yield _render_number(ratio, x - 9, y, "end")
        else:
            yield _render_number(ratio, x + 9, y, "start")
            x += LABEL_ROOM
        ends = x + 5


def _render_number(ratio: float, x: float, y: float, anchor: str) -> str:
    text = f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"
    return f'<text class="small" x="{x:.1f}" y="{y + 4:g}" text-anchor="{anchor}">{text}</text>'


def _render_legend() -> Iterable[str]:
    x = 12
    for name, kind in COLOURS.items():
        yield f'<circle class="{kind}" cx="{x + 5}" cy="20" r="5"/>'
        yield f'<text x="{x + 16}" y="25">{escape(name)}</text>'
        x += 140
    yield f'<path class="target grid" d="M{x + 5} 11v18"/><text x="{x + 16}" y="25">target</text>'
    yield f'<circle class="missed one" cx="{x + 85}" cy="20" r="5"/>'
    yield f'<text x="{x + 96}" y="25">target missed</text>'
    yield '<text class="small" x="12" y="50">ratio to the peer (1), less is better</text>'


def _render_grid(scale: Scale, bottom: float) -> Iterable[str]:
    for tick in scale.ticks:
        kind = "one" if tick == 1 else "grid"
        x = scale.x(tick)
        yield f'<path class="{kind}" d="M{x:.1f} {TOP - 6}V{bottom + 6:g}"/>'
        place = f'x="{x:.1f}" y="{bottom + 22:g}" text-anchor="middle"'
        yield f'<text class="small" {place}>{tick:g}</text>'

"""Layout -> SVG: one file that needs nothing else, light or dark as its reader's screen is.

No script, no font, no link: a browser, an editor and a README show the same. The colours of
links repeat at both ends, so that the two interfaces of a veth pair are found at a glance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from netplug.draw.layout import LARGE, compute_layout
from netplug.draw.scene import Scene
from netplug.draw.shapes import Frame, Label, Layout, Line

CELL_WIDTH, CELL_HEIGHT = 8, 18  # pixels; the font is chosen so that a character fits
EDGE = 16  # around everything
WIDTHS = (60, 84, 110, 150, 200, 260)  # cells: what is tried for a good shape
SHAPE = 1.5  # width to height of a picture that pleases
BEND = 6  # radius where a link turns
HUES = 8
PLUG = 8  # pixels: an interface
TOP, BOTTOM = 1, 11  # pixels from the upper edge of a cell to the border of a box in it

Place = tuple[float, float]

# Colours of Okabe and Ito (2008), which colour-blind readers tell apart; lighter on dark ground.
STYLE = """
svg{--ground:#fff;--host:#f4f6f8;--edge:#8a97a3;--box:#fff;--text:#1b2733;--soft:#51606d;
--bridge:#dfe9f3;--bridge-edge:#3d6b96;--router:#fdf3dc;--router-edge:#a67c1a;--down:#c0392b;
--nat:#b3541e;--nat-text:#fff;--h0:#0072b2;--h1:#b85c00;--h2:#007a5a;--h3:#a8467f;--h4:#3a86c8;
--h5:#8a7500;--h6:#6b4fb0;--h7:#5a6672}
@media (prefers-color-scheme:dark){svg{--ground:#0f151b;--host:#161e26;--edge:#5f6e7c;
--box:#1d2731;--text:#e8eef4;--soft:#a3b2bf;--bridge:#1d3347;--bridge-edge:#6ea8dc;
--router:#33290f;--router-edge:#d3a63f;--down:#ff7b6b;--nat:#e0883e;--nat-text:#1a1206;
--h0:#56b4e9;--h1:#f0a04b;--h2:#3fc79a;--h3:#e08fc0;--h4:#8cc4ff;--h5:#e6d64a;--h6:#b39cf0;
--h7:#a9b6c2}}
text{font:13px ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;
fill:var(--text);white-space:pre}
.ground{fill:var(--ground)}
.host{fill:var(--host);stroke:var(--edge)}
.namespace{fill:var(--box);stroke:var(--edge)}
.bridge{fill:var(--bridge);stroke:var(--bridge-edge);stroke-width:2}
.router{fill:var(--router);stroke:var(--router-edge)}
.segment{fill:none;stroke:var(--h6);stroke-width:2;stroke-dasharray:7 5}
rect.down{stroke:var(--down);stroke-dasharray:4 4}
.title{font-weight:600}
.soft{fill:var(--soft);font-size:12px}
.door{fill:var(--ground);stroke:var(--edge)}
.nat{fill:var(--nat)}
.nat-text{fill:var(--nat-text);font-size:11px;font-weight:600}
.halo{fill:none;stroke:var(--ground);stroke-width:6}
.in .halo{stroke:var(--host)}
.link{fill:none;stroke-width:2}
.spine{fill:none;stroke:var(--bridge-edge);stroke-width:3}
.link.uplink{stroke:var(--edge)}
.link.tunnel{stroke:var(--h6);stroke-dasharray:7 5}
.link.down{stroke:var(--down);stroke-dasharray:3 4}
.cross{stroke:var(--down);stroke-width:2}
"""
PLUGS = """.plug{stroke:var(--ground);stroke-dasharray:none}
.plug.uplink{fill:var(--edge)}
.plug.tunnel{fill:var(--h6)}
"""


def fit_layout(scene: Scene) -> Layout:
    """The layout whose shape pleases most: neither a tower nor a ribbon, and little of it."""
    widths = WIDTHS if len(scene.boxes) <= LARGE else WIDTHS[2::2]
    layouts = [compute_layout(scene, width=width) for width in widths]

    def cost(layout: Layout) -> float:
        wide, high = layout.width * CELL_WIDTH, layout.height * CELL_HEIGHT
        shape = max(wide / high / SHAPE, SHAPE * high / wide)
        bends = sum(len(line.points) - 2 for line in layout.lines) / max(len(layout.lines), 1)
        return wide * high * math.sqrt(shape) * (1 + bends)

    return min(layouts, key=cost)


def render_svg(scene: Scene, *, title: str = "") -> str:
    """The picture as the text of an SVG file; `title` is read out to those who do not see it."""
    layout = fit_layout(scene)
    width = layout.width * CELL_WIDTH + 2 * EDGE
    height = layout.height * CELL_HEIGHT + 2 * EDGE
    words = title or "network"
    classes = "".join(
        f".c{n}{{stroke:var(--h{n})}}.plug.c{n}{{fill:var(--h{n})}}\n" for n in range(HUES)
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(words)}</title>",
        f"<style>{STYLE}{classes}{PLUGS}</style>",
        f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
        f'<g transform="translate({EDGE} {EDGE})"{_inside(layout)}>',
        *_elements(layout),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _inside(layout: Layout) -> str:
    return ' class="in"' if any(frame.role == "host" for frame in layout.frames) else ""


def _elements(layout: Layout) -> Iterator[str]:
    hosts = [frame for frame in layout.frames if frame.role == "host"]
    boxes = [frame for frame in layout.frames if frame.role != "host"]
    edges = _find_edges(layout)
    ways = [
        (line, [(_x(x), _y(y) + edges.get((x, y), 0)) for x, y in line.points])
        for line in layout.lines
    ]
    yield from (_rect(frame) for frame in hosts)
    for line, points in ways:
        yield from _line(line, points)
    yield from (_rect(frame) for frame in boxes)
    for line, points in ways:
        yield from _plugs(line, points)
    for frame in layout.frames:
        yield from _title(frame)
    for label in layout.labels:
        yield from _label(label)


def _find_edges(layout: Layout) -> dict[tuple[int, int], int]:
    """How far from the middle of its cell a link meets what stands there, in pixels."""
    found: dict[tuple[int, int], int] = {}
    for frame in layout.frames:
        if frame.role != "host":
            for x in range(frame.x, frame.x + frame.width):
                found[x, frame.y] = TOP - CELL_HEIGHT // 2
                found[x, frame.y + frame.height - 1] = BOTTOM - CELL_HEIGHT // 2
    for label in layout.labels:
        if label.role == "outside":
            found.update(
                {(label.x + i, label.y): 10 for i in range(max(len(label.text), label.width))}
            )
    return found


def _x(cells: float) -> float:
    return (cells + 0.5) * CELL_WIDTH


def _y(cells: float) -> float:
    return (cells + 0.5) * CELL_HEIGHT


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rect(frame: Frame) -> str:
    """A box holds its title, which text pictures write on its border: it begins higher."""
    down = "" if frame.up else " down"
    host = frame.role == "host"
    x, width = _number(_x(frame.x)), (frame.width - 1) * CELL_WIDTH
    top = _y(frame.y) if host else frame.y * CELL_HEIGHT + TOP
    bottom = (frame.y + frame.height - 1) * CELL_HEIGHT + BOTTOM
    return (
        f'<rect class="{frame.role}{down}" x="{x}" y="{_number(top)}" width="{width}"'
        f' height="{_number(bottom - top)}" rx="{10 if host else 5}"/>'
    )


def _title(frame: Frame) -> Iterator[str]:
    if frame.title and frame.role == "host":
        x, y = (frame.x + frame.title_x + 1) * CELL_WIDTH, frame.y * CELL_HEIGHT + 24
        yield _text(x, y, frame.title, "title soft")
    elif frame.title:
        x, y = (frame.x + 2) * CELL_WIDTH, frame.y * CELL_HEIGHT + 16
        yield _text(x, y, frame.title, "title")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{_number(x)}" y="{_number(y)}"{named}>{escape(text)}</text>'


def _label(label: Label) -> Iterator[str]:
    x, y = label.x * CELL_WIDTH, label.y * CELL_HEIGHT + 14
    if label.role == "nat":
        yield (
            f'<rect class="nat" x="{x - 3}" y="{y - 12}" width="{len(label.text) * 8 + 6}"'
            ' height="16" rx="8"/>'
        )
        yield _text(x + 1, y, label.text, "nat-text")
    elif label.role == "door":
        width = max(len(label.text), label.width) * CELL_WIDTH
        yield f'<rect class="door" x="{x}" y="{y - 15}" width="{width}" height="20" rx="10"/>'
        yield _text(x, y, label.text)
    else:
        yield _text(x, y, label.text, "soft" if label.role == "port" else "")


def _path(points: Sequence[Place]) -> str:
    """Straight pieces, joined by round bends."""
    parts = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        before = min(BEND, (abs(bx - ax) + abs(by - ay)) / 2)
        after = min(BEND, (abs(cx - bx) + abs(cy - by)) / 2)
        sx, sy = bx - before * _sign(bx - ax), by - before * _sign(by - ay)
        ex, ey = bx + after * _sign(cx - bx), by + after * _sign(cy - by)
        parts.append(f"L{_number(sx)} {_number(sy)}Q{_number(bx)} {_number(by)}")
        parts.append(f" {_number(ex)} {_number(ey)}")
    parts.append(f"L{_number(points[-1][0])} {_number(points[-1][1])}")
    return "".join(parts)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _hue(line: Line) -> str:
    """Cables have colours of their own; tunnels and ways out have those of their kind."""
    return f"c{line.colour % HUES}" if line.role == "cable" else line.role


def _line(line: Line, points: Sequence[Place]) -> Iterator[str]:
    way = _path(points)
    if line.role == "bridge":
        yield f'<path class="spine" d="{way}"/>'
        return
    down = "" if line.up else " down"
    yield f'<path class="halo" d="{way}"/>'
    yield f'<path class="link {_hue(line)}{down}" d="{way}"/>'
    if not line.up:
        (ax, ay), (bx, by) = max(
            pairwise(points), key=lambda ab: abs(ab[0][0] - ab[1][0]) + abs(ab[0][1] - ab[1][1])
        )
        x, y = (ax + bx) / 2, (ay + by) / 2
        cross = f"M{_number(x - 5)} {_number(y - 5)}l10 10m0 -10l-10 10"
        yield f'<path class="cross" d="{cross}"/>'


def _plugs(line: Line, points: Sequence[Place]) -> Iterator[str]:
    """The two interfaces of a link, in its colour."""
    if line.role == "bridge":
        return
    for (x, y), (nx, ny) in ((points[0], points[1]), (points[-1], points[-2])):
        # Beside the border, so that no title is hidden.
        at_x, at_y = (
            x + PLUG * _sign(nx - x) / 2 - PLUG / 2,
            y + PLUG * _sign(ny - y) / 2 - PLUG / 2,
        )
        at = f'x="{_number(at_x)}" y="{_number(at_y)}"'
        yield f'<rect class="plug {_hue(line)}" {at} width="{PLUG}" height="{PLUG}" rx="2"/>'

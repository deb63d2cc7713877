"""What a layout consists of: frames, lines and labels on a grid of character cells.

A text renderer uses the cells as they are, a vector renderer scales them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

Role = Literal["host", "bridge", "namespace", "router", "segment", "outside", "door", "port", "nat"]
LineRole = Literal["cable", "uplink", "tunnel", "bridge"]  # bridge: a bridge, continued
Point = tuple[int, int]
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Frame:
    """A box; `title` stands on its top border, `title_x` cells from the left."""

    x: int
    y: int
    width: int
    height: int
    role: Role
    title: str = ""
    title_x: int = 2
    up: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A link from border to border, along the axes; `colour` counts links."""

    points: tuple[Point, ...]
    role: LineRole
    colour: int = 0
    up: bool = True
    link: int = -1  # index in the scene; -1 for what is no link


@dataclass(frozen=True, slots=True)
class Label:
    x: int
    y: int
    text: str
    role: Role
    width: int = 0  # of what links meet: it may be wider than its name


@dataclass(slots=True)
class Layout:
    """Everything to paint, in order; labels go over lines."""

    width: int = 0
    height: int = 0
    frames: list[Frame] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def place(self, other: Layout, x: int, y: int) -> None:
        """Adds another layout with its corner at (x, y)."""
        self.frames += (replace(f, x=f.x + x, y=f.y + y) for f in other.frames)
        self.labels += (replace(one, x=one.x + x, y=one.y + y) for one in other.labels)
        for line in other.lines:
            points = tuple((px + x, py + y) for px, py in line.points)
            self.lines.append(replace(line, points=points))


def clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + ELLIPSIS


def wrap(words: Iterable[str], width: int) -> list[str]:
    """Lines of whole words, two blanks between them; too long a word is cut."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += "  " + word
        else:
            lines.append(clip(word, width))
    return lines

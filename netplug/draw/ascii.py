"""Layout -> text: Unicode box drawing, or plain ASCII for terminals and files without it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from netplug.draw.layout import Frame, Layout, Role, Wire, compute_layout
from netplug.draw.scene import Scene

Charset = Literal["unicode", "ascii"]

# The character where lines meet, by the weight (0 none, 1 light, 2 heavy) of the arm that
# goes up, right, down, left: index = up * 27 + right * 9 + down * 3 + left.
JOINTS = " ╴╸╷┐┑╻┒┓╶─╾┌┬┭┎┰┱╺╼━┍┮┯┏┲┳╵┘┙│┤┥╽┧┪└┴┵├┼┽┟╁╅┕┶┷┝┾┿┢╆╈╹┚┛╿┦┩┃┨┫┖┸┹┞╀╃┠╂╉┗┺┻┡╄╇┣╊╋"
ROUNDED = str.maketrans("┌┐└┘", "╭╮╰╯")
BROKEN = str.maketrans("─│", "╌╎")  # a link that is down
PLAIN = ((" → ", "->"), ("…", "~"))  # never longer than what it stands for
HEAVY: frozenset[Role] = frozenset({"bridge"})
UP, RIGHT, DOWN, LEFT = 27, 9, 3, 1


class _Canvas:
    """Cells that remember which arms they have, so that crossing lines join by themselves."""

    def __init__(self, width: int, height: int, charset: Charset) -> None:
        self.width = width
        self.charset = charset
        self.arms = [[dict[int, int]() for _ in range(width)] for _ in range(height)]
        self.broken: set[tuple[int, int]] = set()
        self.texts: dict[tuple[int, int], str] = {}

    def line(self, wire: Wire) -> None:
        weight = 2 if wire.role in HEAVY else 1
        xs = range(min(wire.x1, wire.x2), max(wire.x1, wire.x2) + 1)
        ys = range(min(wire.y1, wire.y2), max(wire.y1, wire.y2) + 1)
        back, forth = (LEFT, RIGHT) if len(xs) > 1 else (UP, DOWN)
        cells = [(x, y) for y in ys for x in xs]
        for before, after in pairwise(cells):
            for (x, y), arm in ((before, forth), (after, back)):
                arms = self.arms[y][x]
                arms[arm] = max(arms.get(arm, 0), weight)
        if not wire.up:
            self.broken.update(cells)

    def frame(self, frame: Frame) -> None:
        right, bottom = frame.x + frame.width - 1, frame.y + frame.height - 1
        corners = (
            (frame.x, frame.y, right, frame.y),
            (frame.x, bottom, right, bottom),
            (frame.x, frame.y, frame.x, bottom),
            (right, frame.y, right, bottom),
        )
        for x1, y1, x2, y2 in corners:
            self.line(Wire(x1, y1, x2, y2, frame.role, frame.up))
        if frame.title:
            self.text(frame.x + frame.title_x, frame.y, f" {frame.title} ")

    def text(self, x: int, y: int, text: str) -> None:
        if self.charset == "ascii":
            for fancy, plain in PLAIN:
                text = text.replace(fancy, plain)
        for i, character in enumerate(text):
            self.texts[x + i, y] = character

    def rows(self) -> list[str]:
        return [
            "".join(self._cell(x, y) for x in range(self.width)).rstrip()
            for y in range(len(self.arms))
        ]

    def _cell(self, x: int, y: int) -> str:
        if (x, y) in self.texts:
            return self.texts[x, y]
        arms = self.arms[y][x]
        if self.charset == "ascii":
            return _ascii_joint(arms, broken=(x, y) in self.broken)
        joint = JOINTS[sum(arm * weight for arm, weight in arms.items())].translate(ROUNDED)
        return joint.translate(BROKEN) if (x, y) in self.broken else joint


def _ascii_joint(arms: dict[int, int], *, broken: bool) -> str:
    across = arms.get(LEFT, 0) or arms.get(RIGHT, 0)
    along = arms.get(UP, 0) or arms.get(DOWN, 0)
    if across and along:
        return "#" if max(arms.values()) == 2 else "+"
    if broken and (across or along):
        return "." if across else ":"
    return (" ", "-", "=")[across] if across else (" ", "|", "#")[along]


def render_text(
    scene: Scene,
    *,
    width: int = 80,
    charset: Charset = "unicode",
    macs: bool = False,
) -> str:
    """The picture as lines of at most `width` characters, without trailing blanks."""
    return paint(compute_layout(scene, width=width, macs=macs), charset=charset)


def paint(layout: Layout, *, charset: Charset) -> str:
    """The text of a layout."""
    canvas = _Canvas(layout.width, layout.height, charset)
    for frame in layout.frames:
        canvas.frame(frame)
    for wire in layout.wires:
        canvas.line(wire)
    for label in layout.labels:
        canvas.text(label.x, label.y, label.text)
    return "\n".join(canvas.rows())

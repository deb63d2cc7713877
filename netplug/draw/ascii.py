"""Layout -> text: Unicode box drawing, or plain ASCII for terminals and files without it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from netplug.draw.layout import compute_layout
from netplug.draw.scene import Scene
from netplug.draw.shapes import Frame, Layout, Line

Charset = Literal["unicode", "ascii"]

# The character where lines meet, by the weight (0 none, 1 light, 2 heavy) of the arm that
# goes up, right, down, left: index = up * 27 + right * 9 + down * 3 + left.
JOINTS = " ╴╸╷┐┑╻┒┓╶─╾┌┬┭┎┰┱╺╼━┍┮┯┏┲┳╵┘┙│┤┥╽┧┪└┴┵├┼┽┟╁╅┕┶┷┝┾┿┢╆╈╹┚┛╿┦┩┃┨┫┖┸┹┞╀╃┠╂╉┗┺┻┡╄╇┣╊╋"
ROUNDED = str.maketrans("┌┐└┘", "╭╮╰╯")
BROKEN = str.maketrans("─│", "╌╎")  # a link that is down
PLAIN = ((" → ", "->"), ("…", "~"))  # never longer than what it stands for
UP, RIGHT, DOWN, LEFT = 27, 9, 3, 1
HUES = (36, 33, 32, 34, 96, 93)  # of links, so that the two ends of one are found
RED, TUNNEL, BOLD, DIM = 31, 35, 1, 2
FRAME = -1  # whose arms join with everybody's


class _Canvas:
    """Cells that remember which arms they have, and whose: links join frames, never each other."""

    def __init__(self, layout: Layout, charset: Charset, *, colour: bool) -> None:
        self.width, self.height = layout.width, layout.height
        self.charset = charset
        self.colour = colour
        self.arms: dict[tuple[int, int], dict[int, dict[int, int]]] = {}
        self.broken: set[tuple[int, int, int]] = set()
        self.texts: dict[tuple[int, int], str] = {}
        self.styles: dict[tuple[int, int] | int, int] = {}

    def stroke(self, x1: int, y1: int, x2: int, y2: int, *, owner: int, weight: int) -> None:
        xs = range(min(x1, x2), max(x1, x2) + 1)
        ys = range(min(y1, y2), max(y1, y2) + 1)
        back, forth = (LEFT, RIGHT) if len(xs) > 1 else (UP, DOWN)
        for before, after in pairwise([(x, y) for y in ys for x in xs]):
            for cell, arm in ((before, forth), (after, back)):
                arms = self.arms.setdefault(cell, {}).setdefault(owner, {})
                arms[arm] = max(arms.get(arm, 0), weight)

    def line(self, line: Line) -> None:
        owner = FRAME if line.role == "bridge" else line.link
        for (x1, y1), (x2, y2) in pairwise(line.points):
            weight = 2 if line.role == "bridge" else 1
            self.stroke(x1, y1, x2, y2, owner=owner, weight=weight)
        if not line.up or line.role == "tunnel":
            self.broken |= {(x, y, owner) for (x, y), held in self.arms.items() if owner in held}
        if owner != FRAME:
            hue = {"uplink": 0, "tunnel": TUNNEL}.get(line.role, HUES[line.colour % len(HUES)])
            self.styles[owner] = hue if line.up else RED

    def frame(self, frame: Frame) -> None:
        right, bottom = frame.x + frame.width - 1, frame.y + frame.height - 1
        weight = 2 if frame.role == "bridge" else 1
        for x1, y1, x2, y2 in (
            (frame.x, frame.y, right, frame.y),
            (frame.x, bottom, right, bottom),
            (frame.x, frame.y, frame.x, bottom),
            (right, frame.y, right, bottom),
        ):
            self.stroke(x1, y1, x2, y2, owner=FRAME, weight=weight)
            if not frame.up or frame.role == "segment":
                cells = [(x, y1) for x in range(x1, x2 + 1)] if y1 == y2 else []
                cells += [(x1, y) for y in range(y1, y2 + 1)] if x1 == x2 else []
                self.broken |= {(x, y, FRAME) for x, y in cells}
        if frame.title:
            style = DIM if not frame.up else BOLD
            self.text(frame.x + frame.title_x, frame.y, f" {frame.title} ", style)

    def text(self, x: int, y: int, text: str, style: int = 0) -> None:
        if self.charset == "ascii":
            for fancy, plain in PLAIN:
                text = text.replace(fancy, plain)
            text = text.encode("ascii", "replace").decode()
        for i, character in enumerate(text):
            self.texts[x + i, y] = character
            self.styles[x + i, y] = style

    def rows(self) -> list[str]:
        return [self._row(y) for y in range(self.height)]

    def _row(self, y: int) -> str:
        cells = [self._cell(x, y) for x in range(self.width)]
        while cells and cells[-1][0] == " ":
            cells.pop()
        if not self.colour:
            return "".join(character for character, _ in cells)
        out, now = [], 0
        for character, style in cells:
            if style != now and character != " ":
                out.append(f"\x1b[0;{style}m" if style else "\x1b[0m")
                now = style
            out.append(character)
        return "".join(out) + ("\x1b[0m" if now else "")

    def _cell(self, x: int, y: int) -> tuple[str, int]:
        if (x, y) in self.texts:
            return self.texts[x, y], self.styles[x, y]
        held = self.arms.get((x, y))
        if not held:
            return " ", 0
        owner = FRAME
        if FRAME in held:
            arms: dict[int, int] = {}
            for each in held.values():
                for arm, weight in each.items():
                    arms[arm] = max(arms.get(arm, 0), weight)
        else:  # where two links cross, the one that goes down passes in front
            owner = max(held, key=lambda one: (UP in held[one]) + (DOWN in held[one]))
            arms = held[owner]
        broken = (x, y, owner) in self.broken
        style = self.styles.get(owner, 0)
        if self.charset == "ascii":
            return _ascii_joint(arms, broken=broken), style
        joint = JOINTS[sum(arm * weight for arm, weight in arms.items())].translate(ROUNDED)
        return (joint.translate(BROKEN) if broken else joint), style


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
    colour: bool = False,
) -> str:
    """The picture as lines of at most `width` characters where it can be, without trailing blanks.

    `colour` pairs the ends of each link by terminal colours.
    """
    return paint(compute_layout(scene, width=width), charset=charset, colour=colour)


def paint(layout: Layout, *, charset: Charset = "unicode", colour: bool = False) -> str:
    """The text of a layout."""
    canvas = _Canvas(layout, charset, colour=colour)
    for frame in layout.frames:
        canvas.frame(frame)
    for line in layout.lines:
        canvas.line(line)
    for label in layout.labels:
        style = {"nat": 33, "port": DIM, "outside": BOLD, "door": BOLD}.get(label.role, 0)
        canvas.text(label.x, label.y, label.text, style)
    return "\n".join(canvas.rows())

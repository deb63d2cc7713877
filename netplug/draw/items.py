"""Boxes as items to be placed: their size, and where links meet their borders.

A bridge is one item together with the boxes that hang from it alone, in as many rows as the
width asks for. Links to everything else meet an item at its top or leave at its bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from netplug.draw.scene import Box, Link, Plug
from netplug.draw.shapes import Frame, Label, Layout, Line, Role, clip, wrap

DROP = 3  # a link meets its box this far from the corner
INDENT = 2  # boxes stand right of their bridge's spine
GAP = 1
DETAILED = 8  # more boxes on one bridge are drawn densely: no names of ports, brief lines
LONGEST = 46  # of a title or line; longer ones are cut
NAT = "NAT"


@dataclass(frozen=True, slots=True)
class Hanging:
    """A box whose only link goes to the bridge: `index` is the link's place in the scene."""

    box: Box
    link: Link
    index: int


def near_plug(link: Link, box: str) -> Plug:
    return link.a if link.a.box == box else link.b


def far_plug(link: Link, box: str) -> Plug:
    return link.b if link.a.box == box else link.a


@dataclass(slots=True)
class Pin:
    """Where a link meets an item: `text` stands beside it. `x` counts from the item's left."""

    link: int
    text: str = ""
    nat: bool = False
    x: int = 0

    @property
    def space(self) -> int:
        """Cells from this link to the next one."""
        words = len(self.text) + (len(NAT) + 1 if self.nat else 0)
        return max(words + 3, 4)


@dataclass(slots=True)
class Item:
    """A rectangle to be placed. `arrange` may sort `top` and `bottom`; then `settle` them."""

    name: str
    width: int = 0
    height: int = 0
    top: list[Pin] = field(default_factory=list)
    bottom: list[Pin] = field(default_factory=list)
    x: int = 0
    y: int = 0
    fixed: bool = False  # its pins stay where they are
    first: bool = False  # it belongs into the first layer

    @property
    def floor(self) -> int:
        """The line from which links leave at the bottom."""
        return self.height - 1

    def settle(self) -> None:
        """Gives every pin its place, from the left in their order."""
        for pins in (self.top, self.bottom):
            x = DROP
            for pin in pins:
                pin.x = x
                x += pin.space

    def fit(self) -> None:
        """Takes the size that its content and pins need."""

    def paint(self) -> Layout:
        return Layout(self.width, self.height)


def pins_width(pins: Sequence[Pin]) -> int:
    return DROP + sum(pin.space for pin in pins)


@dataclass(slots=True)
class BoxItem(Item):
    """A box that stands for itself; where links meet its top, its title stands behind them."""

    box: Box | None = None

    def fit(self) -> None:
        assert self.box is not None
        title = min(len(self.box.title), LONGEST)
        before = pins_width(self.top) - DROP if self.top else 0
        lines = [min(len(line), LONGEST) + 4 for line in self.box.lines]
        if self.box.kind == "outside":
            self.width, self.height = (
                max(title + 2, pins_width(self.bottom), pins_width(self.top)),
                1,
            )
            return
        self.width = max([before + title + DROP + 3, *lines, pins_width(self.bottom) + 1])
        self.height = len(self.box.lines) + 2

    def paint(self) -> Layout:
        assert self.box is not None
        out = Layout(self.width, self.height)
        if self.box.kind == "outside":
            pins = self.bottom + self.top
            span = max((pin.x for pin in pins), default=0)
            out.labels.append(Label(1, 0, clip(self.box.title, LONGEST), "outside", span))
            return out
        shift = pins_width(self.top) - DROP if self.top else 0
        # Behind a lone link without a name, the title may stand close.
        if len(self.top) == 1:
            shift = 2
        title_x = 2 + shift
        role: Role = self.box.kind
        title = clip(self.box.title, LONGEST)
        out.frames.append(Frame(0, 0, self.width, self.height, role, title, title_x, self.box.up))
        for number, line in enumerate(self.box.lines, start=1):
            out.labels.append(Label(2, number, clip(line, LONGEST), role))
        return out


@dataclass(slots=True)
class BridgeItem(Item):
    """A bridge and what hangs from it; other links leave its bottom at the right, by lanes."""

    box: Box | None = None
    hanging: list[Hanging] = field(default_factory=list)
    room: int = 80  # its width where that can be
    limit: int | None = None  # of columns
    columns: int = 1
    cell: int = 0

    def fit(self) -> None:
        """Chooses the rows for `room` cells and no more than `limit` columns."""
        assert self.box is not None
        width = self.room
        wanted = [self._wanted(one) for one in self.hanging]
        self.cell = max(wanted, default=0)
        lanes = pins_width(self.bottom) - DROP + GAP if self.bottom else 0
        room = max(width - INDENT - lanes, self.cell)
        fitting = max(1, (room + GAP) // (self.cell + GAP)) if self.hanging else 0
        most = len(self.hanging)
        self.columns = min(fitting, most, self.limit or most)
        if self.columns:  # as even rows as can be
            rows = -(-most // self.columns)
            self.columns = -(-most // rows)
        before = pins_width(self.top) - DROP if self.top else 0
        title = min(len(self.box.title), LONGEST) + before + 6
        words = [min(len(word), LONGEST) + 4 for word in self.box.lines]
        self.width = max([title, self._grid + lanes, pins_width(self.bottom) + 1, *words])
        if self.hanging:  # one line of words, where it costs no more than a little width
            joined = len("  ".join(self.box.lines)) + 4
            if joined <= min(width, max(self.width, 48)):
                self.width = max(self.width, joined)
        elif (joined := len("  ".join(self.box.lines)) + 4) <= min(width, 64):
            self.width = max(self.width, joined)
        self.height = self.paint().height

    @property
    def dense(self) -> bool:
        return len(self.hanging) > DETAILED

    @property
    def _grid(self) -> int:
        return INDENT + self.columns * (self.cell + GAP) - GAP if self.columns else 0

    def _lines(self, one: Hanging) -> tuple[str, ...]:
        return one.box.brief if self.dense and one.box.brief else one.box.lines

    def _names(self, one: Hanging) -> tuple[str, str]:
        """What is said beside the cable: the port and what else is known, and the far end."""
        assert self.box is not None
        if self.dense:
            return "", ""
        port = near_plug(one.link, self.box.name).name
        words = [port if one.link.up else f"{port} down".strip(), one.link.note]
        return " ".join(word for word in words if word), far_plug(one.link, self.box.name).name

    def _wanted(self, one: Hanging) -> int:
        texts = [len(line) + 4 for line in self._lines(one)]
        cable = max(map(len, self._names(one))) + DROP + 2
        return min(max([len(one.box.title) + DROP + 5, cable, *texts]), LONGEST + 4)

    @property
    def floor(self) -> int:
        """Links leave from the bridge itself, and pass what hangs from it by lanes."""
        return len(self._words) + 1

    @property
    def _words(self) -> list[str]:
        assert self.box is not None
        return wrap((word for word in self.box.lines if word), self.width - 4)

    def settle(self, wishes: Sequence[int] = ()) -> None:
        """Lanes stand right of what hangs here, where they are wished if there is room."""
        Item.settle(self)
        x = self._grid + GAP if self.hanging else DROP
        for number, pin in enumerate(self.bottom):
            pin.x = max(x, wishes[number] if wishes else 0)
            x = pin.x + pin.space
        if self.bottom:
            self.width = max(self.width, x + 1)

    def paint(self) -> Layout:
        assert self.box is not None
        out = Layout(self.width, 0)
        words = self._words
        before = 2 + (pins_width(self.top) - DROP if len(self.top) > 1 else 0)
        title_x = before if len(self.top) != 1 else DROP + 2
        title = clip(self.box.title, LONGEST)
        self_height = len(words) + 2
        role: Role = "segment" if self.box.kind == "segment" else "bridge"
        out.frames.append(Frame(0, 0, self.width, self_height, role, title, title_x, self.box.up))
        for number, line in enumerate(words, start=1):
            out.labels.append(Label(2, number, line, role))
        bar = bottom = self_height - 1
        bus = bar
        for start in range(0, len(self.hanging), max(self.columns, 1)):
            row = self.hanging[start : start + self.columns]
            if start:  # another row hangs from a line of its own, tied to the bridge
                last = INDENT + (len(row) - 1) * (self.cell + GAP) + DROP
                out.lines.append(Line(((0, bus), (0, bottom + 1), (last, bottom + 1)), "bridge"))
                bus = bottom + 1
            bottom = self._paint_row(out, row, bus)
        out.height = bottom + 1
        return out

    def _paint_row(self, out: Layout, row: Sequence[Hanging], bus: int) -> int:
        names = [self._names(one) for one in row]
        spoken = any(near for near, _ in names) + any(far for _, far in names)
        top = bus + 1 + spoken
        height = max(len(self._lines(one)) for one in row) + 2
        for place, (one, (near, far)) in enumerate(zip(row, names, strict=True)):
            x = INDENT + place * (self.cell + GAP)
            cable = x + DROP
            points = ((cable, bus), (cable, top))
            out.lines.append(
                Line(points, one.link.kind, one.index, one.link.up and one.box.up, one.index)
            )
            room = self.cell - DROP - 2
            if near:
                out.labels.append(Label(cable + 2, bus + 1, clip(near, room), "port"))
            if far:
                out.labels.append(Label(cable + 2, top - 1, clip(far, room), "port"))
            title = clip(one.box.title, self.cell - DROP - 5)
            role: Role = one.box.kind
            out.frames.append(Frame(x, top, self.cell, height, role, title, DROP + 1, one.box.up))
            for number, line in enumerate(self._lines(one), start=1):
                text = clip(line, self.cell - 4)
                out.labels.append(Label(x + 2, top + number, text, role))
        return top + height - 1


@dataclass(slots=True)
class DoorItem(Item):
    """An interface of a host, on its border: a name, with links to both sides."""

    box: Box | None = None
    outer: list[Pin] = field(default_factory=list)  # of links from outside

    def settle(self) -> None:
        x = DROP
        for pin in self.outer:
            pin.x = x
            x += pin.space
        Item.settle(self)

    def fit(self) -> None:
        assert self.box is not None
        words = len(" ".join([self.box.title, *self.box.lines])) + 3
        self.width = max(words, pins_width(self.bottom), pins_width(self.outer))
        self.height = 1

    def paint(self) -> Layout:
        assert self.box is not None
        out = Layout(self.width, 1)
        text = " ".join([self.box.title, *self.box.lines])
        span = max((pin.x for pin in (*self.bottom, *self.outer)), default=0) + 1
        out.labels.append(Label(1, 0, f" {text} ", "door", span))
        return out


@dataclass(slots=True)
class HostItem(Item):
    """A host's frame around what was placed already."""

    title: str = ""
    content: Layout = field(default_factory=Layout)
    doors: tuple[int, ...] = ()  # where each door ends
    margin: int = 2

    def settle(self) -> None:
        """Its pins stand above its doors."""

    def fit(self) -> None:
        self.fixed = True
        behind = max(self.doors, default=0) + self.margin
        title = clip(self.title, LONGEST)
        self.width = max(self.content.width + 2 * self.margin, behind + len(title) + 5, 12)
        self.height = max(self.content.height + 1 + (0 if self.doors else 1), 2)

    def paint(self) -> Layout:
        out = Layout(self.width, self.height)
        title = clip(self.title, LONGEST)
        at = self.width - len(title) - 4
        out.frames.append(Frame(0, 0, self.width, self.height, "host", title, at))
        out.place(self.content, self.margin, 0 if self.doors else 1)
        return out

"""Items and the links between them, placed: layers from the top, or a way in snakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from netplug.draw.channel import route
from netplug.draw.items import DROP, NAT, BridgeItem, Item, Pin
from netplug.draw.layers import (
    Edge,
    Step,
    Stop,
    choose_layers,
    make_rows,
    order_rows,
    pin_x,
    place_rows,
)
from netplug.draw.scene import Link
from netplug.draw.shapes import Label, Layout, Line, Point

Links = Mapping[int, Link]


def arrange(items: Sequence[Item], edges: Sequence[Edge], links: Links, width: int) -> Layout:
    """A connected group of items in layers; each item then knows its own place."""
    layers = choose_layers(items, edges, width)
    rows, steps = make_rows(items, edges, layers)
    order_rows(rows, steps)
    _make_pins(rows, steps, links)
    out = Layout(place_rows(rows, steps))
    _stretch(rows, steps)
    starting: dict[int, list[Step]] = {}
    row_of = {id(stop): number for number, row in enumerate(rows) for stop in row}
    for step in steps:
        starting.setdefault(row_of[id(step.upper)], []).append(step)
    ways: dict[int, list[Point]] = {}
    y = 0
    for number, row in enumerate(rows):
        height = max((stop.item.height for stop in row if stop.item), default=1)
        for stop in row:
            if stop.item is not None:
                stop.item.x, stop.item.y = stop.x, y
                out.place(stop.item.paint(), stop.x, y)
        y = _connect(starting.get(number, []), ways, top=y, bottom=y + height, out=out)
    out.height = y
    for index, points in ways.items():
        out.lines.append(make_line(points, links[index], index))
    for stop in (stop for row in rows for stop in row):
        if stop.item is not None:
            _label_pins(stop.item, out)
    out.width = max([out.width, *(s.x + s.width for row in rows for s in row)])
    out.width = max([out.width, *(x + 1 for points in ways.values() for x, _ in points)])
    return out


def make_line(points: Sequence[Point], link: Link, index: int) -> Line:
    """A link along its way, without points that turn nowhere."""
    kept = [points[0]]
    for before, point, after in zip(points, points[1:], points[2:], strict=False):
        if not (before[0] == point[0] == after[0] or before[1] == point[1] == after[1]):
            kept.append(point)
    return Line((*kept, points[-1]), link.kind, index, link.up, index)


def _make_pins(rows: Sequence[Sequence[Stop]], steps: Iterable[Step], links: Links) -> None:
    """Pins in the order in which the other ends stand, so that links do not cross at a box."""
    wanted: dict[int, list[tuple[int, Pin, bool]]] = {}
    for step in steps:
        for stop, other, upper in (
            (step.upper, step.lower, True),
            (step.lower, step.upper, False),
        ):
            if stop.item is not None and not stop.item.fixed:
                pin = make_pin(links[step.link], step.link, stop.item.name, below=not upper)
                wanted.setdefault(id(stop), []).append((other.at, pin, upper))
    for stop in (stop for row in rows for stop in row):
        if stop.item is None or stop.item.fixed:
            continue
        found = sorted(wanted.get(id(stop), ()), key=lambda one: (one[0], one[1].link))
        stop.item.top = [pin for _, pin, upper in found if not upper]
        stop.item.bottom = [pin for _, pin, upper in found if upper]
        stop.item.fit()
        stop.item.settle()
        stop.width = stop.item.width


def _stretch(rows: Sequence[Sequence[Stop]], steps: Iterable[Step]) -> None:
    """A bridge that is alone in its layer becomes as long as what is linked to it below."""
    below: dict[int, dict[int, int]] = {}
    for step in steps:
        x = step.lower.x + pin_x(step.lower, step.link, upper=False)
        below.setdefault(id(step.upper), {})[step.link] = x
    for row in rows:
        item = row[0].item
        if len(row) == 1 and isinstance(item, BridgeItem) and item.bottom:
            columns = [below[id(row[0])][pin.link] for pin in item.bottom]
            if not item.hanging and not item.top:
                row[0].x = max(min(columns) - DROP, 0)
            item.settle([column - row[0].x for column in columns])
            row[0].width = item.width


def make_pin(link: Link, index: int, box: str, *, below: bool) -> Pin:
    """The end of a link at a box; the lower end says what is worth knowing of the link."""
    plug = link.a if link.a.box == box else link.b
    words = [plug.name, link.note if below else "", "" if link.up or not below else "down"]
    return Pin(index, " ".join(word for word in words if word), plug.nat)


def _connect(
    steps: Sequence[Step], ways: dict[int, list[Point]], *, top: int, bottom: int, out: Layout
) -> int:
    """The lines from one layer to the next; the row at which that one begins."""
    if not steps:
        return bottom
    pins = []
    for step in steps:
        x1 = step.upper.x + pin_x(step.upper, step.link, upper=True)
        x2 = step.lower.x + pin_x(step.lower, step.link, upper=False)
        pins.append((step.link, x1, x2))
    passes, tracks = route(pins)
    above = any(
        pin.text or pin.nat
        for step in steps
        if step.upper.item
        for pin in step.upper.item.bottom
        if step.upper.item.floor + top + 1 >= bottom
    )
    below = any(
        pin.text or pin.nat for step in steps if step.lower.item for pin in step.lower.item.top
    )
    start = bottom + above
    end = start + max(tracks + below, 0 if above else 1)
    for step, way in zip(steps, passes, strict=True):
        floor = top if step.upper.item is None else top + step.upper.item.floor
        points = ways.setdefault(step.link, [(way.x1, floor)])
        x = way.x1
        for track, column in way.turns:
            points += [(x, start + track), (column, start + track)]
            x = column
        points.append((x, end))
    return end


def _label_pins(item: Item, out: Layout) -> None:
    for pins, y in ((item.top, item.y - 1), (item.bottom, item.y + item.floor + 1)):
        for pin in pins:
            x = item.x + pin.x + 2
            if pin.nat:
                out.labels.append(Label(x, y, NAT, "nat"))
                x += len(NAT) + 1
            if pin.text:
                out.labels.append(Label(x, y, pin.text, "port"))


def arrange_way(items: Sequence[Item], edges: Sequence[Edge], links: Links, width: int) -> Layout:
    """Items of a way, one after the other, in rows that run to and fro."""
    gaps = []
    for here, there, index in edges:
        one, other = (make_pin(links[index], index, name, below=False) for name in (here, there))
        words = one.space + other.space - 2
        gaps.append(max(words + 1, len(links[index].note) + 2, 5))
    for item in items:
        item.settle()
        item.fit()
    rows: list[list[int]] = [[0]]
    used = items[0].width
    for number in range(1, len(items)):
        more = gaps[number - 1] + items[number].width
        if used + more > width:
            rows.append([])
            used = items[number].width
        else:
            used += more
        rows[-1].append(number)
    out = Layout()
    y = 0
    for count, row in enumerate(rows):
        backwards = count % 2 == 1
        x = _row_start(items, row, rows[count - 1] if count else [], backwards=backwards)
        height = max(items[number].height for number in row)
        for number in row:
            item = items[number]
            before = gaps[number - 1] if number != row[0] else 0
            x = x - before - item.width if backwards else x + before
            item.x, item.y = x, y
            if number != row[0]:
                _join(items[number - 1], item, edges[number - 1], links, out)
            elif count:
                _drop(items[number - 1], item, edges[number - 1], links, out)
            if not backwards:
                x += item.width
        y += height + 2
    left = min(item.x for item in items)
    shifted = Layout()
    for item in items:
        out.place(item.paint(), item.x, item.y)
    shifted.place(out, -left, 0)
    for item in items:
        item.x -= left
    shifted.width = max(
        *(item.x + item.width for item in items),
        *(label.x + len(label.text) for label in shifted.labels),
        1,
    )
    shifted.height = max(y - 2, *(label.y + 1 for label in shifted.labels), 1)
    return shifted


def _row_start(
    items: Sequence[Item], row: Sequence[int], above: Sequence[int], *, backwards: bool
) -> int:
    """Where a row begins: beneath the last item of the one above it."""
    if not above:
        return 0
    last = items[above[-1]]
    return last.x + max(last.width, items[row[0]].width) if backwards else last.x


def _join(one: Item, other: Item, edge: Edge, links: Links, out: Layout) -> None:
    """A link from side to side, with the names of its ends above it and the rest below."""
    here, there, index = edge
    link = links[index]
    y = one.y + 1
    first, second = (here, there) if one.x < other.x else (there, here)
    left, right = (one, other) if one.x < other.x else (other, one)
    x1, x2 = left.x + left.width - 1, right.x
    out.lines.append(make_line([(x1, y), (x2, y)], link, index))
    near = make_pin(link, index, first, below=False)
    far = make_pin(link, index, second, below=False)
    x = x1 + 2
    for text, role in ((NAT if near.nat else "", "nat"), (near.text, "port")):
        if text:
            out.labels.append(Label(x, y - 1, text, role))  # type: ignore[arg-type]
            x += len(text) + 1
    x = x2 - 1
    for text, role in ((far.text, "port"), (NAT if far.nat else "", "nat")):
        if text:
            x -= len(text)
            out.labels.append(Label(x, y - 1, text, role))  # type: ignore[arg-type]
            x -= 1
    note = " ".join(filter(None, (link.note, "" if link.up else "down")))
    if note:
        out.labels.append(Label(x1 + 1 + (x2 - x1 - 1 - len(note)) // 2, y + 1, note, "port"))


def _drop(one: Item, other: Item, edge: Edge, links: Links, out: Layout) -> None:
    """A link from a row to the next one."""
    here, there, index = edge
    link = links[index]
    x = max(one.x, other.x) + DROP - 1
    y1, y2 = one.y + one.height - 1, other.y
    out.lines.append(make_line([(x, y1), (x, y2)], link, index))
    for name, y, below in ((here, y1 + 1, False), (there, y2 - 1, True)):
        pin = make_pin(link, index, name, below=below)
        at = x + 2
        if pin.nat:
            out.labels.append(Label(at, y, NAT, "nat"))
            at += len(NAT) + 1
        if pin.text:
            out.labels.append(Label(at, y, pin.text, "port"))

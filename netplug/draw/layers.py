"""Which item stands in which layer, in which order, and at which column.

The classic three steps (Sugiyama, Tagawa, Toda 1981): layers, so that every link leads down;
orders by barycentres, so that few links cross; columns by least squares, so that links are
straight. All is deterministic: the same scene gives the same picture.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netplug.draw.items import Item

SPACE = 2  # cells between two items of a layer
SWEEPS = 4  # alternately down and up; more change little


@dataclass(slots=True, eq=False)
class Stop:
    """An item in its layer, or (item None) the place where a long link passes a layer."""

    item: Item | None
    width: int
    x: int = 0
    at: int = 0  # place in its layer


@dataclass(slots=True)
class Step:
    """A piece of a link, from one layer to the next one."""

    link: int
    upper: Stop
    lower: Stop


Edge = tuple[str, str, int]  # two items, in any order, and the link's place in the scene


def find_centre(names: Sequence[str], neighbours: dict[str, list[str]]) -> str:
    """The middle of a longest way: twice breadth first. The first name decides among equals."""
    far = _search([names[0]], neighbours)[-1]
    before: dict[str, str] = {}
    way = [_search([far], neighbours, before)[-1]]
    while way[-1] in before:
        way.append(before[way[-1]])
    return way[len(way) // 2]


def _search(
    start: Iterable[str],
    neighbours: dict[str, list[str]],
    before: dict[str, str] | None = None,
) -> list[str]:
    """All names that can be reached, breadth first."""
    order = list(dict.fromkeys(start))
    seen = set(order)
    queue = deque(order)
    while queue:
        name = queue.popleft()
        for other in neighbours[name]:
            if other not in seen:
                seen.add(other)
                order.append(other)
                queue.append(other)
                if before is not None:
                    before[other] = name
    return order


def find_components(names: Sequence[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Names that hang together, each group in the order given."""
    neighbours = find_neighbours(names, edges)
    group: dict[str, int] = {}
    for name in names:
        if name not in group:
            number = len(group)
            group.update(dict.fromkeys(_search([name], neighbours), number))
    found: dict[int, list[str]] = {}
    for name in names:
        found.setdefault(group[name], []).append(name)
    return list(found.values())


def find_neighbours(names: Iterable[str], edges: Iterable[Edge]) -> dict[str, list[str]]:
    neighbours: dict[str, list[str]] = {name: [] for name in names}
    for a, b, _ in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    return neighbours


def choose_layers(items: Sequence[Item], edges: Sequence[Edge], width: int) -> dict[str, int]:
    """A layer for each item, so that no link stays inside one and each fits into `width`."""
    by_name = {item.name: item for item in items}
    neighbours = find_neighbours(by_name, edges)
    first = [item.name for item in items if item.first]
    order = _search(first or [find_centre(list(by_name), neighbours)], neighbours)
    # Hosts are met from above alone: they come last.
    order.sort(key=lambda name: (not by_name[name].first, by_name[name].fixed))
    layers: dict[str, int] = {}
    used: dict[int, int] = {}
    for name in order:
        item = by_name[name]
        above = [layers[other] for other in neighbours[name] if other in layers]
        layer = max(above, default=-1) + 1
        while not item.first and used.get(layer) and used[layer] + item.width > width:
            layer += 1
        layers[name] = layer
        used[layer] = used.get(layer, 0) + item.width + SPACE
    return layers


def make_rows(
    items: Sequence[Item], edges: Sequence[Edge], layers: dict[str, int]
) -> tuple[list[list[Stop]], list[Step]]:
    """The layers as rows of stops, and the pieces of links between them."""
    rows: list[list[Stop]] = [[] for _ in range(max(layers.values()) + 1)]
    stops = {}
    for item in sorted(items, key=lambda item: layers[item.name]):
        stops[item.name] = Stop(item, item.width)
        rows[layers[item.name]].append(stops[item.name])
    steps = []
    for one, other, link in edges:
        upper, lower = sorted((one, other), key=lambda name: layers[name])
        stop = stops[upper]
        for layer in range(layers[upper] + 1, layers[lower]):
            passing = Stop(None, 1)
            rows[layer].append(passing)
            steps.append(Step(link, stop, passing))
            stop = passing
        steps.append(Step(link, stop, stops[lower]))
    return rows, steps


def order_rows(rows: list[list[Stop]], steps: Sequence[Step]) -> None:
    """Sorts each row by the middle of what its stops are linked to; keeps the best order seen."""
    above, below = _sides(steps)
    _number(rows)
    best, best_rows = _crossings(rows, steps), [list(row) for row in rows]
    for sweep in range(SWEEPS):
        if not best:
            break
        side, order = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        for row in order:
            centre = {
                id(stop): (
                    sum(other.at for other in side[id(stop)]) / len(side[id(stop)])
                    if side.get(id(stop))
                    else stop.at
                )
                for stop in row
            }
            row.sort(key=lambda stop: centre[id(stop)])
            _number([row])
        count = _crossings(rows, steps)
        if count < best:
            best, best_rows = count, [list(row) for row in rows]
    rows[:] = best_rows
    _number(rows)


def _sides(steps: Iterable[Step]) -> tuple[dict[int, list[Stop]], dict[int, list[Stop]]]:
    above: dict[int, list[Stop]] = {}
    below: dict[int, list[Stop]] = {}
    for step in steps:
        above.setdefault(id(step.lower), []).append(step.upper)
        below.setdefault(id(step.upper), []).append(step.lower)
    return above, below


def _number(rows: Iterable[Iterable[Stop]]) -> None:
    for row in rows:
        for place, stop in enumerate(row):
            stop.at = place


def _crossings(rows: list[list[Stop]], steps: Sequence[Step]) -> int:
    row_of = {id(stop): number for number, row in enumerate(rows) for stop in row}
    between: dict[int, list[tuple[int, int]]] = {}
    for step in steps:
        pair = (step.upper.at, step.lower.at)
        between.setdefault(row_of[id(step.upper)], []).append(pair)
    found = 0
    for pairs in between.values():
        seen: list[int] = []
        for _, lower in sorted(pairs):
            found += len(seen) - bisect_left(seen, lower + 1)
            insort(seen, lower)
    return found


def place_rows(rows: list[list[Stop]], steps: Sequence[Step]) -> int:
    """Gives each stop its column; the width that all of it takes."""
    above: dict[int, list[Step]] = {}
    below: dict[int, list[Step]] = {}
    for step in steps:
        above.setdefault(id(step.lower), []).append(step)
        below.setdefault(id(step.upper), []).append(step)
    width = 0
    for row in rows:
        x = 0
        for stop in row:
            stop.x = x
            x += stop.width + SPACE
        width = max(width, x - SPACE)
    for sweep in range(3):
        side, order = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        for row in order:
            wanted = [_wish(stop, side.get(id(stop), ())) for stop in row]
            _settle_row(row, wanted, width)
    return width


def pin_x(stop: Stop, link: int, *, upper: bool) -> int:
    """The column of a link at a stop, counted from the stop's left."""
    if stop.item is None:
        return 0
    pins = stop.item.bottom if upper else stop.item.top
    return next(pin.x for pin in pins if pin.link == link)


def _wish(stop: Stop, steps: Sequence[Step]) -> float | None:
    """The column at which the links of a stop would be straight: the median."""
    found = []
    for step in steps:
        other = step.upper if step.lower is stop else step.lower
        theirs = other.x + pin_x(other, step.link, upper=other is step.upper)
        found.append(theirs - pin_x(stop, step.link, upper=stop is step.upper))
    return sorted(found)[(len(found) - 1) // 2] if found else None


def _settle_row(row: list[Stop], wanted: Sequence[float | None], width: int) -> None:
    """Columns nearest to the wanted ones that keep order and space (pool adjacent violators)."""
    offset, offsets = 0, []
    for stop in row:
        offsets.append(offset)
        offset += stop.width + SPACE
    slack = width - (offset - SPACE)
    pools: list[list[float]] = []  # sum of wishes, weight, stops
    for stop, wish, left in zip(row, wanted, offsets, strict=True):
        value, weight = (stop.x - left, 0.01) if wish is None else (wish - left, 1.0)
        pools.append([value * weight, weight, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    place = 0
    for total, weight, count in pools:
        shift = min(max(round(total / weight), 0), max(slack, 0))
        for _ in range(int(count)):
            row[place].x = offsets[place] + shift
            place += 1

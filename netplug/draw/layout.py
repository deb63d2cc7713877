"""Scene -> positions: the one layout function, for text and for vectors. Pure.

Boxes that hang from one bridge alone are placed with it; what remains is placed in layers,
the outside at the top; a host is a frame around such a picture, with doors on its border.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netplug.draw.arrange import arrange, arrange_way, make_pin
from netplug.draw.items import BoxItem, BridgeItem, DoorItem, Hanging, HostItem, Item, far_plug
from netplug.draw.layers import Edge, find_components
from netplug.draw.scene import Box, Plug, Scene
from netplug.draw.shapes import Label, Layout

NOTHING = "nothing to show"
MARGIN = 2  # cells between a host's border and what stands in it
COLUMNS = (None, 4, 3, 2, 1)  # boxes beside one another below a bridge: what is tried
LARGE = 150  # boxes; of larger scenes fewer layouts are tried


def compute_layout(scene: Scene, *, width: int = 80) -> Layout:
    """The picture within `width` units where it can be, of any height; the lowest of a few."""
    if not scene.boxes and not scene.hosts:
        return Layout(len(NOTHING), 1, labels=[Label(0, 0, NOTHING, "outside")])
    found: list[Layout] = []
    for version in (scene, _without_ports(scene)):
        for columns in _choose_columns(scene):
            found.append(_Composer(version, width, columns).compose())
            if found[-1].width <= width and columns is None and found[-1].height <= width // 4:
                break
        if any(layout.width <= width for layout in found):
            break
    best = min(found, key=lambda one: (max(one.width - width, 0), one.height * 8 + one.width))
    cables = [index for index, link in enumerate(scene.links) if link.kind == "cable"]
    colour = {index: number for number, index in enumerate(cables)}
    best.lines = [replace(line, colour=colour.get(line.link, 0)) for line in best.lines]
    return best


def _choose_columns(scene: Scene) -> list[int | None]:
    """What is worth a try: no more than the bridge with the most links has."""
    bridges = {box.name for box in scene.boxes if box.kind == "bridge"}
    ends = Counter(p.box for link in scene.links for p in (link.a, link.b) if p.box in bridges)
    most = max(ends.values(), default=0)
    found = [columns for columns in COLUMNS if columns is None or columns < most]
    return found if len(scene.boxes) <= LARGE else found[::3]


def _without_ports(scene: Scene) -> Scene:
    """The same with fewer words: no names of bridge ports."""
    bridges = {box.name for box in scene.boxes if box.kind == "bridge"}

    def mute(plug: Plug) -> Plug:
        return replace(plug, name="") if plug.box in bridges else plug

    links = (replace(link, a=mute(link.a), b=mute(link.b)) for link in scene.links)
    return replace(scene, links=tuple(links))


@dataclass(slots=True)
class _Composer:
    scene: Scene
    width: int
    columns: int | None

    def compose(self) -> Layout:
        host_of = {box.name: box.host for box in self.scene.boxes}
        inner: dict[str, list[int]] = {host: [] for host in self.scene.hosts}
        outer: list[int] = []
        for index, link in enumerate(self.scene.links):
            hosts = {host_of[link.a.box], host_of[link.b.box]}
            host = hosts.pop()
            (outer if hosts or not host else inner[host]).append(index)
        boxes: dict[str, list[Box]] = {}
        for box in self.scene.boxes:
            boxes.setdefault(box.host, []).append(box)
        items: list[Item] = [
            self._host(host, boxes.get(host, []), inner[host], outer) for host in self.scene.hosts
        ]
        free, edges = self._items(boxes.get("", []), outer, host_of, self.width)
        return self._group([*free, *items], edges, self.width)

    def _items(
        self, boxes: Sequence[Box], links: Sequence[int], host_of: dict[str, str], width: int
    ) -> tuple[list[Item], list[Edge]]:
        """Boxes as items, those that hang from a bridge alone inside of it; the other links."""
        own = {box.name: box for box in boxes}
        degree: Counter[str] = Counter()
        for index in links:
            link = self.scene.links[index]
            degree.update((link.a.box, link.b.box))
        hanging: dict[str, list[Hanging]] = {}
        hung: set[str] = set()
        edges: list[Edge] = []
        for index in links:
            link = self.scene.links[index]
            for one, other in ((link.a.box, link.b.box), (link.b.box, link.a.box)):
                bridge, leaf = own.get(one), own.get(other)
                if (
                    bridge is not None
                    and leaf is not None
                    and bridge.kind == "bridge"
                    and leaf.kind in ("namespace", "router")
                    and degree[other] == 1
                    and not far_plug(link, one).nat
                ):
                    hanging.setdefault(one, []).append(Hanging(leaf, link, index))
                    hung.add(other)
                    break
            else:
                ends = [p if p in own else _frame(host_of[p]) for p in (link.a.box, link.b.box)]
                edges.append((ends[0], ends[1], index))
        items: list[Item] = []
        for box in boxes:
            if box.name in hung:
                continue
            if box.kind in ("bridge", "segment"):
                item: Item = BridgeItem(
                    box.name,
                    box=box,
                    hanging=hanging.get(box.name, []),
                    room=width,
                    limit=self.columns,
                )
                item.first = box.kind == "segment"
            elif box.kind == "door":
                item = DoorItem(box.name, box=box, first=True)
            else:
                item = BoxItem(box.name, box=box, first=box.kind == "outside")
            item.fit()
            items.append(item)
        return items, edges

    def _host(
        self, host: str, boxes: Sequence[Box], links: Sequence[int], outer: Sequence[int]
    ) -> Item:
        """A host's frame around its picture; links from outside end at the doors."""
        width = self.width - 2 * MARGIN - 2
        items, edges = self._items(boxes, links, dict.fromkeys((b.name for b in boxes), ""), width)
        doors = {item.name: item for item in items if isinstance(item, DoorItem)}
        for index in outer:
            link = self.scene.links[index]
            for plug in (link.a, link.b):
                if plug.box in doors:
                    door = doors[plug.box]
                    door.outer.append(make_pin(link, index, plug.box, below=True))
                    door.settle()
                    door.fit()
        content = self._group(items, edges, width)
        ends = tuple(door.x + door.width for door in doors.values())
        frame = HostItem(_frame(host), title=f"host {host}", content=content, doors=ends)
        for door in doors.values():
            for pin in door.outer:
                frame.top.append(replace(pin, x=pin.x + door.x + frame.margin))
        frame.fit()
        return frame

    def _group(self, items: Sequence[Item], edges: Sequence[Edge], width: int) -> Layout:
        """Groups that hang together side by side, in rows; those with doors as one, on top."""
        by_name = {item.name: item for item in items}
        groups = find_components(list(by_name), edges)
        doors = [g for g in groups if any(isinstance(by_name[name], DoorItem) for name in g)]
        rest = [g for g in groups if g not in doors]
        if doors:
            groups = [[name for group in doors for name in group], *rest]
        out = Layout()
        x = y = bottom = 0
        for number, group in enumerate(groups):
            own = [by_name[name] for name in group]
            names = set(group)
            inside = [edge for edge in edges if edge[0] in names]
            part = self._part(own, inside, width)
            below_doors = bool(doors) and number == 1
            if x and (x + part.width > width or below_doors):
                x, y = 0, bottom + 1
            out.place(part, x, y)
            for item in own:
                item.x, item.y = item.x + x, item.y + y
            bottom = max(bottom, y + part.height)
            x += part.width + 2
            out.width = max(out.width, x - 2)
        out.height = bottom
        return out

    def _part(self, items: list[Item], edges: list[Edge], width: int) -> Layout:
        links = {index: self.scene.links[index] for _, _, index in edges}
        way = _find_way(items, edges)
        if way is not None:
            return arrange_way(*way, links, width)
        return arrange(items, edges, links, width)


def _frame(host: str) -> str:
    """The name of a host's item, which no box has."""
    return f"host {host}"


def _find_way(items: Iterable[Item], edges: Sequence[Edge]) -> tuple[list[Item], list[Edge]] | None:
    """The items one after the other where they form a way without branches, else None."""
    by_name = {item.name: item for item in items}
    at: dict[str, list[Edge]] = {name: [] for name in by_name}
    for edge in edges:
        at[edge[0]].append(edge)
        at[edge[1]].append(edge)
    plain = all(isinstance(item, BoxItem) and not item.first for item in by_name.values())
    ends = [name for name, mine in at.items() if len(mine) == 1]
    if not plain or len(ends) != 2 or len(edges) != len(by_name) - 1 or len(by_name) < 2:
        return None
    if any(len(mine) > 2 for mine in at.values()):
        return None
    name, order, used = ends[0], [by_name[ends[0]]], list[Edge]()
    while len(order) < len(by_name):
        edge = next(edge for edge in at[name] if not used or edge[2] != used[-1][2])
        other = edge[1] if edge[0] == name else edge[0]
        used.append((name, other, edge[2]))
        order.append(by_name[other])
        name = other
    return order, used

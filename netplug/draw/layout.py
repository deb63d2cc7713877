"""Scene -> positions. Pure, and free of any output format.

One unit is one character cell: a text renderer uses it as it is, a vector renderer scales
it. The picture reads from the top: the outside, the host's border with its uplinks, one
bridge for each network, its containers hanging from it in as many rows as the width asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from netplug.draw.scene import AttachmentScene, NetworkScene, Scene
from netplug.model import Port

Role = Literal["host", "bridge", "container", "uplink", "cable", "address", "note"]

TRUNK = 4  # column of the first uplink, inside the host's border
TRUNK_GAP = 4  # between the names of two uplinks on the border, blanks included
BRANCH = 7  # from the last uplink to the bridges: a line with NAT on it
INDENT = 2  # containers stand right of their bridge's spine
GAP = 1
DROP = 3  # a cable meets its container this far from the corner, so that its name has room
DETAILED = 8  # networks with more containers are drawn densely: no cable names, no prefixes
CABLE_NAME = 16  # a blank and a link name
NARROWEST = 24  # of a bridge: below it a picture grows wider than asked rather than say nothing
ELLIPSIS = "…"
NOTHING = "no networks"


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
class Wire:
    """A straight line, ends included; it joins whatever it meets."""

    x1: int
    y1: int
    x2: int
    y2: int
    role: Role
    up: bool = True


@dataclass(frozen=True, slots=True)
class Label:
    x: int
    y: int
    text: str
    role: Role


@dataclass(slots=True)
class Layout:
    """Everything to paint, in order; labels go over lines."""

    width: int = 0
    height: int = 0
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


def compute_layout(scene: Scene, *, width: int = 80, macs: bool = False) -> Layout:
    """The picture of a scene within `width` units, of any height; narrower where it can be.

    `macs` shows hardware addresses too.
    """
    layout = Layout()
    uplinks = list(dict.fromkeys(filter(None, map(_uplink, scene.networks))))
    columns: dict[str, int] = {}
    border = TRUNK
    for uplink in uplinks:
        columns[uplink] = border
        border += len(uplink) + TRUNK_GAP
    left = max(columns.values(), default=TRUNK - BRANCH + 1) + BRANCH
    top = 2 if uplinks else 0
    # The rightmost uplink serves the first networks: then no branch crosses another uplink.
    networks = sorted(scene.networks, key=lambda n: -columns.get(_uplink(n), 0))
    shared = _networks_by_container(scene)
    y = top + 2
    right = left
    for network in networks:
        block = _Block(
            network, left=left, width=max(width - left - 2, NARROWEST), shared=shared, macs=macs
        )
        bottom, block_right = block.place(layout, y)
        column = columns.get(_uplink(network))
        if column is not None:
            _branch(layout, network, column=column, left=left, top=top, y=y + 1)
        y = bottom + 2
        right = max(right, block_right)
    if not networks:
        layout.labels.append(Label(TRUNK, y, NOTHING, "note"))
        y += 2
        right = TRUNK + len(NOTHING)
    title = _clip(f"host {scene.host}", max(right - border - 1, width - border - 4))
    layout.width = max(right + 3, border + len(title) + 4)  # right of the uplinks' names
    layout.height = y
    host = Frame(0, top, layout.width, y - top, "host", title, layout.width - len(title) - 4)
    layout.frames.insert(0, host)
    for uplink, column in columns.items():
        layout.labels.append(Label(column - 3, top, f" {uplink} ", "uplink"))
    if uplinks:
        layout.labels.append(Label(TRUNK - 2, 0, "outside", "note"))
    return layout


def _uplink(network: NetworkScene) -> str:
    return "" if network.internal else network.uplink


def _branch(
    layout: Layout, network: NetworkScene, *, column: int, left: int, top: int, y: int
) -> None:
    """From the outside through the host's border to a bridge, with NAT where addresses change."""
    layout.wires.append(Wire(column, 1, column, y, "uplink"))
    layout.wires.append(Wire(column, y, left, y, "uplink"))
    if network.masquerade:
        layout.labels.append(Label(left - 5, y, "NAT", "uplink"))


def _networks_by_container(scene: Scene) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for network in scene.networks:
        for attachment in network.attachments:
            found[attachment.container] = (*found.get(attachment.container, ()), network.name)
    return found


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + ELLIPSIS


class _Block:
    """One network: its bridge, and its containers in rows below."""

    def __init__(
        self,
        network: NetworkScene,
        *,
        left: int,
        width: int,
        shared: dict[str, tuple[str, ...]],
        macs: bool,
    ) -> None:
        self.network = network
        self.left = left
        self.width = width
        self.dense = len(network.attachments) > DETAILED
        self.contents = [
            _describe(attachment, network, shared, dense=self.dense, macs=macs)
            for attachment in network.attachments
        ]
        wanted = [
            max([len(a.container) + DROP + 5, *(len(line) + 4 for line in lines)])
            for a, lines in zip(network.attachments, self.contents, strict=True)
        ]
        least = 0 if self.dense else DROP + 1 + CABLE_NAME
        inner = width - INDENT
        self.box = min(max([least, *wanted]), inner)
        self.columns = max(1, (inner + GAP) // (self.box + GAP))

    def place(self, layout: Layout, y: int) -> tuple[int, int]:
        """Adds itself from line `y`; the last line and column that it takes."""
        attachments = self.network.attachments
        columns = min(self.columns, len(attachments))
        rows = [range(i, min(i + columns, len(attachments))) for i in _starts(attachments, columns)]
        heading = _wrap(_heading(self.network), self.width - 4)
        title = _clip(self.network.name, self.width - 6)
        content = max([len(title) + 2, *(len(line) for line in heading)])
        needed = INDENT + columns * (self.box + GAP) - GAP if columns else 0
        bridge = min(self.width, max(content + 4, needed))
        layout.frames.append(Frame(self.left, y, bridge, len(heading) + 2, "bridge", title))
        for number, line in enumerate(heading, start=1):
            layout.labels.append(Label(self.left + 2, y + number, line, "address"))
        bus = bottom = y + len(heading) + 1
        for number, row in enumerate(rows):
            if number:  # another row hangs from a line of its own, tied to the bridge
                last = self.left + INDENT + (len(row) - 1) * (self.box + GAP) + DROP
                layout.wires.append(Wire(self.left, bus, self.left, bottom + 1, "bridge"))
                bus = bottom + 1
                layout.wires.append(Wire(self.left, bus, last, bus, "bridge"))
            bottom = self._place_row(layout, row, bus)
        return bottom, self.left + bridge - 1

    def _place_row(self, layout: Layout, row: range, bus: int) -> int:
        top = bus + (1 if self.dense else 2)
        height = max(len(self.contents[i]) for i in row) + 2
        for place, i in enumerate(row):
            attachment = self.network.attachments[i]
            x = self.left + INDENT + place * (self.box + GAP)
            cable = x + DROP
            layout.wires.append(Wire(cable, bus, cable, top, "cable", attachment.up))
            if not self.dense:
                name = attachment.host_name if attachment.up else "down"
                label = _clip(name, self.box - DROP - 2)
                layout.labels.append(Label(cable + 2, bus + 1, label, "cable"))
            title = _clip(attachment.container, self.box - DROP - 5)
            frame = Frame(x, top, self.box, height, "container", title, DROP + 1, up=attachment.up)
            layout.frames.append(frame)
            for number, line in enumerate(self.contents[i], start=1):
                text = _clip(line, self.box - 4)
                layout.labels.append(Label(x + 2, top + number, text, "address"))
        return top + height - 1


def _starts(attachments: Sequence[AttachmentScene], columns: int) -> range:
    return range(0, len(attachments), max(columns, 1))


def _heading(network: NetworkScene) -> list[str]:
    """The words of a bridge, shortest form of each fact."""
    device = network.bridge if network.driver == "bridge" else network.driver
    if network.driver != "bridge" and network.bridge:
        device = f"{network.driver} on {network.bridge}"
    words = [device, *(str(gateway) for gateway in network.gateways)]
    if network.mtu:
        words.append(f"mtu {network.mtu}")
    if network.internal:
        words.append("internal")
    if not network.attachments:
        words.append("no containers")
    return [word for word in words if word]


def _wrap(words: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += "  " + word
        else:
            lines.append(_clip(word, width))
    return lines or [""]


def _describe(
    attachment: AttachmentScene,
    network: NetworkScene,
    shared: dict[str, tuple[str, ...]],
    *,
    dense: bool,
    macs: bool,
) -> list[str]:
    """The lines inside a container's box."""
    if dense:
        lines = [str(address.ip) for address in attachment.addresses]
    else:
        lines = [attachment.ifname, *(str(address) for address in attachment.addresses)]
        first = " ".join(lines[:2])
        lines = [first, *(" " * (len(attachment.ifname) + 1) + line for line in lines[2:])]
    if macs and attachment.mac:
        lines.append(attachment.mac)
    lines.extend(_publications(attachment.ports))
    others = [name for name in shared[attachment.container] if name != network.name]
    if others:
        lines.append(f"also on {', '.join(others)}")
    return lines


def _publications(ports: Sequence[Port]) -> Iterator[str]:
    for port in ports:
        host = "" if port.host_ip is None else str(port.host_ip)
        host = f"[{host}]" if ":" in host else host
        yield f"{host}:{port.host_port} → {port.container_port}/{port.protocol}"

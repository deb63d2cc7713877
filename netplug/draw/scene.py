"""What a picture shows, as values: boxes, links between them, and the hosts that hold them.

A scene knows no driver and no format. `netplug.picture` makes one of records and plans,
`netplug.draw.topology` of a topology; `compute_layout` places it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# bridge: what others hang from (a switch, a macvlan's master); door: an interface on its host's
# border; outside: the world beyond; segment: a network between hosts, such as an overlay.
BoxKind = Literal["bridge", "namespace", "router", "door", "outside", "segment"]
LinkKind = Literal["cable", "uplink", "tunnel"]


@dataclass(frozen=True, slots=True)
class Box:
    """One thing; `name` is unique in its scene, `host` names the frame in which it stands.

    `lines` are its facts, each on a line of its own (those of a bridge are joined where there
    is room); `brief` is said instead where many boxes hang from one bridge.
    """

    name: str
    kind: BoxKind
    title: str
    lines: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()
    host: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Plug:
    """One end of a link: the box, the interface's name where it is to be shown, NAT there."""

    box: str
    name: str = ""
    nat: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A cable with two ends, in no order; `note` is what is worth knowing of it."""

    a: Plug
    b: Plug
    kind: LinkKind = "cable"
    note: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """Raises ValueError where a name is used twice, or a link leads nowhere."""

    boxes: tuple[Box, ...] = ()
    links: tuple[Link, ...] = ()
    hosts: tuple[str, ...] = ()  # frames, in order; hosts without any box too

    def __post_init__(self) -> None:
        names = [box.name for box in self.boxes]
        if twice := {name for name in names if names.count(name) > 1} if _doubled(names) else set():
            raise ValueError(f"two boxes are called {', '.join(sorted(twice))}")
        if unknown := {p.box for link in self.links for p in (link.a, link.b)} - set(names):
            raise ValueError(f"links lead to {', '.join(sorted(unknown))}, which is no box")
        if unknown := {box.host for box in self.boxes if box.host} - set(self.hosts):
            raise ValueError(f"boxes stand in {', '.join(sorted(unknown))}, which is no host")
        self._check_borders()

    def _check_borders(self) -> None:
        """What comes from outside passes a host's border by a door."""
        known = {box.name: box for box in self.boxes}
        for link in self.links:
            a, b = known[link.a.box], known[link.b.box]
            if a.kind == b.kind == "door":
                raise ValueError(f"the doors {a.name} and {b.name} want a segment between them")
            for box in (a, b):
                if a.host != b.host and box.host and box.kind != "door":
                    raise ValueError(f"the link of {box.name} leaves {box.host} without a door")


def _doubled(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def describe_addresses(ifname: str, addresses: Iterable[object]) -> tuple[str, ...]:
    """An interface with its addresses, one a line, the first behind its name."""
    words = [str(address) for address in addresses] or [""]
    indent = " " * (len(ifname) + 1)
    return (f"{ifname} {words[0]}".rstrip(), *(indent + word for word in words[1:]))

"""Scenes to draw: some to look at, and any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from netplug.draw import Box, Link, Plug, Scene, scene_of
from netplug.draw.scene import BoxKind, LinkKind
from netplug.fixtures import load, parse_topology


def topology(**keys: Any) -> Scene:
    return scene_of(parse_topology(keys, name="test"))


def make_star(nodes: int) -> Scene:
    hosts = {f"h{i}": [f"10.0.{(i + 2) // 250}.{(i + 2) % 250}/16"] for i in range(nodes)}
    return topology(hosts=hosts, switches={"br0": list(hosts)})


def make_chain(nodes: int) -> Scene:
    routers: dict[str, dict[str, str]] = {f"r{i}": {} for i in range(nodes)}
    for i in range(nodes - 1):
        routers[f"r{i}"][f"r{i + 1}"] = f"10.0.{i}.1/24"
        routers[f"r{i + 1}"][f"r{i}"] = f"10.0.{i}.2/24"
    return topology(routers=routers)


def make_tree(nodes: int, *, fan: int = 4) -> Scene:
    """Switches with `fan` members each, hosts at the ends."""
    inner = -(-(nodes - 1) // fan)
    hosts = {f"n{i}": [f"10.0.{(i + 2) // 250}.{(i + 2) % 250}/16"] for i in range(inner, nodes)}
    switches = {
        f"n{i}": [f"n{child}" for child in range(fan * i + 1, fan * i + fan + 1) if child < nodes]
        for i in range(inner)
    }
    return topology(hosts=hosts, switches=switches)


def _attached(host: str, networks: dict[str, str], containers: dict[str, list[str]]) -> list[Any]:
    boxes: list[Any] = [Box(f"{host}/eth0", "door", "eth0", host=host)]
    for name, gateway in networks.items():
        words = (f"np-{name}", gateway, "mtu 1450")
        boxes.append(Box(f"{host}/{name}", "bridge", name, words, host=host))
        boxes.append(Link(Plug(f"{host}/eth0", nat=True), Plug(f"{host}/{name}"), "uplink"))
    for name, ends in containers.items():
        lines = []
        for number, end in enumerate(ends):
            network, address = end.split()
            lines.append(f"eth{number} {address}")
            shown = f"eth{number}" if len(ends) > 1 else ""
            port = Plug(f"{host}/{network}", f"veth-{name}-{number}")
            boxes.append(Link(port, Plug(f"{host}/{name}", shown)))
        lines += [":8080 → 80/tcp"] if name == "web" else []
        boxes.append(Box(f"{host}/{name}", "namespace", name, tuple(lines), host=host))
    return boxes


def make_scene(parts: list[Any], *hosts: str) -> Scene:
    boxes = tuple(part for part in parts if isinstance(part, Box))
    return Scene(boxes, tuple(part for part in parts if isinstance(part, Link)), hosts)


OUTSIDE = [
    Box("outside", "outside", "outside"),
    Link(Plug("outside"), Plug("demo/eth0"), "uplink"),
]
SHARED = make_scene(
    [
        *OUTSIDE,
        *_attached(
            "demo",
            {"lan": "10.1.0.1/24", "back": "10.2.0.1/24"},
            {
                "web": ["lan 10.1.0.2/24"],
                "api": ["lan 10.1.0.3/24", "back 10.2.0.2/24"],
                "db": ["back 10.2.0.3/24"],
            },
        ),
    ],
    "demo",
)


def make_overlay(hosts: int, pods: int) -> Scene:
    parts: list[Any] = [Box("vni", "segment", "VNI 42", ("vxlan", "mtu 1450"))]
    names = [f"n{i}" for i in range(hosts)]
    for i, host in enumerate(names):
        containers = {f"p{j}": [f"pods 10.244.{i}.{j + 2}/24"] for j in range(pods)}
        parts += _attached(host, {"pods": f"10.244.{i}.1/24"}, containers)
        parts += [
            Box(f"{host}/vx42", "door", "vx42", host=host),
            Link(Plug("vni"), Plug(f"{host}/vx42"), "tunnel", "VNI 42"),
            Link(Plug(f"{host}/vx42"), Plug(f"{host}/pods"), "tunnel"),
        ]
    return make_scene(parts, *names)


OVERLAY = make_overlay(2, 2)
CHAIN = make_chain(10)
SCENES = {
    "shared": SHARED,
    "overlay": OVERLAY,
    "chain": CHAIN,
    "star": make_star(10),
    "tree": make_tree(10, fan=3),
    **{
        name: scene_of(load(name))
        for name in ("two-hosts", "switch-tree", "dual-stack", "two-routers", "home", "neighbour")
    },
}

titles = st.from_regex(r"[a-z][a-z0-9-]{0,24}", fullmatch=True)
lines = st.lists(st.sampled_from(["eth0 10.1.0.2/24", "fd00:1::1/64", "mtu 1450", "x"]), max_size=3)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any scene: hosts with doors, boxes within and beyond them, links in every sense."""
    hosts = tuple(draw(st.lists(st.sampled_from(["alpha", "beta", "gamma"]), unique=True)))
    boxes: list[Box] = []
    for host in (*hosts, ""):
        kinds: list[BoxKind] = ["bridge", "namespace", "router"]
        kinds += ["door", "door"] if host else ["segment", "outside"]
        for number in range(draw(st.integers(0, 9))):
            kind = draw(st.sampled_from(kinds))
            words = () if kind in ("door", "outside") else tuple(draw(lines))
            up = draw(st.booleans())
            name = f"{host}.{number}"
            boxes.append(Box(name, kind, draw(titles), words, host=host, up=up))
    links = []
    for host in (*hosts, ""):
        own = [box for box in boxes if box.host == host]
        if not host:
            own += [box for box in boxes if box.kind == "door"]
        for _ in range(draw(st.integers(0, 12)) if len(own) > 1 else 0):
            a, b = draw(st.sampled_from(own)), draw(st.sampled_from(own))
            if a is b or a.kind == b.kind == "door":
                continue
            plugs = [
                Plug(box.name, draw(st.sampled_from(["", "eth0", "veth0123456789a"])), nat)
                for box in (a, b)
                for nat in [draw(st.booleans())]
            ]
            role: LinkKind = draw(st.sampled_from(["cable", "uplink", "tunnel"]))
            note = draw(st.sampled_from(["", "mtu 1400", "VNI 4096"]))
            links.append(Link(plugs[0], plugs[1], role, note, draw(st.booleans())))
    return Scene(tuple(boxes), tuple(links), hosts)

"""Pictures: golden ones to look at, and what holds for every scene."""

from __future__ import annotations

import unicodedata
from ipaddress import ip_address, ip_interface

from hypothesis import given, settings
from hypothesis import strategies as st

from netplug.draw import AttachmentScene, NetworkScene, Scene, compute_layout, render_text
from netplug.draw.ascii import JOINTS
from netplug.model import Port


def attachment(
    container: str, last: int, *, up: bool = True, ports: tuple[Port, ...] = ()
) -> AttachmentScene:
    return AttachmentScene(
        container,
        "eth0",
        f"veth0123456789{last % 10}",
        (ip_interface(f"10.1.0.{last}/24"), ip_interface(f"fd00:1::{last:x}/64")),
        mac=f"02:00:0a:01:00:{last:02x}",
        up=up,
        ports=ports,
    )


def lan(*attachments: AttachmentScene) -> NetworkScene:
    return NetworkScene(
        "lan",
        bridge="br-lan",
        gateways=(ip_interface("10.1.0.1/24"), ip_interface("fd00:1::1/64")),
        mtu=1500,
        masquerade=True,
        uplink="eth0",
        attachments=attachments,
    )


LOCAL = Port(8443, 443, host_ip=ip_address("127.0.0.1"))
BACK = NetworkScene(
    "back",
    bridge="br-back",
    gateways=(ip_interface("10.2.0.1/24"),),
    internal=True,
    attachments=(AttachmentScene("db", "eth1", "veth01234567890", (ip_interface("10.2.0.2/24"),)),),
)
TWO = Scene(
    "demo",
    (lan(attachment("web", 2, ports=(Port(8080, 80), LOCAL)), attachment("db", 3, up=False)), BACK),
)


TWO_NETWORKS = """
  outside
    ╷
╭ eth0 ──────────────────────────────────────────────────── host demo ─╮
│   │                                                                  │
│   │      ┏━ lan ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓ │
│   ╰─NAT──┨ br-lan  10.1.0.1/24  fd00:1::1/64  mtu 1500             ┃ │
│          ┗━━━━┯━━━━━━━━━━━━━━━━━━━━━━━━━━━━┯━━━━━━━━━━━━━━━━━━━━━━━┛ │
│               │ veth01234567892            ╎ down                    │
│            ╭──┴ web ──────────────────╮ ╭╌╌┴ db ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╮ │
│            │ eth0 10.1.0.2/24         │ ╎ eth0 10.1.0.3/24         ╎ │
│            │      fd00:1::2/64        │ ╎      fd00:1::3/64        ╎ │
│            │ :8080 → 80/tcp           │ ╎ also on back             ╎ │
│            │ 127.0.0.1:8443 → 443/tcp │ ╎                          ╎ │
│            ╰──────────────────────────╯ ╰╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╯ │
│                                                                      │
│          ┏━ back ━━━━━━━━━━━━━━━━━━━━━━━━━┓                          │
│          ┃ br-back  10.2.0.1/24  internal ┃                          │
│          ┗━━━━┯━━━━━━━━━━━━━━━━━━━━━━━━━━━┛                          │
│               │ veth01234567890                                      │
│            ╭──┴ db ───────────╮                                      │
│            │ eth1 10.2.0.2/24 │                                      │
│            │ also on lan      │                                      │
│            ╰──────────────────╯                                      │
╰──────────────────────────────────────────────────────────────────────╯
"""[1:-1]

PLAIN = """
  outside
    |
+ eth0 ---------------------------------------- host demo -+
|   |                                                      |
|   |      #= lan =======================================# |
|   +-NAT--# br-lan  10.1.0.1/24  fd00:1::1/64  mtu 1500 # |
|          #====#========================================# |
|               | veth01234567892                          |
|            +--+ web ------------------+                  |
|            | eth0 10.1.0.2/24         |                  |
|            |      fd00:1::2/64        |                  |
|            | 127.0.0.1:8443->443/tcp  |                  |
|            +--------------------------+                  |
+----------------------------------------------------------+
"""[1:-1]

TWO_UPLINKS = """
  outside
    ╷            ╷
╭ enp0s31f6 ── wlan0 ─────────────── host h ─╮
│   │            │                           │
│   │            │      ┏━ b ━━━━━━━━━━━━━━┓ │
│   │            ╰─NAT──┨ b  no containers ┃ │
│   │                   ┗━━━━━━━━━━━━━━━━━━┛ │
│   │                                        │
│   │                   ┏━ a ━━━━━━━━━━━━━━┓ │
│   ├───────────────────┨ a  no containers ┃ │
│   │                   ┗━━━━━━━━━━━━━━━━━━┛ │
│   │                                        │
│   │                   ┏━ c ━━━━━━━━━━━━━━┓ │
│   ╰───────────────────┨ c  no containers ┃ │
│                       ┗━━━━━━━━━━━━━━━━━━┛ │
╰────────────────────────────────────────────╯
"""[1:-1]

EMPTY = """
╭──── host demo ─╮
│                │
│   no networks  │
╰────────────────╯
"""[1:-1]


def test_two_networks() -> None:
    assert render_text(TWO) == TWO_NETWORKS


def test_plain_characters_on_request() -> None:
    scene = Scene("demo", (lan(attachment("web", 2, ports=(LOCAL,))),))
    assert render_text(scene, charset="ascii") == PLAIN


def test_hardware_addresses_on_request() -> None:
    assert "02:00:0a:01:00:02" not in render_text(TWO)
    assert "02:00:0a:01:00:02" in render_text(TWO, macs=True)


def test_nothing_to_show() -> None:
    assert render_text(Scene("demo")) == EMPTY


def test_each_uplink_has_its_own_way_out() -> None:
    def network(name: str, uplink: str) -> NetworkScene:
        return NetworkScene(name, bridge=name, masquerade=uplink == "wlan0", uplink=uplink)

    scene = Scene(
        "h", (network("a", "enp0s31f6"), network("b", "wlan0"), network("c", "enp0s31f6"))
    )
    assert render_text(scene) == TWO_UPLINKS


def test_many_containers_wrap_and_drop_details() -> None:
    scene = Scene("big", (lan(*(attachment(f"c{i}", i + 2) for i in range(50))),))
    text = render_text(scene)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 100
    assert "veth" not in text
    assert all(f" c{i} " in text for i in range(50))
    assert "10.1.0.51" in text


def test_joints_are_what_unicode_calls_them() -> None:
    assert len(JOINTS) == 81
    assert len(set(JOINTS)) == 81
    assert unicodedata.name(JOINTS[27 + 9 + 3 + 1]) == "BOX DRAWINGS LIGHT VERTICAL AND HORIZONTAL"
    assert unicodedata.name(JOINTS[54 + 6 + 1]) == "BOX DRAWINGS VERTICAL HEAVY AND LEFT LIGHT"
    assert unicodedata.name(JOINTS[18 + 3 + 2]) == "BOX DRAWINGS DOWN LIGHT AND HORIZONTAL HEAVY"


names = st.from_regex(r"[a-z][a-z0-9-]{0,40}", fullmatch=True)
attachments = st.builds(
    attachment,
    names,
    st.integers(2, 254),
    up=st.booleans(),
    ports=st.sampled_from([(), (Port(80, 8080),), (LOCAL, Port(53, 53, "udp"))]),
)
networks = st.builds(
    NetworkScene,
    names,
    driver=st.sampled_from(["bridge", "macvlan", "overlay"]),
    bridge=st.sampled_from(["", "br0", "bridge-with-15c"]),
    gateways=st.sampled_from([(), (ip_interface("10.1.0.1/24"), ip_interface("fd00:1::1/64"))]),
    mtu=st.sampled_from([None, 1450]),
    masquerade=st.booleans(),
    internal=st.booleans(),
    uplink=st.sampled_from(["", "eth0", "enp0s31f6"]),
    attachments=st.lists(attachments, max_size=10).map(tuple),
)
few = settings(deadline=None, max_examples=30)
scenes = st.builds(Scene, names, st.lists(networks, max_size=3).map(tuple))


@few
@given(scenes, st.integers(50, 120), st.booleans())
def test_every_picture_fits_and_nothing_overlaps(scene: Scene, width: int, macs: bool) -> None:
    layout = compute_layout(scene, width=width, macs=macs)
    assert layout.width <= width
    boxes = [frame for frame in layout.frames if frame.role != "host"]
    taken: set[tuple[int, int]] = set()
    for box in boxes:
        cells = {
            (x, y)
            for x in range(box.x, box.x + box.width)
            for y in range(box.y, box.y + box.height)
        }
        assert not cells & taken
        taken |= cells
        assert 0 < box.x < layout.width - box.width
        assert box.y + box.height < layout.height
    for label in layout.labels:
        assert 0 <= label.x < layout.width - len(label.text)
    lines = render_text(scene, width=width, macs=macs).splitlines()
    assert len(lines) == layout.height
    assert max(map(len, lines)) <= width


@few
@given(scenes)
def test_plain_ascii_is_plain_ascii(scene: Scene) -> None:
    assert render_text(scene, charset="ascii").isascii()


@few
@given(scenes)
def test_every_container_is_named(scene: Scene) -> None:
    text = render_text(scene, width=100)
    for network in scene.networks:
        for each in network.attachments:
            assert each.container[:6] in text

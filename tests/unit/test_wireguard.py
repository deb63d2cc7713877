"""WireGuard as data plane. This kernel may have none: pyroute2's class has a stand-in, whose
messages are encoded and decoded by pyroute2's own code."""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pyroute2
import pytest
from pyroute2.netlink.generic import wireguard as library

from netplug.kernel import namespaces, wireguard
from netplug.kernel.wireguard import Peer
from netplug.overlay.keys import NetworkRecord
from netplug.overlay.membership import Membership
from netplug.overlay.plan import plan_node
from netplug.resources import Shell
from netplug.resources.wireguard import ensure_private_key, read_private_key

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()
SUBNETS = (ip_network("10.200.9.0/24"), ip_network("fd00:200:0:9::/64"))
PEER = Peer(KEY, ip_address("192.0.2.2"), 51820, SUBNETS)
PEER6 = Peer(OTHER, ip_address("2001:db8::2"), 51820, SUBNETS[:1])


class Device:
    """What the kernel would keep: the peers of all `set` calls, as attributes of messages."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.peers: dict[str, Any] = {}

    def set(self, name: str, **settings: Any) -> None:
        self.calls.append(settings)
        message = library.wgmsg()
        if peer := settings.get("peer"):
            builder = library.AsyncWireGuard.__new__(library.AsyncWireGuard)
            builder._wg_set_peer(message, peer)
            if peer.get("remove"):
                self.peers.pop(peer["public_key"], None)
            else:
                self.peers[peer["public_key"]] = message["attrs"][-1][1][0]

    def info(self, name: str) -> tuple[Any, ...]:
        message = library.wgmsg()
        message["attrs"] = [
            ["WGDEVICE_A_PUBLIC_KEY", KEY.encode()],
            ["WGDEVICE_A_LISTEN_PORT", 51820],
            ["WGDEVICE_A_PEERS", list(self.peers.values())],
        ]
        message.encode()
        found = library.wgmsg(message.data)
        found.decode()
        return (found,)

    def close(self) -> None:
        return None


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(pyroute2, "WireGuard", lambda: made)
    monkeypatch.setattr(namespaces, "in_namespace", lambda fd, work: work())
    return made


def test_peers_that_are_set_are_read_back(device: Device) -> None:
    wireguard.change(0, "vx-web", add=[PEER, PEER6])
    held = wireguard.read(0, "vx-web")
    assert (held.public_key, held.port) == (KEY, 51820)
    assert held.peers == {PEER, PEER6}
    moved = Peer(KEY, ip_address("192.0.2.3"), 51820, SUBNETS)
    wireguard.change(0, "vx-web", add=[moved], remove=[PEER, PEER6])
    assert wireguard.read(0, "vx-web").peers == {moved}  # the same key: changed, not removed


def test_keys_are_private(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "web.wireguard"
    ensure_private_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    private = read_private_key(path)
    ensure_private_key(path)
    assert read_private_key(path) == private
    raw = base64.b64decode(private)
    assert len(raw) == 32 and not raw[0] & 7 and raw[31] & 0xC0 == 0x40
    wireguard.configure(0, "vx-web", private_key=private, port=51820)
    assert device.calls == [{"private_key": private, "listen_port": 51820}]


def test_the_plan_shows_no_key(tmp_path: Path) -> None:
    path = tmp_path / "web.wireguard"
    ensure_private_key(path)
    record = NetworkRecord((ip_network("10.200.0.0/16"),), 24, 4242, encrypt="wireguard")
    here = ip_address("192.0.2.1")
    member = Membership("web", "n1", "i", record, 7, 1, here, "eth0", 1440, key_file=str(path))
    plan = plan_node(member, "np-web", [PEER])
    lines = [line for step in plan for line in step.shell(Shell("none"))]
    assert f"wg set vx-web listen-port 4789 private-key {path}" in lines
    assert any(f"peer {KEY} endpoint 192.0.2.2:51820" in line for line in lines)
    assert read_private_key(path) not in "\n".join(lines) + repr(plan)

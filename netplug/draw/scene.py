"""What a picture shows: one host, its networks, and the containers on them."""

from __future__ import annotations

from dataclasses import dataclass

from netplug.model import IPInterface, Port


@dataclass(frozen=True, slots=True)
class AttachmentScene:
    """One interface of one container; `host_name` is the host's end of the cable, if any."""

    container: str
    ifname: str
    host_name: str = ""
    addresses: tuple[IPInterface, ...] = ()
    mac: str = ""
    up: bool = True
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkScene:
    """One network: `bridge` is the host's device (or a macvlan's master), "" for none.

    `uplink` names the host's interface to the outside, "" where nothing leaves.
    """

    name: str
    driver: str = "bridge"
    bridge: str = ""
    gateways: tuple[IPInterface, ...] = ()
    mtu: int | None = None
    masquerade: bool = False
    internal: bool = False
    uplink: str = ""
    attachments: tuple[AttachmentScene, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    host: str
    networks: tuple[NetworkScene, ...] = ()

"""The keys of a macvlan network, as the reference `macvlan` plugin means them, and ours beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from netplug.errors import ConfigError
from netplug.model import IPInterface
from netplug.plugins.parent import demand_mac, demand_mtu


@dataclass(frozen=True, slots=True)
class MacvlanOptions:
    master: str = ""
    mode: Literal["bridge", "private", "vepa", "passthru", "source"] = "bridge"
    mtu: int = 0
    mac: str = ""
    link_in_container: bool = False
    bcqueuelen: int = 0
    source_macs: tuple[str, ...] = ()
    host_access: bool = False
    host_addresses: tuple[IPInterface, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_mtu(self.mtu)
        for key, macs in (("mac", (self.mac,)), ("sourceMacs", self.source_macs)):
            for mac in filter(None, macs):
                demand_mac(key, mac)
        if bool(self.source_macs) != (self.mode == "source"):
            raise ConfigError(
                "'sourceMacs' and 'mode' do not fit together",
                'mode "source" lets in frames of the listed MACs, and no other mode has a list',
                "set both, or none",
            )
        if not 0 <= self.bcqueuelen < 2**32:
            raise ConfigError(
                f"'bcqueuelen' is {self.bcqueuelen}",
                "it must be within 0..4294967295",
                "correct it",
            )
        if self.host_addresses and not self.host_access:
            raise ConfigError(
                "'hostAddresses' has no use", "'hostAccess' is off", "set it, or remove the key"
            )
        if self.host_access and (self.mode != "bridge" or self.link_in_container):
            raise ConfigError(
                "'hostAccess' cannot be served",
                "only macvlans of mode bridge on a link of the host hear each other",
                "remove it, or set 'mode' to bridge without 'linkInContainer'",
            )

    @property
    def segment(self) -> str:
        """All networks on one parent share a LAN."""
        return f"link:{self.master}" if self.master and not self.link_in_container else ""

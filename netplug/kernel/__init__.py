"""The only part of netplug that talks to the kernel.

A `Kernel` is the pair of network namespaces that one request works in: the
host's and, while it lives, the container's sandbox.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING

from netplug.errors import KernelRefused
from netplug.kernel import namespaces
from netplug.kernel.rtmessages import Link, new_bridge, new_link
from netplug.kernel.rtnl import Rtnl
from netplug.kernel.sysctl import ensure_sysctls, read_sysctls
from netplug.model import DeviceQuery, Facts, LinkFact, Place, Wanted

if TYPE_CHECKING:
    from netplug.firewall import Firewall
    from netplug.kernel.mirror import Warm
    from netplug.kernel.rtmessages import HeldAddress, Link


class Kernel:
    """Both namespaces of a request, with sockets opened when first needed.

    `open_sandbox` gives the container's namespace, None when it is gone; everything
    inside it is then gone too. `firewall` gives the backend of that name for the host.
    `warm` is what an agent keeps of the host between requests; with it, deletions are over
    when the kernel notifies of them, not when it acknowledges. Belongs to one thread; close it.
    """

    def __init__(
        self,
        host: int,
        open_sandbox: Callable[[], int | None],
        firewall: Callable[[str], Firewall],
        warm: Warm | None = None,
    ) -> None:
        self._host = host
        self._open_sandbox = open_sandbox
        self.firewall = firewall
        self._warm = warm
        self._rtnl: dict[Place, Rtnl] = {}
        self._inside = ExitStack()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for place, rtnl in self._rtnl.items():
            if place == "host" and self._warm:
                self._warm.give_back(rtnl)
            else:
                rtnl.close()
        self._rtnl.clear()
        self._inside.close()

    @cached_property
    def _sandbox(self) -> int | None:
        """Opened when first asked for: a removal seldom needs to enter it."""
        fd = self._open_sandbox()
        if fd is not None:
            self._inside.callback(os.close, fd)
        return fd

    def fd(self, place: Place) -> int | None:
        return self._host if place == "host" else self._sandbox

    def rtnl(self, place: Place) -> Rtnl | None:
        """rtnetlink in that namespace; None when the sandbox is gone."""
        if place not in self._rtnl:
            fd = self.fd(place)
            if fd is None:
                return None
            warm = self._warm if place == "host" else None
            self._rtnl[place] = warm.take() if warm else Rtnl(fd)
        return self._rtnl[place]

    def link(self, name: str) -> Link | None:
        """The host's link of this name, from memory where the kernel has told of no change."""
        return self._warm.mirror.link(self.host, name) if self._warm else self.host.link(name)

    def addresses(self, link: Link) -> tuple[HeldAddress, ...]:
        """Addresses of a link of the host, likewise."""
        if self._warm:
            return self._warm.mirror.addresses(self.host, link)
        return self.host.addresses(link.index)

    @property
    def host(self) -> Rtnl:
        rtnl = self.rtnl("host")
        assert rtnl is not None
        return rtnl

    def read_sysctls(self, place: Place, keys: tuple[str, ...]) -> dict[str, str | None]:
        """Values by key; all None when the namespace is gone."""
        fd = self.fd(place)
        return dict.fromkeys(keys) if fd is None else read_sysctls(fd, keys)

    def ensure_sysctls(self, place: Place, values: dict[str, str], *, optional: bool) -> bool:
        """Whether any differed; False when the namespace is gone. See `sysctl.ensure_sysctls`."""
        fd = self.fd(place)
        return fd is not None and ensure_sysctls(fd, values, optional=optional)

    def read_facts(self, wanted: Wanted, firewall: str) -> Facts:
        """What a driver asked to know, read from the host's namespace or `wanted.place`."""
        rtnl = self.rtnl(wanted.place)
        find = self.link if wanted.place == "host" else (rtnl.link if rtnl else lambda name: None)
        links = tuple(find(name) for name in wanted.links)
        way_out = self.host.default_interface() if wanted.egress_mtu else None
        egress = rtnl.default_interface() if rtnl and wanted.egress else None
        addressed = wanted.addresses or wanted.host_network
        if wanted.host_network:
            links = self.host.links()
        return Facts(
            firewall=firewall,
            links=tuple(_fact(rtnl, link, addressed) for link in links if link is not None),
            readable=rtnl is not None,
            egress_mtu=way_out.mtu if way_out else None,
            egress=_fact(rtnl, egress, addressed) if egress else None,
            ra_interfaces=self._accepting_ra() if wanted.accept_ra else (),
            vlan_filtering=probe_vlan_filtering() if wanted.vlan_filtering else True,
            kind_known=probe_kind(wanted.kind) if wanted.kind else True,
            shares_host=self._shares_host() if wanted.host_network else False,
            device=self._device(wanted.device) if wanted.device else None,
        )

    def _shares_host(self) -> bool:
        """Is the sandbox the host's own namespace? Also where no sandbox is asked about."""
        fd = self.fd("sandbox")
        return fd is None or namespaces.identity(fd) == namespaces.identity(self._host)

    def _device(self, query: DeviceQuery) -> LinkFact | None:
        from netplug.kernel import devices  # for one driver alone

        name = devices.find_name(self._host, self.host.links(), query)
        link = self.host.link(name) if name else None
        return _fact(self.host, link, addressed=False) if link else None

    def _accepting_ra(self) -> tuple[str, ...]:
        """Links that would lose their default route when forwarding goes on (accept_ra is 1)."""
        names = self.host.ra_interfaces()
        keys = {name: f"net/ipv6/conf/{name}/accept_ra" for name in names}
        values = self.read_sysctls("host", tuple(keys.values()))
        return tuple(name for name in names if values[keys[name]] == "1")


def _fact(rtnl: Rtnl | None, link: Link, addressed: bool) -> LinkFact:
    held = rtnl.addresses(link.index) if rtnl and addressed else ()
    return LinkFact(
        link.name,
        link.kind,
        link.mac,
        link.mtu,
        link.alias,
        link.up,
        tuple(a.interface for a in held if not a.interface.is_link_local),
    )


_probed: dict[str, bool] = {}


def probe_kind(kind: str) -> bool:
    """Can this kernel make links of this kind? Asked once, in a namespace of its own.

    One without it refuses with EOPNOTSUPP; any other refusal is about what the probe lacks,
    such as a link below.
    """
    if kind not in _probed:
        fd = namespaces.new_namespace()
        rtnl = Rtnl(fd)
        try:
            rtnl.change(new_link("probe", kind))
            _probed[kind] = True
        except KernelRefused as refusal:
            _probed[kind] = refusal.errno != errno.EOPNOTSUPP
        finally:
            rtnl.close()
            os.close(fd)
    return _probed[kind]


def probe_vlan_filtering() -> bool:
    """Can this kernel filter VLANs on a bridge (CONFIG_BRIDGE_VLAN_FILTERING)? Asked once."""
    if "vlan" not in _probed:
        fd = namespaces.new_namespace()
        try:
            rtnl = Rtnl(fd)
            try:
                mac = "02:00:00:00:00:01"
                rtnl.change(new_bridge("probe", mac=mac, mtu=0, vlan_filtering=True))
                link = rtnl.link("probe")
                _probed["vlan"] = link is not None and link.vlan_filtering
            except KernelRefused:
                _probed["vlan"] = False
            finally:
                rtnl.close()
        finally:
            os.close(fd)
    return _probed["vlan"]

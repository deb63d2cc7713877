"""Drivers: how a network of one kind is built, as pure descriptions.

A driver is one file. It says what it must know (`facts`), and answers with plans;
it never touches the kernel. ADD, CHECK, DEL, GC, repair, `--dry-run` and the
pictures all read the same plan. Third parties register drivers as entry points
of the group `netplug.drivers`, each a module-level object that fits `Driver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from netplug.errors import ConfigError
from netplug.model import Attachment, Facts, Lease, Network, Result, Wanted
from netplug.plan import Plan

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


# Names of our own drivers and their modules, imported when first wanted.
OWN = {
    "bridge": "bridge",
    "host": "host",
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "vlan": "vlan",
    "ptp": "ptp",
    "host-device": "host_device",
    "dummy": "dummy",
    "overlay": "overlay",
}


class Driver(Protocol):
    name: str
    options: type[Any]  # frozen dataclass: the strict schema of this driver's keys

    def facts(self, network: Network) -> Wanted:
        """What to read from the kernel before planning, as data."""

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        """The links: all that exists before an address is known. Pure."""

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        """Addresses, routes, rules: all that needs the lease. Pure."""

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        """What ADD answers, without `dns`: interfaces in the reference plugin's order. Pure."""


def get_driver(name: str) -> Driver:
    """The driver of this name. Raises ConfigError that lists the ones there are."""
    if name in OWN:
        module: Any = __import__(f"netplug.plugins.{OWN[name]}", fromlist=["driver"])
        own: Driver = module.driver
        return own
    for entry in _entry_points():
        if entry.name == name:
            loaded: Driver = entry.load()
            return loaded
    names = driver_names()
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    raise ConfigError(
        f"driver {name!r} is unknown",
        f"there are: {', '.join(names)}",
        f"did you mean {close[0]!r}?" if close else "set the key 'driver' to one of them",
    )


def driver_names() -> list[str]:
    return [*OWN, *sorted(entry.name for entry in _entry_points())]


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # slow, and seldom needed

    return entry_points(group="netplug.drivers")

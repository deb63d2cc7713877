"""Host links found by what they are: MAC, folder in sysfs, PCI address."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from netplug.kernel import namespaces
from netplug.kernel.rtmessages import Link
from netplug.model import DeviceQuery

PCI = Path("/sys/bus/pci/devices")


def find_name(host: int, links: Iterable[Link], query: DeviceQuery) -> str | None:
    """The name of the link that the query describes; None where there is none."""
    if query.name:
        return next((link.name for link in links if link.name == query.name), None)
    if query.mac:
        return next((link.name for link in links if link.mac == query.mac.lower()), None)
    folder = Path(query.kernel_path) if query.kernel_path else PCI / query.pci
    present = {link.name for link in links}
    return namespaces.in_namespace(
        host, lambda: next((name for name in _names_below(folder) if name in present), None)
    )


def _names_below(folder: Path) -> list[str]:
    """Links of a device: `net/` below it, or below its virtio child (as the reference looks)."""
    found: list[str] = []
    for net in (folder / "net", *sorted(folder.glob("virtio*/net"))):
        if net.is_dir():
            found += sorted(os.listdir(net))
    return found

"""Attachments for tests: an engine on a simulated host, and what the kernels then hold.

Each use of the engine opens the state file anew, as each execution of the plugin does; so a
test may fork between two of them (SQLite forbids a connection to cross a fork).
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import through

from netplug import host as hosts
from netplug.config import parse_network
from netplug.engine import Engine
from netplug.model import Attachment, Network, Result
from netplug.plan import Difference
from netplug.plugins import get_driver
from netplug.plugins.bridge_options import BridgeOptions
from netplug.preview import Preview, preview
from netplug.state import Record, State
from netplug.upkeep import Repair

if TYPE_CHECKING:
    from conftest import Host

STATE = Path("/var/lib/netplug")
V4 = {"subnet": "10.1.0.0/24"}
V6 = {"subnet": "fd00:1::/64"}


def make_network(name: str = "lan", *ranges: dict[str, Any], **keys: Any) -> Network:
    """A bridge network as CNI JSON would give it; each range is a range set of its own.

    Without ranges and `ipam` it leases from 10.1.0.0/24.
    """
    ipam = {"type": "netplug", "ranges": [[one] for one in ranges or (V4,)]}
    config = {"cniVersion": "1.0.0", "name": name, "type": "netplug", "bridge": "br0"}
    network, warnings = parse_network(
        {**config, "ipam": ipam, **keys}, BridgeOptions, strict_unknown=True
    )
    assert not warnings
    return network


def gateway_network(name: str = "lan", *ranges: dict[str, Any], **keys: Any) -> Network:
    """What most networks are: the bridge is the default gateway, and masquerades."""
    return make_network(name, *ranges, **{"isDefaultGateway": True, "ipMasq": True, **keys})


def driver_network(driver: str, name: str = "lan", **keys: Any) -> Network:
    """A network of any driver as CNI JSON would give it; without addresses unless `ipam` is given.

    A range in `ipam` is a whole range set of our own IPAM.
    """
    if isinstance(ranges := keys.get("ipam"), list):
        keys["ipam"] = {"type": "netplug", "ranges": [[one] for one in ranges]}
    config = {"cniVersion": "1.0.0", "name": name, "type": "netplug", "driver": driver, **keys}
    options = get_driver(driver).options
    network, warnings = parse_network(config, options, strict_unknown=True)
    assert not warnings
    return network


class Site:
    """A simulated host, the state folder, and the engine that works on both."""

    def __init__(self, host: Host, folder: Path = STATE) -> None:
        self.host = host
        self.folder = folder
        self.lines: list[str] = []

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        state = State(self.folder)
        try:
            with hosts.Host(self.host.fd) as own:
                yield Engine(state, own, self.lines.append)
        finally:
            state.close()

    def attachment(
        self, network: Network, container: Host | None, name: str = "", **wishes: Any
    ) -> Attachment:
        """`name` is the container's id; the namespace's own name without it."""
        path = container.path if container else ""
        identity = name or (container.name if container else "gone")
        return Attachment(
            network.name, identity, wishes.pop("ifname", "eth0"), sandbox=path, **wishes
        )

    def add(
        self, network: Network, container: Host, name: str = "", **wishes: Any
    ) -> tuple[Attachment, Result]:
        attachment = self.attachment(network, container, name, **wishes)
        if caller := self._caller(attachment):
            return attachment, caller.add(network, attachment)
        with self.engine() as engine:
            return attachment, engine.add(network, attachment)

    def _caller(self, attachment: Attachment) -> through.Caller | None:
        """Who calls the plugin, where the tests go another way than this process."""
        way = through.taken()
        if way is None or self.folder != STATE or attachment.via != "cni":
            return None
        return through.Caller(self.host, way)

    def delete(self, *attachments: Attachment) -> None:
        for attachment in attachments:
            if caller := self._caller(attachment):
                caller.delete(attachment)
                continue
            with self.engine() as engine:
                engine.delete(attachment)

    def check(self, attachment: Attachment, previous: Result | None = None) -> None:
        with self.engine() as engine:
            engine.check(attachment, previous)

    def differences(
        self, attachment: Attachment, previous: Result | None = None
    ) -> list[Difference]:
        with self.engine() as engine:
            return engine.differences(attachment, previous)

    def repair(self, attachment: Attachment) -> Repair:
        with self.engine() as engine:
            record = engine.state.get(engine.host.id, attachment.owner)
            assert record is not None
            return engine.repair(record)

    def gc(self, network: Network, *valid: tuple[str, str]) -> list[str]:
        with self.engine() as engine:
            return engine.gc(network.name, valid)

    def preview(self, network: Network, attachment: Attachment) -> Preview:
        with self.engine() as engine:
            return preview(engine, network, attachment)

    def record(self, attachment: Attachment) -> Record | None:
        with self.engine() as engine:
            return engine.state.get(engine.host.id, attachment.owner)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the state that belongs to this host."""
        with self.engine() as engine:
            db = engine.state.connection
            tables = ("records", "usage", "leases", "ports")
            return {
                table: db.execute(
                    f"SELECT * FROM {table} WHERE host=? ORDER BY 2, 3", (engine.host.id,)
                ).fetchall()
                for table in tables
            }

    def demand_nothing_left(self, before: dict[str, Any]) -> None:
        """The kernel is as `before` (a `dump`), and the state knows nothing of this host."""
        if changed := differing(before, dump(self.host)):
            pytest.fail(f"the kernel differs: {changed}")
        if rows := {table: found for table, found in self.rows().items() if found}:
            pytest.fail(f"rows are left: {rows}")


def state_rows_of(site: Site) -> str:
    """The state as text that two moments can be compared by."""
    return json.dumps(site.rows(), default=str)


# What a namespace holds, normalised: no ifindex, handle, time, counter or link-local address.

TRANSIENT = {
    *("ifindex", "link_index", "link_netnsid", "operstate", "flags", "state", "handle", "index"),
    *("valid_life_time", "preferred_life_time", "promiscuity", "bridge_id", "root_id", "expires"),
    *("designated_bridge", "designated_root", "designated_cost", "designated_port"),
    *("gc_timer", "hello_timer", "tcn_timer", "topology_change_timer", "topology_change"),
    *("message_age_timer", "forward_delay_timer", "hold_timer", "id", "no", "altnames"),
    *("installed", "last_used", "first_used", "bind", "ref", "used_hw_stats", "fh", "key_ht"),
    *("topology_change_detected", "root_port", "root_path_cost", "link"),
    *("tso_max_size", "tso_max_segs"),  # a bridge keeps what its ports of old could do
}
KEPT_FLAGS = {"UP", "PROMISC", "ALLMULTI", "NOARP", "nodad", "onlink"}


def normalised(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: normalised(v) for k, v in value.items() if k not in TRANSIENT}
        flags = sorted(KEPT_FLAGS.intersection(value.get("flags") or ()))
        return {**kept, "flags": flags} if flags else kept
    if isinstance(value, list):
        return [normalised(item) for item in value]
    return value


COMMANDS = {
    "addresses": "ip -d -j addr",
    "routes": "ip -4 -d -j route show table all",
    "routes6": "ip -6 -d -j route show table all",
    "ports": "bridge -d -j link",
    "queues": "tc -j qdisc",
    "nft": "nft -j list ruleset",
}


def settle(*hosts: Host) -> None:
    """Until duplicate address detection has ended, and each address has its routes.

    An address waits as long as its link has no carrier, even one without that detection.
    """
    for host in hosts:
        while host.run("ip -o -6 addr show tentative") or not _have_routes(host):
            time.sleep(0.02)


def _have_routes(host: Host) -> bool:
    """Has every IPv6 address of a link that is up its local route? The kernel adds it later."""
    addresses = host.run("ip -o -6 addr show up").splitlines()
    routes = {line.split()[1] for line in host.run("ip -6 route show table local").splitlines()}
    return all(line.split()[3].partition("/")[0] in routes for line in addresses)


def dump(host: Host) -> dict[str, Any]:
    """Links, addresses, routes, ports, queues and rules of a namespace, for comparison."""
    raw = host.run("; echo ---; ".join(f"{line} 2>&1" for line in COMMANDS.values()), check=False)
    found = {
        key: json.loads(text.strip() or "[]")
        for key, text in zip(COMMANDS, raw.split("---\n"), strict=True)
    }
    links = found["addresses"]
    redirecting = {queue["dev"] for queue in found["queues"] if queue["kind"] == "ingress"}
    return {
        "links": {link["ifname"]: _link(link) for link in links},
        "addresses": {link["ifname"]: _addresses(link) for link in links},
        "routes": _routes(found["routes"]) + _routes(found["routes6"]),
        "ports": _sorted(normalised(found["ports"])),
        "queues": _sorted(normalised(found["queues"])),
        "filters": {name: _filters(host, name) for name in sorted(redirecting)},
        "nft": _sorted(_nft(found["nft"])),
        **{f"{six}tables": _legacy(host, six) for six in ("ip", "ip6")},
    }


def _filters(host: Host, device: str) -> Any:
    return normalised(json.loads(host.run(f"tc -j filter show dev {device} parent ffff:")))


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _link(link: dict[str, Any]) -> Any:
    kept = {key: value for key, value in link.items() if key != "addr_info"}
    if kept.get("linkinfo", {}).get("info_kind") == "ifb":
        kept.pop("address")  # the kernel's random choice
    kept.pop("qdisc")  # shown with the queues
    return normalised(kept)


def _addresses(link: dict[str, Any]) -> list[Any]:
    held = [a for a in link["addr_info"] if not a["local"].startswith("fe80:")]
    for address in held:
        address["flags"] = [flag for flag in KEPT_FLAGS if address.pop(flag, False)]
        address.pop("tentative", None)
    return _sorted(normalised(held))


def _routes(routes: list[Any]) -> list[Any]:
    kept = [r for r in routes if not r["dst"].startswith(("fe80:", "multicast", "ff00:"))]
    return _sorted(normalised([r for r in kept if r.get("type") != "multicast"]))


def _nft(found: Any) -> list[Any]:
    items = [normalised(item) for item in found["nftables"] if "metainfo" not in item]
    for item in items:
        for kind in ("set", "map"):
            if kind in item and "elem" in item[kind]:
                item[kind]["elem"] = _sorted(item[kind]["elem"])
    return items


def _legacy(host: Host, six: str) -> list[str]:
    """Rules and own chains of the legacy tables, in order; an empty built-in chain is nothing."""
    try:
        loaded = host.call(lambda: Path(f"/proc/net/{six}_tables_names").read_text().split())
    except OSError:
        return []
    found = []
    for table in sorted(loaded):
        for line in host.run(f"{six}tables-legacy-save -t {table}").splitlines():
            if line.startswith("-A") or (line.startswith(":") and line.split()[1] == "-"):
                found.append(f"{table}: {line.partition(' [')[0]}")
    return found


def differing(one: Any, two: Any) -> dict[str, tuple[Any, Any]]:
    """Where two dumps differ, by path, and how: what a failed test should show."""
    left, right = _flat(one), _flat(two)
    return {
        path: (left.get(path), right.get(path))
        for path in sorted({*left, *right})
        if left.get(path) != right.get(path)
    }


def _flat(dumped: Any, at: str = "") -> dict[str, Any]:
    if isinstance(dumped, dict):
        items: Any = dumped.items()
    elif isinstance(dumped, list):
        items = enumerate(dumped)
    else:
        return {at: dumped}
    return {k: v for key, item in items for k, v in _flat(item, f"{at}/{key}").items()}


def in_child(work: Callable[[], None]) -> int:
    """The wait status of a forked child that does `work`; an exception there is exit status 1."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]

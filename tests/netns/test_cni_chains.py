"""Our plugins in chains with the reference's, as libcni runs them: ADD, CHECK, DEL, DEL again.

Every pair of {our main, reference bridge} x {our IPAM, host-local} meets portmap, bandwidth,
tuning and firewall, over spec versions, address families and options, pairwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_interface
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attaching import differing, dump
from cni_exec import (
    Json,
    Pod,
    Runtime,
    at_least,
    install_folder,
    pairwise,
    reference_plugins,
    state_rows,
)

if TYPE_CHECKING:
    from conftest import Host

RANGES = {
    "4": [[{"subnet": "10.1.0.0/24"}]],
    "6": [[{"subnet": "fd00:1::/64"}]],
    "46": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
}
LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000,
          "egressBurst": 400_000}  # fmt: skip
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
]
TUNED_MAC = "02:00:00:00:00:42"
TUNING: Json = {"sysctl": {"net.core.somaxconn": "512"}, "mac": TUNED_MAC, "mtu": 1300}


@dataclass(frozen=True, slots=True)
class Case:
    """One chain. `ports` and `shaping` say who does it: the chained plugin, our main, nobody."""

    main: str
    ipam: str
    version: str
    families: str
    routing: str
    ports: str
    shaping: str
    tuning: bool
    firewall: bool
    mtu: int

    def possible(self) -> bool:
        foreign = {self.main, self.ipam, self.ports, self.shaping} & {
            "bridge", "host-local", "portmap", "bandwidth"}  # fmt: skip
        if self.version == "1.1.0" and (foreign or self.tuning or self.firewall):
            return False  # the reference plugins that Debian has end at 1.0.0
        if self.firewall and self.version == "0.3.1":
            return False  # it begins at 0.4.0
        return self.main == "netplug" or "netplug" not in (self.ports, self.shaping)

    def conflist(self, data: Path) -> Json:
        main: Json = {"type": self.main, "bridge": "br0", "ipam": self._ipam(data)}
        if self.routing != "none":
            main["isDefaultGateway"] = True
        if self.routing == "masquerade":
            main["ipMasq"] = True
        if self.mtu:
            main["mtu"] = self.mtu
        plugins = [main]
        for plugin, capability, wanted in (
            ("portmap", "portMappings", self.ports),
            ("bandwidth", "bandwidth", self.shaping),
        ):
            if wanted == "netplug":
                main.setdefault("capabilities", {})[capability] = True
            elif wanted == plugin:
                plugins.append({"type": plugin, "capabilities": {capability: True}})
        if self.tuning:
            plugins.append({"type": "tuning", **TUNING, "dataDir": f"{data}/tuning"})
        if self.firewall:
            plugins.append({"type": "firewall", "backend": "iptables"})
        return {"cniVersion": self.version, "name": "lan", "plugins": plugins}

    def _ipam(self, data: Path) -> Json:
        ipam: Json = {"type": self.ipam, "ranges": RANGES[self.families]}
        if self.ipam == "host-local":
            ipam["dataDir"] = str(data)
        elif self.main != "netplug":
            ipam["type"] = "netplug-ipam"
        return ipam

    @property
    def wishes(self) -> Json:
        return {"portMappings": PORTS, "bandwidth": LIMITS}

    @property
    def id(self) -> str:
        return "-".join(str(getattr(self, field.name)) for field in fields(self))


FACTORS: dict[str, tuple[Any, ...]] = {
    "main": ("netplug", "bridge"),
    "ipam": ("netplug", "host-local"),
    "version": ("0.3.1", "0.4.0", "1.0.0", "1.1.0"),
    "families": ("4", "46", "6"),
    "routing": ("none", "gateway", "masquerade"),
    "ports": ("none", "netplug", "portmap"),
    "shaping": ("none", "netplug", "bandwidth"),
    "tuning": (False, True),
    "firewall": (False, True),
    "mtu": (0, 1400),
}


CASES = [Case(**row) for row in pairwise(FACTORS, lambda row: Case(**row).possible())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin folder with ours and the reference's."""
    return install_folder(tmp_path_factory.mktemp("cni-bin"), reference_plugins())


@pytest.fixture
def runtime(host: Host, folder: Path, tmp_path: Path) -> Runtime:
    return Runtime(host, folder, cache=tmp_path / "cache")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_chain_comes_and_goes(runtime: Runtime, case: Case, tmp_path: Path) -> None:
    walk_chain(runtime, case, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_more_chains(runtime: Runtime, tmp_path: Path) -> None:
    rows = (dict(zip(FACTORS, values, strict=True)) for values in product(*FACTORS.values()))
    possible = [case for case in (Case(**row) for row in rows) if case.possible()]
    for number, case in enumerate(Random(2).sample(possible, 120)):
        walk_chain(runtime, case, tmp_path, f"c{number}")


@pytest.mark.parametrize("main", FACTORS["main"])
@pytest.mark.parametrize("ipam", FACTORS["ipam"])
def test_a_chain_of_real_executions(
    host: Host, folder: Path, tmp_path: Path, main: str, ipam: str
) -> None:
    case = Case(main, ipam, "1.0.0", "46", "masquerade", "portmap", "bandwidth", True, True, 0)
    walk_chain(Runtime(host, folder, execute=True, cache=tmp_path / "cache"), case, tmp_path)


def walk_chain(runtime: Runtime, case: Case, data: Path, name: str = "web") -> None:
    host = runtime.host
    network, container = case.conflist(data / "leases"), host.container(name)
    pod = Pod(name, container.path, wishes=case.wishes)
    before, inside = dump(host), dump(container)
    result = runtime.add(network, pod)
    demand_result(case.version, result)
    demand_container(container, pod, result, tuned=case.tuning)
    if case.routing != "none" and case.main == "netplug":
        demand_ping(container, result)  # the reference's gateway waits for DAD
    # portmap looks for its IPv4 rules among those of IPv6
    runtime.check(network, pod, but=("portmap",))
    runtime.delete(network, pod)
    runtime.delete(network, pod)
    demand_nothing_left(host, case, before)
    assert dump(container)["links"].keys() == inside["links"].keys()
    assert not state_rows(host)
    assert not leases_of_host_local(data / "leases")


# --- what a result must be


def demand_result(version: str, result: Json) -> None:
    """The keys of this version, no others, and the order that chained plugins rely upon."""
    assert result["cniVersion"] == version
    assert result.keys() <= {"cniVersion", "interfaces", "ips", "routes", "dns"}
    extended = {"mtu"} if version == "1.1.0" else set()
    for interface in result["interfaces"]:
        assert interface.keys() <= {"name", "mac", "sandbox", *extended}
    for ip in result["ips"]:
        old = {"version"} if not at_least(result, "1.0.0") else set()
        assert {"address", *old} <= ip.keys() <= {"address", "gateway", "interface", *old}
        if old:
            assert ip["version"] == str(ip_interface(ip["address"]).version)
        assert result["interfaces"][ip["interface"]]["name"] == "eth0"
    names = [interface["name"] for interface in result["interfaces"]]
    assert names[0] == "br0"
    assert names[2] == "eth0"


def demand_container(container: Host, pod: Pod, result: Json, *, tuned: bool = False) -> None:
    """The kernel holds what the result says."""
    link = json.loads(container.run("ip -j addr show dev eth0"))[0]
    told = next(i for i in result["interfaces"] if i["name"] == pod.ifname)
    assert told["sandbox"] == pod.netns
    assert told["mac"] == link["address"] == (TUNED_MAC if tuned else told["mac"])
    assert told.get("mtu", link["mtu"]) == link["mtu"]
    held = {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"}
    assert held == {ip["address"] for ip in result["ips"]}
    defaults = [route["dst"] for route in result.get("routes", ())]
    for family, destination in (("4", "0.0.0.0/0"), ("6", "::/0")):
        routes = json.loads(container.run(f"ip -{family} -j route show default"))
        assert len(routes) == (destination in defaults)


def demand_ping(container: Host, result: Json) -> None:
    for ip in result["ips"]:
        container.run(f"ping -c 1 -W 2 {ip['gateway']}")


def demand_nothing_left(host: Host, case: Case, before: Mapping[str, Any]) -> None:
    """But for the reference's bridge, and the chains that it keeps for all networks."""
    if case.main == "bridge":
        host.run("ip link delete br0")
    if case.ports == "portmap" or case.firewall or case.main == "bridge":
        remove_foreign_chains(host)
    assert not differing(before, dump(host))


def remove_foreign_chains(host: Host) -> None:
    """The reference's empty frame; a rule of one container would be more than that."""
    for tool in ("iptables", "ip6tables"):
        for table in ("nat", "filter"):
            rules = host.run(f"{tool}-save -t {table} 2>/dev/null", check=False)
            assert "lan" not in rules
            assert "10.1.0" not in rules
            assert "fd00" not in rules
    host.run("nft flush ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            host.run(f"{tool} -t {table} -F && {tool} -t {table} -X", check=False)


def leases_of_host_local(data: Path) -> list[str]:
    kept = ("lock", "last_reserved_ip.")
    return [p.name for p in data.glob("lan/*") if not p.name.startswith(kept)]

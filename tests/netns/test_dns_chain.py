"""Our plugin under the name `dnsname`, behind another main plugin, as podman 4 has it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import Station
from cni_exec import Answer, Json, Pod, Runtime, install_folder, reference_plugins, serve_in
from dns_client import ask, data, rcode

from netplug.dns import service
from netplug.host import default_run_folder

if TYPE_CHECKING:
    from conftest import Host

NETPLUG = Path(sys.executable).with_name("netplug")
GATEWAY, GATEWAY6 = "10.1.0.1", "fd00:1::1"
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
ALIASES = {"aliases": True}


@pytest.fixture
def station() -> Iterator[Station]:
    """An agent where the one-process plugin looks for the name server's."""
    station = Station(default_run_folder() / "agent.sock")
    station.start()
    yield station
    station.end()
    service.stop(default_run_folder())


def make_runtime(host: Host, tmp_path: Path, reference: Path | None = None) -> Runtime:
    (folder := tmp_path / "bin").mkdir()
    return Runtime(host, install_folder(folder, reference), cache=tmp_path / "cache")


def chain(tmp_path: Path, main: str, **keys: Any) -> Json:
    """As `podman network create` writes it, for both families."""
    ipam: Json = {"type": "netplug" if main == "netplug" else "host-local", "ranges": RANGES}
    if main != "netplug":
        ipam["dataDir"] = str(tmp_path / "leases")
    plugin: Json = {"type": main, "bridge": "br0", "ipam": ipam}
    plugin |= {"isDefaultGateway": True, "ipMasq": True, "capabilities": {"ips": True}}
    names: Json = {"type": "dnsname", "domainName": "dns.podman", "capabilities": ALIASES}
    return {"cniVersion": "0.4.0", "name": "lan", "plugins": [plugin | keys, names]}


def pod(container: Host, name: str, *aliases: str) -> Pod:
    wishes = {"aliases": {"lan": list(aliases)}} if aliases else {}
    return Pod(
        container.name, container.path, args=f"IgnoreUnknown=1;K8S_POD_NAME={name}", wishes=wishes
    )


@pytest.mark.parametrize("main", ["netplug", "bridge"])
def test_names_behind_a_main_plugin(
    host: Host, station: Station, tmp_path: Path, main: str
) -> None:
    reference = reference_plugins() if main == "bridge" else None
    runtime = make_runtime(host, tmp_path, reference)
    lan = chain(tmp_path, main)
    web, api = host.container("web"), host.container("api")
    for container, name, aliases in ((web, "web", ["www", "shop"]), (api, "api", ["shop"])):
        result = runtime.add(lan, pod(container, name, *aliases))
        assert result["dns"] == {
            "nameservers": [GATEWAY, GATEWAY6],
            "search": ["lan.dns.podman"],
        }
        assert result["interfaces"][0]["name"] == "br0"
    for question in ("web", "www", "web.dns.podman", "web.lan.dns.podman", web.name):
        assert data(ask(api, GATEWAY, question)) == ["10.1.0.2"], question
    assert data(ask(api, GATEWAY6, "web.lan.dns.podman", "AAAA", tcp=True)) == ["fd00:1::2"]
    assert {data(ask(web, GATEWAY, "shop"))[0] for _ in range(4)} == {"10.1.0.2", "10.1.0.3"}
    assert data(ask(web, GATEWAY, "3.0.1.10.in-addr.arpa", "PTR")) == ["api.lan.dns.podman."]
    runtime.check(lan, pod(web, "web", "www", "shop"))
    listed = host.run(f"{NETPLUG} ps").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["web", "api"]
    assert "host's own network" not in host.run(f"{NETPLUG} graph")
    assert not host.run(f"{NETPLUG} gc --dry-run").strip()
    runtime.delete(lan, pod(web, "web"))
    assert rcode(ask(api, GATEWAY, "web.dns.podman")) == "NXDOMAIN"
    assert "10.1.0.1/24" in host.run("ip address show br0")  # a neighbour uses it
    runtime.delete(lan, pod(web, "web"))  # the second time
    runtime.delete(lan, pod(api, "api"))
    if main == "bridge":  # the reference's own, which it keeps for ever
        assert "10.1.0.1/24" in host.run("ip address show br0")
        host.run("ip link del br0")


def test_an_input_policy_that_drops_is_opened_for_questions(
    host: Host, station: Station, tmp_path: Path
) -> None:
    host.run(
        "nft 'add table inet filter; add chain inet filter input"
        " { type filter hook input priority 0; policy drop; }'"
    )
    runtime = make_runtime(host, tmp_path, reference_plugins())
    lan, web = chain(tmp_path, "bridge"), host.container("web")
    runtime.add(lan, pod(web, "web"))
    assert data(ask(web, GATEWAY, "web")) == ["10.1.0.2"]
    assert data(ask(web, GATEWAY6, "web", "AAAA")) == ["fd00:1::2"]
    runtime.delete(lan, pod(web, "web"))
    assert "netplug" not in host.run("nft list table inet filter")
    host.run("ip link del br0")


def test_without_a_gateway_the_container_asks_inside(
    host: Host, station: Station, tmp_path: Path
) -> None:
    runtime = make_runtime(host, tmp_path, reference_plugins())
    lan = chain(tmp_path, "bridge", isDefaultGateway=False, ipMasq=False)
    web = host.container("web")
    assert runtime.add(lan, pod(web, "web"))["dns"]["nameservers"] == ["127.0.0.11"]
    assert data(ask(web, "127.0.0.11", "web.dns.podman")) == ["10.1.0.2"]
    runtime.delete(lan, pod(web, "web"))
    host.run("ip link del br0")


def test_what_the_main_plugin_names_is_named_once(
    host: Host, station: Station, tmp_path: Path
) -> None:
    runtime = make_runtime(host, tmp_path)
    lan, web = chain(tmp_path, "netplug", names=True), host.container("web")
    result = runtime.add(lan, pod(web, "web"))
    assert result["dns"]["search"] == ["lan.internal"]
    assert data(ask(web, GATEWAY, "2.0.1.10.in-addr.arpa", "PTR")) == ["web.lan.internal."]
    runtime.check(lan, pod(web, "web"))
    runtime.delete(lan, pod(web, "web"))


def call(host: Host, container: Host, command: str, **keys: Any) -> Answer:
    config = {"cniVersion": "1.1.0", "name": "lan", "type": "dnsname", **keys}
    environ = pod(container, "web").environ(command, "/opt/cni/bin")
    return serve_in(host, environ, json.dumps(config).encode(), "dnsname")


def test_alone_or_without_a_name_server(host: Host) -> None:
    web = host.container("web")
    alone = call(host, web, "ADD")
    assert alone.code == 7 and "behind the main plugin" in alone.document["details"]
    assert call(host, web, "ADD", domainName="a b", prevResult={"cniVersion": "1.1.0"}).code == 7
    before = {"cniVersion": "1.1.0", "dns": {"nameservers": ["192.0.2.53"]}}
    unheard = call(host, web, "ADD", prevResult=before)
    assert not unheard.code and unheard.document["dns"] == before["dns"]
    assert "netplug agent start" in unheard.log
    assert "netplug agent start" in call(host, web, "STATUS").log
    assert call(host, web, "CHECK", prevResult=before).code == 104
    gone = call(host, web, "GC", **{"cni.dev/valid-attachments": []})
    assert not gone.code and "/names" in gone.log
    assert not call(host, web, "DEL").code

"""The host driver: nothing is made, the result tells what the host has, a record remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attaching import Site, differing, driver_network, dump
from cni_exec import PluginFailed, Pod, Runtime, state_rows

from netplug.errors import ConfigError
from netplug.model import Bandwidth, Port

if TYPE_CHECKING:
    from conftest import Host

WRONG_CONFIG = 7
SHARED: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "shared",
    "plugins": [{"type": "netplug", "driver": "host"}],
}


@pytest.fixture
def runtime(host: Host, tmp_path: Path) -> Runtime:
    host.run("ip link add up0 type bridge && ip link set up0 up address 02:00:00:00:00:99")
    host.run("ip addr add 192.0.2.10/24 dev up0 && ip addr add 2001:db8::10/64 nodad dev up0")
    return Runtime(host, tmp_path, cache=tmp_path / "cache")


def network_of(program: str) -> Any:
    """The link netplug-host says the driver by its name."""
    plugin = {"type": program} if program != "netplug" else SHARED["plugins"][0]
    return {**SHARED, "plugins": [plugin]}


@pytest.mark.parametrize("program", ["netplug", "netplug-host"])
def test_the_result_lists_the_host(runtime: Runtime, program: str) -> None:
    host = runtime.host
    before = dump(host)
    network, pod = network_of(program), Pod("web", host.path)
    found = runtime.add(network, pod)
    links = {link["name"]: link for link in found["interfaces"]}
    assert links["up0"] == {
        "name": "up0",
        "mac": "02:00:00:00:00:99",
        "mtu": 1500,
        "sandbox": host.path,
    }
    owners = [found["interfaces"][ip["interface"]]["name"] for ip in found["ips"]]
    addresses = [ip["address"] for ip in found["ips"]]
    assert dict(zip(addresses, owners, strict=True)) == {
        "192.0.2.10/24": "up0",
        "2001:db8::10/64": "up0",
    }
    assert not differing(before, dump(host))
    runtime.check(network, pod)
    runtime.status(network)
    for _ in range(2):
        runtime.delete(network, pod)
    assert not differing(before, dump(host))
    assert not state_rows(host)


def test_another_namespace_is_refused_with_the_way_to_do_it(runtime: Runtime) -> None:
    container = runtime.host.container("web")
    with pytest.raises(PluginFailed) as failure:
        runtime.add(SHARED, Pod("web", container.path))
    assert failure.value.answer.code == WRONG_CONFIG
    assert "--network host" in json.dumps(failure.value.answer.document)
    assert not state_rows(runtime.host)


@pytest.mark.parametrize(
    ("keys", "wishes", "named"),
    [
        ({}, {"ports": (Port(80, 80),)}, "published ports"),
        ({}, {"mac": "02:00:00:00:00:01"}, "a MAC"),
        ({}, {"mtu": 1400}, "an MTU"),
        ({}, {"bandwidth": Bandwidth(ingress_rate=1000)}, "a bandwidth limit"),
        ({"ipam": [{"subnet": "10.1.0.0/24"}]}, {}, "'ipam'"),
    ],
)
def test_what_cannot_apply_is_refused(
    host: Host, keys: dict[str, Any], wishes: dict[str, Any], named: str
) -> None:
    site = Site(host)
    with pytest.raises(ConfigError, match=named):
        site.add(driver_network("host", **keys), host, "web", **wishes)
    assert not any(site.rows().values())


def test_record_and_collection(host: Host) -> None:
    site = Site(host)
    network = driver_network("host", "shared")
    attachment, _ = site.add(network, host, "web")
    with site.engine() as engine:
        assert engine.status(network) == []
        assert [record.attachment.container for record in engine.records()] == ["web"]
    assert site.gc(network, ("web", "eth0")) == []
    assert site.gc(network) == [attachment.owner]
    assert not any(site.rows().values())

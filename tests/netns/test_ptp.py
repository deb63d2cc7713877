"""ptp: a cable for each container; the host routes between them and to the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attaching import V4, V6, Site, driver_network, dump

from netplug.errors import CheckFailed, ConfigError
from netplug.model import Port

if TYPE_CHECKING:
    from conftest import Host


def reaches(one: Host, address: str) -> bool:
    return "1 received" in one.run(f"ping -c 1 -W 2 {address} || ping -c 1 -W 2 {address}", False)


def test_containers_meet_the_host_and_each_other(host: Host) -> None:
    site, before = Site(host), dump(host)
    network = driver_network("ptp", ipam=[V4, V6], ipMasq=True)
    web, db = host.container("web"), host.container("db")
    attachments = [site.add(network, each)[0] for each in (web, db)]
    for address in ("10.1.0.1", "fd00:1::1", "10.1.0.3", "fd00:1::3"):
        assert reaches(web, address), address
    assert reaches(host, "10.1.0.2")
    for attachment in attachments:
        site.check(attachment)
    host.run("ip route del 10.1.0.2")
    with pytest.raises(CheckFailed, match=r"10\.1\.0\.2/32"):
        site.check(attachments[0])
    site.repair(attachments[0])
    assert reaches(web, "10.1.0.3")
    site.delete(*attachments)
    site.demand_nothing_left(before)


def test_out_and_in_through_the_host(host: Host) -> None:
    site, web, outside = Site(host), host.container("web"), host.container("outside")
    host.run(f"ip link add up0 type veth peer name eth0 netns {outside.name}")
    host.run("ip link set up0 up && ip addr add 192.0.2.1/24 dev up0")
    outside.run("ip link set eth0 up && ip addr add 192.0.2.2/24 dev eth0")
    section: dict[str, Any] = {
        "type": "netplug",
        "ranges": [[V4]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    network = driver_network("ptp", ipam=section, ipMasq=True)
    attachment, result = site.add(network, web, ports=(Port(8080, 80),))
    assert [interface.sandbox for interface in result.interfaces] == ["", web.path]
    assert reaches(web, "192.0.2.2")  # which knows no way back but to the host
    web.start("exec python3 -m http.server 80")
    outside.run("curl -s --retry 20 --retry-connrefused --retry-delay 0 http://192.0.2.1:8080/")
    host.run("curl -s http://127.0.0.1:8080/")
    site.delete(attachment)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, "gives no addresses"),
        ({"ipam": {"type": "netplug-dhcp"}}, "no DHCP server can be on"),
        ({"ipam": [{"subnet": "10.9.0.0/31", "gateway": "10.9.0.0"}]}, ""),
        (
            {"ipam": {"type": "netplug", "addresses": [{"address": "10.9.0.9/32"}]}},
            "has no gateway",
        ),
    ],
)
def test_what_a_cable_needs(host: Host, keys: dict[str, Any], named: str) -> None:
    site, network = Site(host), driver_network("ptp", **keys)
    if not named:
        attachment, _ = site.add(network, host.container("web"))
        site.delete(attachment)
        return
    with pytest.raises(ConfigError, match=named):
        site.add(network, host.container("web"))

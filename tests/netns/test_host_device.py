"""host-device: a device moves in and comes back as it was, whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attaching import V4, Site, differing, driver_network, dump

from netplug.errors import CheckFailed, ConfigError, Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from conftest import Host

MAC = "02:00:00:00:00:0d"


@pytest.fixture
def site(host: Host) -> Site:
    host.run(f"ip link add dev0 address {MAC} mtu 1400 type veth")
    host.run("ip link set dev0 alias mine up && ip link set veth0 up")
    return Site(host)


def network_of(**keys: Any) -> Any:
    return driver_network("host-device", **{"device": "dev0", "ipam": [V4], **keys})


@pytest.mark.parametrize("keys", [{}, {"device": "", "hwaddr": MAC.upper()}])
def test_in_and_back(site: Site, host: Host, keys: dict[str, Any]) -> None:
    web, before = host.container("web"), dump(host)
    attachment, result = site.add(
        network_of(**keys), web, mac="02:00:00:00:00:77", mtu=1300, ifname="net0"
    )
    assert "dev0" not in host.run("ip link")
    assert "mtu 1300" in web.run("ip link show net0")
    assert result.interfaces[0].mac == "02:00:00:00:00:77"
    assert "net0@if" in web.run("ip addr show net0") and "10.1.0.2" in web.run("ip addr")
    site.check(attachment)
    web.run("ip link set net0 address 02:00:00:00:00:78")
    with pytest.raises(CheckFailed, match="MAC"):
        site.check(attachment)
    site.repair(attachment)
    site.check(attachment)
    for _ in range(2):
        site.delete(attachment)
    site.demand_nothing_left(before)


def test_one_device_is_one_containers(site: Site, host: Host) -> None:
    attachment, _ = site.add(network_of(), host.container("web"))
    with pytest.raises(NotFound, match="not on the host"):
        site.add(network_of(), host.container("db"))
    with site.engine() as engine, pytest.raises(Unavailable, match="not on the host"):
        engine.status(network_of())
    site.delete(attachment)
    with site.engine() as engine:
        assert engine.status(network_of()) == []


def test_a_name_that_is_taken_inside(site: Site, host: Host) -> None:
    web, before = host.container("web"), dump(host)
    web.run("ip link add eth0 type bridge")
    with pytest.raises(Conflict, match="eth0 already exists"):
        site.add(network_of(), web)
    assert not differing(before, dump(host))


def test_a_dead_namespace_takes_a_virtual_device_along(site: Site, host: Host) -> None:
    web = host.container("web")
    attachment, _ = site.add(network_of(), web)
    web.run("ip link del eth0")  # as the end of the namespace does
    site.delete(replace(attachment, sandbox=""))
    assert not any(site.rows().values())


def test_a_device_that_the_kernel_gave_back_gets_its_name_and_state(site: Site, host: Host) -> None:
    """A dying namespace puts a physical device into the first one, named as inside, and down."""
    web, before = host.container("web"), dump(host)
    attachment, _ = site.add(network_of(), web)
    host.run(f"nsenter --net={web.path} ip link set eth0 down")
    host.run(f"nsenter --net={web.path} ip link set eth0 netns /run/netns/{host.name}")
    assert "eth0" in host.run("ip link")
    site.delete(attachment)
    site.demand_nothing_left(before)


@pytest.mark.parametrize("returned", [False, True])
def test_without_a_record_the_mark_leads_home(site: Site, host: Host, returned: bool) -> None:
    web = host.container("web")
    attachment, _ = site.add(network_of(), web)
    with site.engine() as engine, engine.state.transaction() as db:
        for table in ("records", "usage", "leases"):
            db.execute(f"DELETE FROM {table}")
    if returned:
        host.run(f"nsenter --net={web.path} ip link set eth0 netns /run/netns/{host.name}")
        assert site.gc(network_of()) == [attachment.owner]
    else:
        site.delete(attachment)
    assert MAC in host.run("ip link show dev0")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"device": ""}, "no device is named"),
        ({"device": "lo"}, "cannot be moved"),
        ({"device": "", "kernelpath": "/sys/class/net/dev0"}, "kernelpath"),
        ({"device": "", "kernelpath": "/sys/devices/../class"}, "kernelpath"),
        ({"device": "", "hwaddr": "nonsense"}, "hwaddr"),
    ],
)
def test_what_names_no_device(host: Host, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        network_of(**keys)


def test_devices_by_their_place(site: Site, host: Host) -> None:
    path = "/sys/devices/virtual/net-that-is-not"
    web = host.container("web")
    for keys in ({"kernelpath": path}, {"pciBusID": "0000:ff:1f.7"}):
        with pytest.raises(NotFound, match="not on the host"):
            site.add(network_of(device="", **keys), web)

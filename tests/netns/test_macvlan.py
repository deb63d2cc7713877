"""macvlan: traffic, every key, the host's way to its containers, and what happens to the parent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attaching import Site, driver_network, dump

from netplug.errors import (
    CheckFailed,
    ConfigError,
    Conflict,
    Impaired,
    NetplugError,
    NotFound,
    Unavailable,
)
from netplug.model import Bandwidth, Network, Port
from netplug.resources.upper import Upper
from netplug.upkeep import gc_host

if TYPE_CHECKING:
    from conftest import Host

LAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.150"}
LAN6 = {"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::100"}


@pytest.fixture
def router(host: Host) -> Host:
    """The LAN beyond the host's uplink eth1: a neighbour with an address in it."""
    lan = host.container("router")
    host.run(
        f"ip link add eth1 address 02:00:00:00:00:0a type veth"
        f" peer name lan0 netns {lan.name} && ip link set eth1 up"
    )
    host.run("ip addr add 192.0.2.10/24 dev eth1 && ip addr add 2001:db8:1::10/64 dev eth1 nodad")
    lan.run("ip link set lan0 up && ip addr add 192.0.2.1/24 dev lan0")
    lan.run("ip addr add 2001:db8:1::1/64 dev lan0 nodad")
    host.run("ip route add default via 192.0.2.1")
    return lan


def network_of(*ranges: dict[str, Any], **keys: Any) -> Network:
    return driver_network("macvlan", ipam=list(ranges or (LAN,)), **keys)


def reaches(one: Host, address: str) -> bool:
    return "1 received" in one.run(f"ping -c 1 -W 2 {address} || ping -c 1 -W 2 {address}", False)


def test_containers_are_on_the_lan(host: Host, router: Host) -> None:
    site, network = Site(host), network_of(LAN, LAN6, master="eth1")
    before = dump(host)
    web, db = host.container("web"), host.container("db")
    attachments = [site.add(network, each, "", ifname="eth1")[0] for each in (web, db)]
    for address in ("192.0.2.1", "2001:db8:1::1", "192.0.2.101", "2001:db8:1::101"):
        assert reaches(web, address), address
    assert not reaches(host, "192.0.2.100")  # by the kernel's design
    for attachment in attachments:
        site.check(attachment)
    site.delete(*attachments)
    assert "macvlan" not in web.run("ip -d link")
    site.demand_nothing_left(before)


def test_the_default_parent_is_the_way_out(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    attachment, result = site.add(network_of(), web)
    assert reaches(web, "192.0.2.1")
    assert result.interfaces[0].mtu == 1500
    assert [i.sandbox for i in result.interfaces] == [web.path]
    site.delete(attachment)
    host.run("ip route del default")
    with pytest.raises(NotFound, match="no parent"):
        site.add(network_of(), web)


@pytest.mark.parametrize(("mode", "heard"), [("bridge", True), ("private", False), ("vepa", False)])
def test_modes_decide_who_hears_whom(host: Host, router: Host, mode: str, heard: bool) -> None:
    site, network = Site(host), network_of(master="eth1", mode=mode, bcqueuelen=2000)
    web, db = host.container("web"), host.container("db")
    attachments = [site.add(network, each)[0] for each in (web, db)]
    assert f"mode {mode} bcqueuelen 2000" in web.run("ip -d link show eth0")
    assert reaches(web, "192.0.2.1")
    quick = "ping -c 1 -W 0.3 192.0.2.101"
    assert ("1 received" in web.run(f"{quick} || {quick}", check=False)) == heard
    site.check(attachments[0])
    site.delete(*attachments)


def test_passthru_and_source(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    whole = network_of(master="eth1", mode="passthru")
    attachment, result = site.add(whole, web)
    assert result.interfaces[0].mac == "02:00:00:00:00:0a"
    site.check(attachment)
    with pytest.raises(Conflict, match=attachment.owner):
        site.add(whole, host.container("db"))
    site.delete(attachment)
    with pytest.raises(ConfigError, match="a MAC cannot be served"):
        site.add(whole, web, mac="02:00:00:00:00:11")
    macs = ["02:00:00:00:00:22", "02:00:00:00:00:21"]
    attachment, _ = site.add(network_of(master="eth1", mode="source", sourceMacs=macs), web)
    site.check(attachment)
    assert "02:00:00:00:00:21" in web.run("ip -d link show eth0")
    site.delete(attachment)


def test_link_in_container(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    host.run(f"ip link set eth1 netns {web.name}")
    web.run("ip link set eth1 up && ip route add default dev eth1 || true")
    network = network_of(master="eth1", linkInContainer=True)
    with site.engine() as engine:
        assert engine.status(network) == []
    attachment, _ = site.add(network, web)
    assert reaches(web, "192.0.2.1")
    site.check(attachment)
    site.delete(attachment)
    assert "eth0" not in web.run("ip link")
    with pytest.raises(NotFound, match="eth1 is gone"):
        site.add(network, host.container("db"))


def test_the_host_reaches_its_containers_through_its_own_macvlan(host: Host, router: Host) -> None:
    before = dump(host)
    site, network = Site(host), network_of(LAN, LAN6, master="eth1", hostAccess=True)
    other = replace(network, name="other")
    web, db = host.container("web"), host.container("db")
    first, _ = site.add(network, web)
    second, _ = site.add(other, db)
    for address in ("192.0.2.100", "192.0.2.101", "2001:db8:1::100"):
        assert reaches(host, address), address
    for address in ("192.0.2.10", "2001:db8:1::10", "192.0.2.1"):
        assert reaches(web, address), address
    # the LAN still finds the host at its own MAC: the host's macvlan does not answer for it
    router.run("ip neigh flush all")
    assert reaches(router, "192.0.2.10")
    assert "02:00:00:00:00:0a" in router.run("ip neigh show 192.0.2.10")
    record = site.record(first)
    assert record is not None
    shim = next(s.ifname for s in record.plan if isinstance(s, Upper) and s.place == "host")
    host.run(f"ip link set {shim} down")
    with pytest.raises(CheckFailed, match=shim):
        site.check(first)
    for attachment in (first, second):  # its routes went with it
        site.repair(attachment)
    assert reaches(host, "192.0.2.100")
    site.delete(first)
    assert reaches(host, "192.0.2.101")
    site.delete(second)
    site.demand_nothing_left(before)


def test_own_addresses_of_the_hosts_macvlan(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    network = network_of(master="eth1", hostAccess=True, hostAddresses=["192.0.2.250/32"])
    attachment, _ = site.add(network, web)
    assert reaches(web, "192.0.2.250")
    site.delete(attachment)
    taken = network_of(master="eth1", hostAccess=True, hostAddresses=["192.0.2.101/32"])
    with pytest.raises(ConfigError, match="the host's and the container's"):
        site.add(taken, web)


def test_a_vanished_parent_is_named_and_repaired(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    network = network_of(master="eth1")
    with site.engine() as engine:
        assert engine.status(network) == []
    attachment, _ = site.add(network, web)
    host.run("ip link del eth1")
    with pytest.raises(CheckFailed, match="its parent eth1 is gone"):
        site.check(attachment)
    with site.engine() as engine, pytest.raises(Impaired, match="eth1 is gone"):
        engine.status(network)
    failed = site.repair(attachment).failed
    assert "eth1 is gone" in str(failed[0])
    host.run(f"ip link add eth1 type veth peer name lan0 netns {router.name}")
    host.run("ip link set eth1 up")
    assert not site.repair(attachment).failed
    site.check(attachment)
    host.run("ip link del eth1")
    site.delete(attachment)
    with site.engine() as engine, pytest.raises(Unavailable, match="eth1 is gone"):
        engine.status(network)


def test_a_smaller_parent_is_named(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    network = network_of(master="eth1")
    attachment, _ = site.add(network, web)
    host.run("ip link set eth1 mtu 1400")
    with pytest.raises(CheckFailed, match=r"MTU is 1400 \(its parent eth1 has 1400\), not 1500"):
        site.check(attachment)
    with site.engine() as engine:
        assert "its parent eth1 has 1400 now" in engine.status(network)[0]
    assert "cannot have an MTU of 1500" in str(site.repair(attachment).failed[0])
    host.run("ip link set eth1 mtu 1500")
    assert not site.repair(attachment).failed
    site.check(attachment)
    site.delete(attachment)
    with pytest.raises(ConfigError, match="the parent interface eth1 has 1500"):
        site.add(network_of(master="eth1", mtu=9000), web)


def test_a_mac_is_one_containers(host: Host, router: Host) -> None:
    site = Site(host)
    network, other = network_of(master="eth1"), replace(network_of(master="eth1"), name="other")
    first, _ = site.add(network, host.container("web"), mac="02:00:00:00:00:11")
    before = site.rows()
    with pytest.raises(Conflict, match=first.owner):
        site.add(other, host.container("db"), mac="02:00:00:00:00:11")
    with pytest.raises(ConfigError, match="the parent itself has it"):
        site.add(other, host.container("api"), mac="02:00:00:00:00:0a")
    assert site.rows() == before
    site.delete(first)


@pytest.mark.parametrize(
    ("keys", "wishes", "named"),
    [
        ({}, {"ports": (Port(80, 80),)}, "published ports"),
        ({}, {"bandwidth": Bandwidth(egress_rate=1000)}, "bandwidth"),
        ({"master": "lo"}, {}, "lo"),
        ({"master": "eth7"}, {}, "eth7 is gone"),
        ({"mode": "private", "hostAccess": True}, {}, "hostAccess"),
        ({"mode": "source"}, {}, "sourceMacs"),
        ({"mac": "01:00:00:00:00:01"}, {}, "no MAC of one station"),
        ({"mode": "brdige"}, {}, "mode"),
        ({"mastre": "eth1"}, {}, "did you mean"),
    ],
)
def test_what_cannot_be_is_said(
    host: Host, router: Host, keys: dict[str, Any], wishes: dict[str, Any], named: str
) -> None:
    site, before = Site(host), dump(host)
    with pytest.raises(NetplugError) as refusal:
        site.add(network_of(**{"master": "eth1", **keys}), host.container("web"), **wishes)
    error = refusal.value
    assert named in f"{error.what} {error.why} {error.hint}"
    site.demand_nothing_left(before)


def test_an_interface_of_somebody_elses_stays(host: Host, router: Host) -> None:
    site, web = Site(host), host.container("web")
    web.run("ip link add eth0 type bridge")
    with pytest.raises(Conflict, match="eth0 already exists"):
        site.add(network_of(master="eth1"), web)
    assert "eth0" in web.run("ip link")


def test_without_a_record_del_and_gc_go_by_the_mark(host: Host, router: Host) -> None:
    site, network = Site(host), network_of(master="eth1", hostAccess=True)
    before = dump(host)
    web, db, kept = (host.container(name) for name in ("web", "db", "kept"))
    attachments = [site.add(network, each)[0] for each in (web, db, kept)]
    with site.engine() as engine, engine.state.transaction() as connection:
        for table in ("records", "usage", "leases"):
            connection.execute(f"DELETE FROM {table}")
    web.run("ip link set eth0 down && ip link set eth0 name net7")
    for _ in range(2):
        site.delete(attachments[0])
    assert "macvlan" not in web.run("ip -d link")
    living = (kept.name, "eth0")
    assert site.gc(network, living) == [attachments[1].owner]
    assert "macvlan" not in db.run("ip -d link") and "macvlan" in kept.run("ip -d link")
    assert site.gc(network) == [attachments[2].owner]
    with site.engine() as engine:
        assert [item.partition(" ")[0] for item in gc_host(engine)] == ["macvlan"]
    site.demand_nothing_left(before)


def test_the_end_of_a_namespace_is_no_obstacle(host: Host, router: Host) -> None:
    site, network = Site(host), network_of(master="eth1", hostAccess=True)
    before = dump(host)
    attachment, _ = site.add(network, host.container("web"))
    site.delete(replace(attachment, sandbox=""))
    site.demand_nothing_left(before)

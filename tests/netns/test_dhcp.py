"""Addresses from a DHCP server: taken, renewed by the agent, given back, whatever servers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import Station, ask, wait_for
from attaching import STATE, Site, driver_network, dump, make_network
from cni_exec import Pod, Runtime, reference_plugins
from dhcp_servers import Asked, Dnsmasq, scripted_server
from dns_client import ask as query
from dns_client import data
from dns_world import Names

from netplug.dhcp import ipam, leases, packet
from netplug.dns import service
from netplug.errors import Busy, CheckFailed, ConfigError, Unavailable
from netplug.model import Attachment, Network

if TYPE_CHECKING:
    from conftest import Host

RANGE = "--dhcp-range=192.0.2.100,192.0.2.150,255.255.255.0"


@pytest.fixture
def lan(host: Host) -> Host:
    """The network beyond eth1, with the server's address."""
    beyond = host.container("lan")
    host.run(f"ip link add eth1 type veth peer name lan0 netns {beyond.name}")
    host.run("ip link set eth1 up")
    beyond.run("ip link set lan0 up && ip addr add 192.0.2.1/24 dev lan0")
    return beyond


@pytest.fixture
def kept() -> Iterator[None]:
    """Somebody says that leases are renewed: for tests that end before one is due."""
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ipam.keeping(STATE):
        yield


@pytest.fixture
def agent(host: Host, tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "agent" / "sock", log=tmp_path / "agent.log")
    host.call(station.start)
    yield station
    station.end()


def network_of(driver: str = "macvlan", **keys: Any) -> Network:
    keys = {"ipam": {"type": "netplug-dhcp"}, **keys}
    if driver == "bridge":
        return make_network(**keys)
    return driver_network(driver, master="eth1", **keys)


def addresses(host: Host, device: str = "eth0") -> list[str]:
    found = json.loads(host.run(f"ip -4 -j addr show dev {device}"))
    held = [a for link in found for a in link.get("addr_info", [])]
    return [f"{a['local']}/{a['prefixlen']}" for a in held]


def held(site: Site, attachment: Attachment) -> leases.Held | None:
    with site.engine() as engine:
        return leases.get(engine.state.connection, engine.host.id, attachment.owner)


def renew_now(site: Site, attachment: Attachment, **times: Any) -> None:
    """The lease is due, as it would be later."""
    with site.engine() as engine, engine.state.transaction() as db:
        found = leases.get(db, engine.host.id, attachment.owner)
        assert found is not None
        leases.put(db, replace(found, **{"next": 0.0, **times}))


def is_renewed(site: Site, attachment: Attachment) -> bool:
    found = held(site, attachment)
    return found is not None and found.next > leases.now() + 10 and not found.fault


# --- one lease


@pytest.mark.usefixtures("kept")
def test_a_lease_is_taken_and_given_back(host: Host, lan: Host, tmp_path: Path) -> None:
    server = Dnsmasq(
        lan,
        tmp_path,
        RANGE + ",1h",
        "--dhcp-option=option:router,192.0.2.1",
        "--dhcp-option=option:dns-server,192.0.2.53",
        "--dhcp-option=option:domain-name,lab.example",
        "--dhcp-option=option:domain-search,lab.example,example.com",
        "--dhcp-option=option:mtu,1400",
    )
    site, web = Site(host), host.container("web")
    before = dump(host)
    attachment, result = site.add(network_of(), web, "web")
    address = result.ips[0]
    assert str(address.gateway) == "192.0.2.1"
    assert addresses(web) == [str(address.address)]
    assert "default via 192.0.2.1" in web.run("ip route") and "mtu 1400" in web.run("ip route")
    assert result.dns.nameservers == ("192.0.2.53",)
    assert result.dns.domain == "lab.example"
    assert result.dns.search == ("lab.example", "example.com")
    assert " web " in server.leases.read_text()
    site.check(attachment)
    again, _ = site.add(network_of(), host.container("db"), "db")
    site.delete(attachment)
    server.wait_for("DHCPRELEASE")
    wait_for(lambda: str(address.address.ip) not in server.leases.read_text(), "the release")
    site.delete(attachment)
    site.delete(again)
    server.wait_for("DHCPRELEASE", 2)
    site.demand_nothing_left(before)


@pytest.mark.usefixtures("kept")
def test_a_bridge_with_a_servers_uplink(host: Host, lan: Host, tmp_path: Path) -> None:
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h")
    host.run("ip link add br0 type bridge && ip link set br0 up && ip link set eth1 master br0")
    site, web = Site(host), host.container("web")
    attachment, result = site.add(network_of("bridge"), web, "web")
    assert addresses(web) == [str(result.ips[0].address)]
    assert "1 received" in web.run("ping -c 1 -W 2 192.0.2.1")
    site.check(attachment)
    site.delete(attachment)
    server.wait_for("DHCPRELEASE")
    with pytest.raises(ConfigError, match="DHCP"):
        site.add(network_of("bridge", isGateway=True), web, "web")


@pytest.mark.usefixtures("kept")
def test_what_is_sent_and_asked_for(host: Host, lan: Host, tmp_path: Path) -> None:
    server = Dnsmasq(
        lan,
        tmp_path,
        RANGE + ",1h",
        "--dhcp-option=option:classless-static-route,198.51.100.0/24,192.0.2.9,"
        "0.0.0.0/0,192.0.2.7,203.0.113.0/24,0.0.0.0",
        "--dhcp-userclass=set:lab,lab",
        "--dhcp-host=id:special,192.0.2.77",
    )
    section = {
        "type": "netplug-dhcp",
        "clientId": "special",
        "hostname": "renamed",
        "priority": 77,
        "provide": [{"option": "user-class", "value": "lab"}],
        "request": [{"option": "42"}],
    }
    site, web = Site(host), host.container("web")
    attachment, _ = site.add(network_of(ipam=section), web, "web")
    routes = web.run("ip route")
    assert "default via 192.0.2.7" in routes and "metric 77" in routes
    assert "198.51.100.0/24 via 192.0.2.9" in routes
    assert "203.0.113.0/24 dev eth0" in routes
    server.wait_for("client provides name: renamed")
    server.wait_for("user class: lab")
    assert "42:ntp-server" in server.log.read_text()
    site.delete(attachment)


def test_without_an_agent_no_address_is_taken(host: Host, lan: Host) -> None:
    site, network = Site(host), network_of()
    before = dump(host)
    with pytest.raises(Unavailable, match="no agent runs") as refusal:
        site.add(network, host.container("web"), "web")
    assert "netplug agent start" in refusal.value.hint
    with site.engine() as engine, pytest.raises(Unavailable, match="no agent runs"):
        engine.status(network)
    site.demand_nothing_left(before)


@pytest.mark.usefixtures("kept")
def test_a_silent_network_is_an_error_in_bounded_time(host: Host, lan: Host) -> None:
    site, before = Site(host), dump(host)
    network = network_of(ipam={"type": "netplug-dhcp", "timeout": 1})
    with pytest.raises(Busy, match="none answered"):
        site.add(network, host.container("web"), "web")
    site.demand_nothing_left(before)


LIES: dict[str, Any] = {
    "another client's answer": lambda m: m.answer(
        packet.OFFER, "192.0.2.9", mac="02:09:09:09:09:09"
    ),
    "another exchange": lambda m: m.answer(packet.OFFER, "192.0.2.9", xid=7),
    "a multicast address": lambda m: m.answer(packet.OFFER, "224.0.0.1"),
    "no address": lambda m: m.answer(packet.OFFER, "0.0.0.0"),
    "the broadcast address": lambda m: m.answer(packet.OFFER, "192.0.2.255"),
    "no mask": lambda m: m.answer(packet.OFFER, "192.0.2.9", {1: None}),
    "a mask with holes": lambda m: m.answer(packet.OFFER, "192.0.2.9", {1: b"\xff\0\xff\0"}),
    "no time": lambda m: m.answer(packet.OFFER, "192.0.2.9", {51: bytes(4)}),
    "no server": lambda m: m.answer(packet.OFFER, "192.0.2.9", {54: None}),
    "half a message": lambda m: m.answer(packet.OFFER, "192.0.2.9")[:243],
    "a cut option": lambda m: m.answer(packet.OFFER, "192.0.2.9")[:-1] + b"\x0c\xff",
    "noise": lambda m: b"\xff" * 400,
}


@pytest.mark.usefixtures("kept")
def test_a_lying_server_gives_nothing_and_an_honest_one_is_heard(host: Host, lan: Host) -> None:
    """All the lies come first, each time; then, at last, the truth."""

    def says(number: int, message: Asked) -> list[bytes]:
        if message.kind == packet.RELEASE:
            return []
        lies = [lie(message) for lie in LIES.values()]
        if message.kind == packet.REQUEST:
            return [*lies, message.answer(packet.ACK, "192.0.2.50")]
        return [*lies, message.answer(packet.OFFER, "192.0.2.50")] if number > 1 else lies

    site, web = Site(host), host.container("web")
    with scripted_server(lan, "lan0", says) as asked:
        attachment, _ = site.add(network_of(), web, "web")
        assert addresses(web) == ["192.0.2.50/24"]
        site.delete(attachment)
        wait_for(lambda: asked[-1].kind == packet.RELEASE, "the release")
        assert str(asked[-1].address) == "192.0.2.50"
    lies = iter(LIES.values())
    with scripted_server(lan, "lan0", lambda n, m: [lie(m) for lie in [next(lies, None)] if lie]):
        network = network_of(ipam={"type": "netplug-dhcp", "timeout": 2})
        with pytest.raises(Busy, match="the last answer was no use"):
            site.add(network, web, "web")


@pytest.mark.usefixtures("kept")
def test_an_offer_that_is_taken_back(host: Host, lan: Host) -> None:
    def says(number: int, message: Asked) -> list[bytes]:
        if message.kind == packet.DISCOVER:
            return [message.answer(packet.OFFER, f"192.0.2.{60 + number}")]
        kind = packet.NAK if number == 2 else packet.ACK
        return [message.answer(kind, f"192.0.2.{59 + number}")]

    site, web = Site(host), host.container("web")
    with scripted_server(lan, "lan0", says):
        attachment, result = site.add(network_of(), web, "web")
        assert addresses(web) == [str(result.ips[0].address)] == ["192.0.2.63/24"]
        site.delete(attachment)


# --- kept by the agent


def test_the_agent_renews_and_goes_on_after_a_kill(
    host: Host, lan: Host, agent: Station, tmp_path: Path
) -> None:
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h")
    site, web = Site(host), host.container("web")
    attachment, _ = site.add(network_of(), web, "web")
    before = addresses(web)
    for _ in range(2):
        acks = server.said("DHCPACK")
        renew_now(site, attachment)
        server.wait_for("DHCPACK", acks + 1)
        wait_for(lambda: is_renewed(site, attachment), "the renewal")
        agent.kill()
        host.call(agent.start)
    assert addresses(web) == before
    site.check(attachment)
    site.delete(attachment)
    server.wait_for("DHCPRELEASE")


def test_short_leases_are_renewed_at_t1_by_themselves(
    host: Host, lan: Host, agent: Station
) -> None:
    def says(number: int, message: Asked) -> list[bytes]:
        if message.kind == packet.RELEASE:
            return []
        kind = packet.OFFER if message.kind == packet.DISCOVER else packet.ACK
        times = {packet.LEASE_TIME: 6, packet.T1: 1, packet.T2: 4}
        return [
            message.answer(kind, "192.0.2.50", {k: v.to_bytes(4, "big") for k, v in times.items()})
        ]

    site, web = Site(host), host.container("web")
    with scripted_server(lan, "lan0", says) as asked:
        attachment, _ = site.add(network_of(), web, "web")
        wait_for(lambda: len(asked) >= 4, "two renewals")
        assert [m.kind for m in asked[2:4]] == [packet.REQUEST] * 2
        # a renewal says its own address, and asks for none (RFC 2131, table 4)
        assert str(asked[2].address) == "192.0.2.50"
        assert not {packet.REQUESTED_IP, packet.SERVER_ID} & asked[2].options.keys()
        assert addresses(web) == ["192.0.2.50/24"]
        site.delete(attachment)


def test_another_server_takes_the_lease_over(
    host: Host, lan: Host, agent: Station, tmp_path: Path
) -> None:
    """Rebinding: the first server is gone, the second knows the address by its file."""
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    site, web = Site(host), host.container("web")
    attachment, _ = site.add(network_of(), web, "web")
    before = addresses(web)
    server.stop()
    renew_now(site, attachment)
    wait_for(lambda: (found := held(site, attachment)) and found.fault, "the silence")
    site.check(attachment)
    lan.run("ip addr del 192.0.2.1/24 dev lan0 && ip addr add 192.0.2.2/24 dev lan0")
    second = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    renew_now(site, attachment, rebind=0.0)
    wait_for(lambda: is_renewed(site, attachment), "the rebinding")
    found = held(site, attachment)
    assert found is not None and str(found.server) == "192.0.2.2"
    assert addresses(web) == before
    site.delete(attachment)
    second.wait_for("DHCPRELEASE")


def test_a_refused_address_is_replaced(
    host: Host, lan: Host, agent: Station, tmp_path: Path
) -> None:
    """The server's range is another one since: NAK, and everything follows the new address."""
    host.run("ip addr add 192.0.2.10/24 dev eth1")
    first = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    site, web = Site(host), host.container("web")
    attachment, _ = site.add(network_of(hostAccess=True), web, "web")
    before = addresses(web)
    first.stop()
    first.leases.unlink()
    other = RANGE.replace(".100", ".200").replace(".150", ".220")
    second = Dnsmasq(lan, tmp_path, other + ",1h", "--dhcp-authoritative")
    renew_now(site, attachment)
    wait_for(lambda: is_renewed(site, attachment), "a new address")
    assert second.said("DHCPNAK")
    assert len(addresses(web)) == 1 and addresses(web) != before
    assert addresses(web)[0].startswith("192.0.2.2")
    record = site.record(attachment)
    assert record is not None and record.result is not None
    assert [str(ip.address) for ip in record.result.ips] == addresses(web)
    assert "1 received" in host.run(f"ping -c 1 -W 2 {addresses(web)[0].partition('/')[0]}")
    site.check(attachment)
    site.delete(attachment)
    assert "shim" not in host.run("ip -br link; ip route")


def test_a_lease_that_ends_takes_the_address_along(
    host: Host, lan: Host, agent: Station, tmp_path: Path
) -> None:
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    site, web = Site(host), host.container("web")
    attachment, _ = site.add(network_of(), web, "web")
    server.stop()
    renew_now(site, attachment, rebind=0.0, expire=leases.now() - 1)
    wait_for(lambda: not addresses(web), "the end of the address")
    with pytest.raises(CheckFailed, match="its DHCP lease ended"):
        site.check(attachment)
    Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    wait_for(lambda: is_renewed(site, attachment), "another address")
    assert len(addresses(web)) == 1
    site.check(attachment)
    site.delete(attachment)


def test_a_killed_agent_finishes_a_change_of_address(host: Host, lan: Host, tmp_path: Path) -> None:
    """What it had noted before it died is applied by the next one."""
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
    site, web = Site(host), host.container("web")
    with ipam.keeping(STATE):
        attachment, _ = site.add(network_of(), web, "web")
    before = addresses(web)
    web.run("ip addr flush dev eth0")  # the old one was gone, the new one not yet there
    renew_now(site, attachment, fault="its terms have changed and are being applied")
    station = Station(tmp_path / "agent" / "sock", log=tmp_path / "agent.log")
    host.call(station.start)
    try:
        wait_for(lambda: is_renewed(site, attachment), "the renewal")
        assert addresses(web) == before
        site.check(attachment)
        site.delete(attachment)
        server.wait_for("DHCPRELEASE")
    finally:
        station.end()


def test_a_dead_container_gives_its_address_back_through_the_host(
    host: Host, lan: Host, tmp_path: Path
) -> None:
    host.run("ip addr add 192.0.2.10/24 dev eth1")
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h")
    site = Site(host)
    with ipam.keeping(STATE):
        attachment, _ = site.add(network_of(), host.container("web"), "web")
    site.delete(replace(attachment, sandbox=""))
    with site.engine() as engine:
        assert engine.records() == []
    server.wait_for("DHCPRELEASE")


# --- the reference plugin


def test_the_reference_dhcp_plugin_still_serves(host: Host, lan: Host, tmp_path: Path) -> None:
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h")
    socket, program = tmp_path / "dhcp.sock", reference_plugins() / "dhcp"
    daemon = host.start(f"exec {program} daemon -socketpath {socket}")
    wait_for(socket.exists, "the daemon's socket")
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "dhcp").symlink_to(program)
    runtime, web = Runtime(host, folder, cache=tmp_path / "cache"), host.container("web")
    plugin = {
        "type": "netplug",
        "driver": "macvlan",
        "master": "eth1",
        "ipam": {"type": "dhcp", "daemonSocketPath": str(socket)},
    }
    network = {"cniVersion": "1.0.0", "name": "lan", "plugins": [plugin]}
    pod = Pod("web", web.path)
    result = runtime.add(network, pod)
    assert addresses(web) == [result["ips"][0]["address"]]
    runtime.check(network, pod)
    runtime.delete(network, pod)
    server.wait_for("DHCPRELEASE")
    daemon.terminate()


def test_plugin_calls_through_the_agent(
    host: Host, lan: Host, agent: Station, tmp_path: Path
) -> None:
    server = Dnsmasq(lan, tmp_path, RANGE + ",1h")
    web = host.container("web")
    pod = Pod("web", web.path)
    config = {
        "cniVersion": "1.1.0",
        "name": "lan",
        "type": "netplug-macvlan",
        "master": "eth1",
        "ipam": {"type": "netplug-dhcp"},
    }

    def call(verb: str, more: dict[str, Any]) -> Any:
        request = json.dumps({**config, **more}).encode()
        status, said = ask(agent.socket, host, pod.environ(verb, "/none"), request)
        assert not status, said
        return json.loads(said) if said else None

    result = call("ADD", {})
    assert addresses(web) == [result["ips"][0]["address"]]
    call("CHECK", {"prevResult": result})
    call("STATUS", {})
    call("DEL", {})
    server.wait_for("DHCPRELEASE")
    assert agent.counted("ADD", "ok") == 1


def test_a_name_follows_the_address(host: Host, lan: Host, tmp_path: Path) -> None:
    names = Names(tmp_path)
    host.call(names.station.start)
    web, api = host.container("web"), host.container("api")
    keys: dict[str, Any] = {
        "driver": "macvlan",
        "master": "eth1",
        "ipam": {"type": "netplug-dhcp"},
    }
    try:
        first = Dnsmasq(lan, tmp_path, RANGE + ",1h", "--dhcp-authoritative")
        for container, name in ((web, "web"), (api, "api")):
            result = names.add(host, container, name, **keys)
            assert result["dns"]["nameservers"] == ["127.0.0.11"]
        first.stop()
        first.leases.unlink()
        other = RANGE.replace(".100", ".200").replace(".150", ".220")
        Dnsmasq(lan, tmp_path, other + ",1h", "--dhcp-authoritative")
        site = Site(host)
        attachment = Attachment("lan", web.name, "eth0", web.path)
        renew_now(site, attachment)
        wait_for(lambda: is_renewed(site, attachment), "a new address")
        (address,) = addresses(web)
        assert address.startswith("192.0.2.2")
        assert data(query(api, "127.0.0.11", "web")) == [address.partition("/")[0]]
        for container in (web, api):
            names.delete(host, container, **keys)
    finally:
        names.station.end()
        service.stop(tmp_path)

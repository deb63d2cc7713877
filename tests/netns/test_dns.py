"""The name server behind real ADDs and DELs: what containers hear, and when."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from agents import wait_for
from attaching import STATE
from cni_exec import Answer, Pod, serve_in
from dns_client import ask as query
from dns_client import data, question, rcode, send, send_tcp
from dns_world import CONFIG, GATEWAY, GATEWAY6, OTHER, Names
from dnslib import EDNS0, DNSRecord

from netplug.dns import service
from netplug.host import default_run_folder
from netplug.kernel import namespaces

if TYPE_CHECKING:
    from conftest import Host


def test_a_name_is_there_when_add_returns_and_gone_after_del(names: Names, host: Host) -> None:
    web, api = host.container("web"), host.container("api")
    result = names.add(host, web, "web")
    assert result["dns"] == {"nameservers": [GATEWAY, GATEWAY6], "search": ["lan.internal"]}
    names.add(host, api, "api")
    assert data(query(api, GATEWAY, "web")) == [result["ips"][0]["address"].partition("/")[0]]
    assert data(query(api, GATEWAY6, "WEB.lan.internal", "AAAA", tcp=True)) == ["fd00:1::2"]
    names.delete(host, web)
    assert rcode(query(api, GATEWAY, "web.lan.internal")) == "NXDOMAIN"
    names.delete(host, api)


def test_what_a_container_is_called(names: Names, host: Host) -> None:
    """Name, aliases in both shapes, short id, the ways to say them; services; the host."""
    web, api = host.container("web"), host.container("api")
    wishes = {
        "aliases": {"lan": ["www", "shared"]},
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    }
    names.add(host, web, "web", runtimeConfig=wishes)
    names.add(host, api, "api", runtimeConfig={"aliases": ["shared"]})
    for name in ("web", "www", "www.internal", "WeB.LAN.Internal", web.name):
        assert data(query(api, GATEWAY, name)) == ["10.1.0.2"], name
    assert {data(query(web, GATEWAY, "shared"))[0] for _ in range(4)} == {"10.1.0.2", "10.1.0.3"}
    assert data(query(web, GATEWAY, "2.0.1.10.in-addr.arpa", "PTR")) == ["web.lan.internal."]
    assert data(query(api, GATEWAY, "_http._tcp.www", "SRV")) == ["0 0 80 web.lan.internal."]
    assert data(query(web, GATEWAY, "host.containers.internal")) == [GATEWAY]
    nodata = query(web, GATEWAY, "api", "MX")
    assert rcode(nodata) == "NOERROR" and not nodata.rr and len(nodata.auth) == 1
    for container in (web, api):
        names.delete(host, container)


def test_strangers_are_refused(names: Names, host: Host) -> None:
    """An address on the bridge that is no member's, the host itself, another network."""
    web = host.container("web")
    names.add(host, web, "web")
    web.run("ip addr flush dev eth0 && ip addr add 10.1.0.99/24 dev eth0")
    assert rcode(query(web, GATEWAY, "web")) == "REFUSED"
    assert rcode(query(host, GATEWAY, "web")) == "REFUSED"
    lone = host.container("lone")
    names.add(host, lone, "lone", **OTHER)
    with pytest.raises(ConnectionRefusedError):  # the socket is bound to the bridge
        query(lone, GATEWAY, "web")
    names.delete(host, lone, **OTHER)
    names.delete(host, web)


@pytest.mark.parametrize("how", ["a bridge without gateway", "addresses only"])
def test_inside_where_the_host_has_no_address(names: Names, host: Host, how: str) -> None:
    web, api = host.container("web"), host.container("api")
    keys: dict[str, Any] = {"isDefaultGateway": False, "ipMasq": False}
    if how == "addresses only":
        keys["type"] = "macvlan"  # somebody else's plugin, which asks us for addresses
    for container, name in ((web, "web"), (api, "api")):
        result = names.add(host, container, name, **keys)
        assert result["dns"]["nameservers"] == ["127.0.0.11"]
    assert data(query(api, "127.0.0.11", "web")) == ["10.1.0.2"]
    assert data(query(web, "127.0.0.11", "api.lan.internal", tcp=True)) == ["10.1.0.3"]
    names.delete(host, web, **keys)
    with pytest.raises(ConnectionRefusedError):
        query(web, "127.0.0.11", "api")
    names.delete(host, api, **keys)


def test_on_a_macvlan_names_are_asked_inside(names: Names, host: Host) -> None:
    host.run("ip link add dev0 type veth && ip link set dev0 up")
    web, api = host.container("web"), host.container("api")
    keys: dict[str, Any] = {"driver": "macvlan", "master": "dev0"}
    for container, name in ((web, "web"), (api, "api")):
        result = names.add(host, container, name, **keys)
        assert result["dns"]["nameservers"] == ["127.0.0.11"]
    assert data(query(api, "127.0.0.11", "web")) == ["10.1.0.2"]
    for container in (web, api):
        names.delete(host, container, **keys)


def test_a_container_that_died_does_not_live_on_with_us(names: Names, host: Host) -> None:
    web = host.container("web")
    keys: dict[str, Any] = {"isDefaultGateway": False, "ipMasq": False}
    names.add(host, web, "web", **keys)
    port = json.loads(host.run("ip -j link show type veth"))[0]["ifname"]
    os.close(web.fd)  # the last of the test's own
    web.fd = os.open("/dev/null", os.O_RDONLY)
    subprocess.run(["ip", "netns", "del", web.name], check=True)
    wait_for(lambda: port not in host.run("ip link"), "the end of the veth pair")
    names.delete(host, web, **keys)


def test_answers_go_on_without_the_agent(names: Names, host: Host) -> None:
    web = host.container("web")
    names.add(host, web, "web")
    pid = service.read_status(names.folder)
    names.station.kill()
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    names.station.start()
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    names.delete(host, web)
    assert pid and (service.read_status(names.folder) or {}).get("pid") == pid["pid"]
    names.station.stop()
    assert service.read_status(names.folder) is None


def test_a_killed_name_server_comes_back_with_its_names(names: Names, host: Host) -> None:
    """Both kinds of places, on a host that it has to find by its cookie."""
    web, lone = host.container("web"), host.container("lone")
    keys: dict[str, Any] = {"isDefaultGateway": False, "ipMasq": False, "name": "other"}
    keys |= {"bridge": "br1", "ipam": {"ranges": [[{"subnet": "10.2.0.0/24"}]]}}
    names.add(host, web, "web")
    names.add(host, lone, "lone", **keys)
    pid = (service.read_status(names.folder) or {})["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: (service.read_status(names.folder) or {}).get("pid", pid) != pid)
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    assert data(query(lone, "127.0.0.11", "lone")) == ["10.2.0.2"]
    names.delete(host, web)
    names.delete(host, lone, **keys)


def test_a_container_on_two_networks_sees_both(names: Names, host: Host) -> None:
    both, web, db = (host.container(name) for name in ("both", "web", "db"))
    other = {"name": "back", "bridge": "br1", "internal": True, "isDefaultGateway": False}
    other |= {"isGateway": True, "ipam": {"ranges": [[{"subnet": "10.2.0.0/24"}]]}}
    names.add(host, web, "web")
    names.add(host, db, "db", **other)
    names.add(host, both, "both")
    names.add(host, both, "both", ifname="eth1", **other)
    assert data(query(both, GATEWAY, "db")) == ["10.2.0.2"]
    assert data(query(both, "10.2.0.1", "web")) == ["10.1.0.2"]
    assert rcode(query(db, "10.2.0.1", "web")) == "NXDOMAIN"  # internal: no other names
    assert sorted(data(query(both, GATEWAY, "both"))) == ["10.1.0.3", "10.2.0.3"]
    names.delete(host, both, ifname="eth1", **other)
    assert rcode(query(both, GATEWAY, "db.back.internal")) == "NXDOMAIN"
    for container, keys in ((both, {}), (web, {}), (db, other)):
        names.delete(host, container, **keys)


def test_a_taken_port_is_named_and_the_container_asks_inside(names: Names, host: Host) -> None:
    web = host.container("web")
    host.start(
        'exec python3 -c "import socket, time; s = socket.socket(2, 2); '
        "s.bind(('0.0.0.0', 53)); time.sleep(600)\""
    )
    wait_for(lambda: ":53 " in host.run("ss -lun"), "the other server")
    result = names.add(host, web, "web")
    assert result["dns"]["nameservers"] == [GATEWAY6]
    assert "python3 (PID " in names.log
    names.delete(host, web)


def test_an_input_policy_that_drops(names: Names, host: Host) -> None:
    """Also for an internal network, whose forward accepts are not wanted."""
    host.run(
        "nft 'add table inet filter; add chain inet filter input"
        " { type filter hook input priority 0; policy drop; }'"
    )
    web = host.container("web")
    keys = {"internal": True, "isDefaultGateway": False, "isGateway": True, "ipMasq": False}
    names.add(host, web, "web", **keys)
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    names.delete(host, web, **keys)
    assert "netplug" not in host.run("nft list table inet filter")


def test_one_process_uses_the_same_name_server(host: Host) -> None:
    """Which the agent starts for it; without both the container gets no dead resolver."""
    web, api = host.container("web"), host.container("api")
    names = Names(default_run_folder())

    def alone(command: str, container: Host, name: str) -> Answer:
        args = f"K8S_POD_NAME={name}"
        environ = Pod(container.name, container.path, args=args).environ(command, "/opt/cni/bin")
        return serve_in(host, environ, json.dumps(CONFIG).encode())

    lone = alone("ADD", web, "web")
    assert not lone.code and not lone.document.get("dns")
    assert "netplug agent start" in lone.log
    assert "by name" in alone("STATUS", web, "").log
    names.station.start()
    try:
        added = alone("ADD", api, "api")
        assert added.document["dns"]["nameservers"] == [GATEWAY, GATEWAY6]
        assert not added.log and not alone("STATUS", web, "").log
        assert data(query(api, GATEWAY, "web")) == ["10.1.0.2"]
        assert not alone("DEL", web, "web").code
        assert rcode(query(api, GATEWAY, "web.internal")) == "NXDOMAIN"
        alone("DEL", api, "api")
    finally:
        names.station.end()
        service.stop(names.folder)
        (names.folder / "log").unlink()


def test_no_question_is_lost_while_containers_come_and_go(names: Names, host: Host) -> None:
    """And each name is there, or gone, in the first question after ADD or DEL has returned."""
    web = host.container("web")
    names.add(host, web, "web")
    end, lost, asked = threading.Event(), [], itertools.count()

    def keep_asking() -> None:
        while not end.is_set():
            next(asked)
            if data(query(web, GATEWAY, "web")) != ["10.1.0.2"]:
                lost.append(time.monotonic())

    thread = threading.Thread(target=keep_asking)
    thread.start()
    others = [host.container(f"other{number}") for number in range(3)]
    for number in range(12):
        other = others[number % 3]
        result = names.add(host, other, f"other{number}")
        address = result["ips"][0]["address"].partition("/")[0]
        assert data(query(web, GATEWAY, f"other{number}")) == [address]
        names.delete(host, other)
        assert rcode(query(web, GATEWAY, f"other{number}.internal")) == "NXDOMAIN"
    end.set()
    thread.join()
    assert not lost and next(asked) > 12
    names.delete(host, web)


def test_what_is_no_question_is_dropped_and_counted(names: Names, host: Host) -> None:
    web = host.container("web")
    names.add(host, web, "web")
    good = question("web")
    for bad in (b"", b"\0" * 11, good[:2] + b"\x80" + good[3:], os.urandom(3)):
        assert send(web, GATEWAY, bad, seconds=0.1) == b""
    assert names.ask_server("stats")["queries"]["malformed"] == 4
    assert rcode(DNSRecord.parse(send(web, GATEWAY, good[:-1]))) == "FORMERR"
    assert send_tcp(web, GATEWAY, b"\0" * 5) == []
    assert len(send_tcp(web, GATEWAY, *[good] * 20)) == 20
    names.delete(host, web)


def test_one_client_cannot_take_all_connections(names: Names, host: Host) -> None:
    web = host.container("web")
    names.add(host, web, "web")

    def connect() -> list[socket.socket]:
        return [socket.create_connection((GATEWAY, 53), 5) for _ in range(40)]

    held = web.call(connect)
    wait_for(lambda: names.ask_server("stats")["queries"].get("refused_connections") == 24)
    assert names.ask_server("stats")["connections"] == 16
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    for one in held:
        one.close()
    names.delete(host, web)


def test_what_does_not_fit_in_a_datagram_comes_over_tcp(names: Names, host: Host) -> None:
    """TC says that not all is there (RFC 2181 section 9); TCP and EDNS take more."""
    containers = [host.container(f"c{number}") for number in range(3)]
    port = {"containerPort": 80, "protocol": "tcp"}
    for number, container in enumerate(containers):
        wishes = {"aliases": ["shared"], "portMappings": [{"hostPort": 8000 + number, **port}]}
        names.add(host, container, f"{'x' * 60}{number}.{'y' * 60}", runtimeConfig=wishes)
    cut = query(containers[0], GATEWAY, "_http._tcp.shared", "SRV")
    assert cut.header.tc and not cut.rr
    whole = query(containers[0], GATEWAY, "_http._tcp.shared", "SRV", tcp=True)
    assert len(whole.rr) == 3 and len(whole.ar) == 6 and not whole.header.tc
    wide = DNSRecord.parse(question("_http._tcp.shared", "SRV"))
    wide.add_ar(EDNS0(udp_len=4096))
    reply = DNSRecord.parse(send(containers[0], GATEWAY, bytes(wide.pack())))
    assert len(reply.rr) == 3 and not reply.header.tc
    for container in containers:
        names.delete(host, container)


def test_the_way_of_a_question_is_told(names: Names, host: Host) -> None:
    web = host.container("web")
    names.add(host, web, "web")
    record = names.ask_server("records")["records"][0]
    assert (record["name"], record["addresses"]) == ("web.lan.internal", ["10.1.0.2", "fd00:1::2"])
    host_id = f"{namespaces.boot_id()}:{namespaces.cookie(host.fd)}"
    told = names.ask_server("query", host=host_id, owner=record["owner"], name="web", type="AAAA")
    assert (told["way"], told["source"], told["rcode"]) == ("names", "lan", "NOERROR")
    assert [answer["data"] for answer in told["answers"]] == ["fd00:1::2"] and told["ms"] < 1000
    assert "error" in names.ask_server("query", host=host_id, owner="x", name="web")
    assert "error" in names.ask_server("nonsense")
    names.delete(host, web)


def test_a_bridge_that_was_made_anew_is_listened_on(names: Names, host: Host) -> None:
    web = host.container("web")
    names.add(host, web, "web")
    host.run("ip link set br0 name old; ip link add br0 type bridge; ip link set br0 up")
    port = json.loads(host.run("ip -j link show master old"))[0]["ifname"]
    host.run(f"ip link del old; ip link set {port} master br0; ip addr add 10.1.0.1/24 dev br0")

    def answers() -> bool:
        try:
            return data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
        except (ConnectionRefusedError, AssertionError):
            return False

    wait_for(answers, "an answer")
    names.delete(host, web)
    host.run("ip link del br0", check=False)


def test_a_name_server_of_another_version_is_replaced(
    names: Names, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = host.container("web")
    names.add(host, web, "web")
    pid = names.ask_server("status")["pid"]
    supervisor = service.Supervisor(names.folder, STATE)
    assert supervisor.ensure() and names.ask_server("status")["pid"] == pid
    monkeypatch.setattr(service, "__version__", "another")
    assert supervisor.ensure()
    assert names.ask_server("status")["pid"] != pid
    assert data(query(web, GATEWAY, "web")) == ["10.1.0.2"]
    names.delete(host, web)

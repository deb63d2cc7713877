"""The rules of the DNS, each once by dig, which is written by others than us."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest
from agents import parse_metrics, wait_for
from dns_client import ask, data, question
from dns_tools import Dig, find_tree
from dns_upstream import cut_off, honest, nxdomain, silent, upstream
from dns_world import GATEWAY, GATEWAY6, OTHER, Names

from netplug.agent.server import control
from netplug.dns import service

if TYPE_CHECKING:
    from conftest import Host

STUB, SECOND = "127.0.0.53", "127.0.0.54"
PORTS = [{"hostPort": 8080 + n, "containerPort": 80, "protocol": "tcp"} for n in range(3)]


@pytest.fixture
def dig() -> Dig:
    return Dig(find_tree())


def status(text: str) -> str:
    found = re.search(r"status: (\w+)", text)
    assert found, text
    return found[1]


def flags(text: str) -> set[str]:
    found = re.search(r"flags: ([a-z ]*);", text)
    assert found, text
    return set(found[1].split())


def test_questions_of_dig(names: Names, host: Host, dig: Dig) -> None:
    web, api = host.container("web"), host.container("api")
    for container, name, port in ((web, "web", PORTS[0]), (api, "api", PORTS[1])):
        wishes = {"aliases": ["shop"], "portMappings": [port]}
        names.add(host, container, name, runtimeConfig=wishes)
    at, at6 = f"@{GATEWAY}", f"@{GATEWAY6}"

    # RFC 1035: A and AAAA, over both families, UDP and TCP; case is kept (0x20)
    assert dig.short(api, at, "web") == ["10.1.0.2"]
    assert dig.short(api, at6, "web.lan.internal", "AAAA") == ["fd00:1::2"]
    assert dig.short(api, at, "+tcp", "web") == ["10.1.0.2"]
    shouted = dig(api, at, "WeB.LaN.internal")
    assert re.search(r"^;WeB\.LaN\.internal\.\s+IN\s+A$", shouted, re.MULTILINE)
    assert flags(shouted) == {"qr", "aa", "rd", "ra"} and "WARNING" not in shouted
    assert re.search(r"^\S+\s+5\s+IN\s+A\s+10\.1\.0\.2$", shouted, re.MULTILINE)  # TTL

    # PTR in both families; SRV, RFC 2782, with addresses beside it
    assert dig.short(api, at, "-x", "10.1.0.2") == ["web.lan.internal."]
    assert dig.short(api, at, "-x", "fd00:1::2") == ["web.lan.internal."]
    offers = dig(api, at, "_http._tcp.shop", "SRV")
    assert len(re.findall(r"IN\s+SRV\s+0 0 80 (?:web|api)\.lan\.internal\.", offers)) == 2
    assert len(re.findall(r"IN\s+(?:A|AAAA)\s", offers.partition("ADDITIONAL SECTION")[2])) == 4

    # one alias of several containers: all addresses, in turn
    firsts = {dig.short(api, at, "shop")[0] for _ in range(4)}
    assert firsts == {"10.1.0.2", "10.1.0.3"}

    # RFC 2308: a name without that type, and a name that nobody bears, both with SOA
    for kind in ("MX", "TYPE65"):
        nodata = dig(api, at, "web.lan.internal", kind)
        assert status(nodata) == "NOERROR" and "ANSWER: 0, AUTHORITY: 1" in nodata
        assert re.search(r"IN\s+SOA\s", nodata)
    nobody = dig(api, at, "nobody.lan.internal")
    assert status(nobody) == "NXDOMAIN" and re.search(r"lan\.internal\.\s.*SOA", nobody)

    # RFC 6891: EDNS where the client has it; another version, BADVERS; options (a cookie) unread
    assert "EDNS: version: 0" in shouted and "udp: 1232" in shouted
    assert "OPT PSEUDOSECTION" not in dig(api, at, "+noedns", "web")
    assert status(dig(api, at, "+edns=1", "+noednsnegotiation", "web")) == "BADVERS"
    assert status(dig(api, at, "+nsid", "+subnet=192.0.2.0/24", "web")) == "NOERROR"

    # what is not answered: other classes and kinds of messages
    assert status(dig(api, at, "-c", "CH", "-t", "TXT", "version.bind")) in ("NOTIMP", "REFUSED")
    assert status(dig(api, at, "+opcode=notify", "web")) == "NOTIMP"
    assert status(dig(api, at, "+norec", "example.com")) == "REFUSED"
    assert status(dig(host, at, "web")) == "REFUSED"  # no member
    for container in (web, api):
        names.delete(host, container)


def test_cut_off_replies_of_dig(names: Names, host: Host, dig: Dig) -> None:
    """RFC 2181 section 9, RFC 7766: TC, and the whole over TCP; several on one connection."""
    containers = [host.container(f"c{number}") for number in range(3)]
    for number, container in enumerate(containers):
        wishes = {"aliases": ["shared"], "portMappings": [PORTS[number]]}
        names.add(host, container, f"{'x' * 60}{number}.{'y' * 60}", runtimeConfig=wishes)
    asked = (f"@{GATEWAY}", "+noedns", "_http._tcp.shared", "SRV")
    assert "tc" in flags(dig(containers[0], "+ignore", *asked))
    whole = dig(containers[0], *asked)
    assert "retrying in TCP mode" in whole and "ANSWER: 3" in whole
    both = dig(containers[0], "+tcp", "+keepopen", *asked, *asked)
    assert both.count("ANSWER: 3") == 2
    for container in containers:
        names.delete(host, container)


def test_forwarded_questions_of_dig(names: Names, host: Host, dig: Dig) -> None:
    web = host.container("web")
    at = f"@{GATEWAY}"
    with upstream(host, STUB, honest) as seen:
        names.add(host, web, "web", names={"upstreams": [STUB]})
        first = dig(web, at, "ExAmple.com")
        assert dig.short(web, at, "example.com") == ["192.0.2.7"]
        assert "aa" not in flags(first) and "ra" in flags(first) and len(seen.names) == 1
        assert re.search(r"^ExAmple\.com\.\s+\d+\s+IN\s+A", first, re.MULTILINE)
    names.delete(host, web)
    for behave, expected in ((nxdomain, "NXDOMAIN"), (silent, "SERVFAIL"), (cut_off, "NOERROR")):
        with upstream(host, SECOND, behave):
            names.add(host, web, "web", names={"upstreams": [SECOND]})
            began = time.monotonic()
            assert status(dig(web, at, f"{expected}.example")) == expected
            assert time.monotonic() - began < 5  # a client's patience
            names.delete(host, web)
        names.ask_server("flush") if service.read_status(names.folder) else None


def test_who_floods_is_slowed_down_alone(names: Names, host: Host) -> None:
    web, api = host.container("web"), host.container("api")
    names.add(host, web, "web")
    names.add(host, api, "api")
    made = web.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with made as client:
        client.connect((GATEWAY, 53))
        client.setblocking(False)

        def flood() -> bool:
            for _ in range(2000):
                try:
                    client.send(question(f"{os.urandom(8).hex()}.lan.internal"))
                except BlockingIOError:
                    break
            return "limited" in names.ask_server("stats")["queries"]

        def answered() -> bool:
            try:
                return data(ask(api, GATEWAY, "web")) == ["10.1.0.2"]
            except AssertionError:  # lost in the flood's queue: a resolver asks again
                return False

        wait_for(flood, "the limit")
        wait_for(answered, "an answer for who does not flood")
    for container in (web, api):
        names.delete(host, container)


def test_metrics_of_names(names: Names, host: Host) -> None:
    found = names.station.metrics()
    assert found["netplug_dns_up"] == 0 and "netplug_dns_attachments" not in found
    web = host.container("web")
    with upstream(host, STUB, honest):
        names.add(host, web, "web", names={"upstreams": [STUB]})
        for name in ("web", "web", "example.com", "example.com", "nobody.lan.internal"):
            ask(web, GATEWAY, name)
        found = parse_metrics(str(control(names.station.socket, "metrics")["text"]))
    results = {
        result: found[f'netplug_dns_queries_total{{result="{result}"}}']
        for result in ("ready", "names", "forwarded", "nxdomain", "malformed", "rate_limited")
    }
    wanted = {"ready": 1, "names": 1, "forwarded": 2, "nxdomain": 1}
    assert results == wanted | {"malformed": 0, "rate_limited": 0}
    assert found["netplug_dns_up"] == found["netplug_dns_attachments"] == 1
    assert found['netplug_dns_forwarded_total{result="cache"}'] == 1
    assert found[f'netplug_dns_upstream_queries_total{{server="{STUB}"}}'] == 1
    assert found["netplug_dns_upstream_seconds_count"] == 1
    assert found['netplug_dns_upstream_seconds_bucket{le="5"}'] == 1
    assert 0 < found["netplug_dns_upstream_seconds_sum"] < 5
    names.delete(host, web)


def test_a_legacy_input_policy_that_drops(names: Names, host: Host) -> None:
    """INPUT alone drops, as on many a server; both families, neighbour discovery too."""
    for program in ("iptables-legacy", "ip6tables-legacy"):
        host.run(f"{program} -P INPUT DROP")
    web = host.container("web")
    names.add(host, web, "web")
    assert data(ask(web, GATEWAY, "web")) == ["10.1.0.2"]
    assert data(ask(web, GATEWAY6, "web", "AAAA", tcp=True)) == ["fd00:1::2"]
    assert "FORWARD -" not in host.run("iptables-legacy -S")
    names.delete(host, web)
    assert "netplug" not in host.run("iptables-legacy -S; ip6tables-legacy -S")


def test_a_container_that_publishes_port_53(names: Names, host: Host) -> None:
    """Where its port would take questions to the gateway, somebody is told."""
    web, dns = host.container("web"), host.container("dns")
    port = {"hostPort": 53, "containerPort": 53, "protocol": "udp"}
    one = {"portMappings": [{**port, "hostIP": "127.0.0.1"}]}
    names.add(host, web, "web")
    with pytest.raises(AssertionError, match="name server answers containers on "):
        names.add(host, dns, "dns", runtimeConfig={"portMappings": [port]})
    names.add(host, dns, "dns", runtimeConfig=one)
    assert data(ask(web, GATEWAY, "dns")) == ["10.1.0.3"]
    names.delete(host, dns)
    names.delete(host, web)
    names.add(host, dns, "dns", runtimeConfig={"portMappings": [port]}, **{**OTHER, "names": False})
    names.add(host, web, "web")
    assert f"publishes 0.0.0.0:53/udp, so it gets the questions to {GATEWAY}" in names.log
    names.delete(host, web)
    names.delete(host, dns, **{**OTHER, "names": False})

"""Who is called what: lookups over zones and views, and what changes forget."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from dnslib import DNSRecord

from netplug.cni.naming import parse_names
from netplug.dns import wire
from netplug.dns.names import Member, Service, View
from netplug.dns.records import Attached, compute_names, compute_services
from netplug.dns.registry import Registry
from netplug.dns.render import render_answer
from netplug.errors import ConfigError
from netplug.model import Attachment, Names, Port

WEB = Member(
    host="h",
    network="lan",
    owner="lan/web/eth0",
    group="h/1",
    names=("web", "www", "0123456789ab"),
    addresses=(ip_address("10.1.0.2"), ip_address("fd00:1::2")),
    services=(Service("http", "tcp", 80),),
    subnets=(ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")),
    gateways=(ip_address("10.1.0.1"),),
)
API = replace(
    WEB,
    owner="lan/api/eth0",
    group="h/2",
    names=("api", "www"),
    addresses=(ip_address("10.1.0.3"),),
    services=(),
)
BACK = {
    "network": "back",
    "subnets": (ip_network("10.2.0.0/24"),),
    "gateways": (ip_address("10.2.0.1"),),
}


def attach(member: Member, since: float = 1.0) -> Attached:
    return Attached(member, ("ready", since), 1, "", (), (), ())


def registry(*members: Member) -> Registry:
    made = Registry()
    for member in members:
        made.put(attach(member))
    return made


def view(*members: Member, of: Member = WEB) -> View:
    made = registry(*(members or (WEB, API)))
    return made.clients[("h", of.owner)].view


def answer(seen: View, name: str, kind: int = wire.A) -> tuple[int, list[str]] | None:
    found = seen.lookup(name, kind)
    return None if found is None else (found.rcode, [str(data) for _, data in found.records])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", wire.A, (0, ["10.1.0.2"])),
        ("web.internal", wire.AAAA, (0, ["fd00:1::2"])),
        ("web.lan.internal", wire.ANY, (0, ["10.1.0.2", "fd00:1::2"])),
        ("0123456789ab", wire.A, (0, ["10.1.0.2"])),
        ("www", wire.A, (0, ["10.1.0.2", "10.1.0.3"])),
        ("api", wire.AAAA, (0, [])),
        ("api", 15, (0, [])),
        ("nobody.lan.internal", wire.A, (3, [])),
        ("nobody.internal", wire.A, (3, [])),
        ("a.b.lan.internal", wire.A, (3, [])),
        ("lan.internal", wire.SOA, (0, ["lan.internal"])),
        ("lan.internal", wire.A, (0, [])),
        ("internal", wire.A, (0, [])),
        ("metadata.google.internal", wire.A, None),
        ("nobody", wire.A, None),
        ("example.com", wire.A, None),
        ("webxinternal", wire.A, None),
        ("2.0.1.10.in-addr.arpa", wire.PTR, (0, ["web.lan.internal"])),
        ("2.0.1.10.in-addr.arpa", wire.A, (0, [])),
        ("1.0.1.10.in-addr.arpa", wire.PTR, (0, ["host.containers.internal"])),
        ("9.0.1.10.in-addr.arpa", wire.PTR, (3, [])),
        ("1.0.0.127.in-addr.arpa", wire.PTR, (0, ["localhost"])),
        ("8.8.8.8.in-addr.arpa", wire.PTR, None),
        ("x.8.8.8.in-addr.arpa", wire.PTR, None),
        (ip_address("fd00:1::2").reverse_pointer, wire.PTR, (0, ["web.lan.internal"])),
        ("_http._tcp.web", wire.SRV, (0, ["(80, 'web.lan.internal')"])),
        ("_http._tcp.web.lan.internal", wire.SRV, (0, ["(80, 'web.lan.internal')"])),
        ("_http._tcp.web", wire.A, (0, [])),
        ("_tcp.web", wire.SRV, (0, [])),
        ("_udp.web", wire.SRV, (3, [])),
        ("_ssh._tcp.web", wire.SRV, (3, [])),
        ("_http._tcp.example.com", wire.SRV, None),
        ("host.docker.internal", wire.A, (0, ["10.1.0.1"])),
        ("gateway", wire.A, (0, ["10.1.0.1"])),
        ("host.containers.internal", wire.AAAA, (0, [])),
        ("localhost", wire.A, (0, ["127.0.0.1"])),
        ("x.localhost", wire.AAAA, (0, ["::1"])),
    ],
)
def test_lookups(name: str, kind: int, expected: tuple[int, list[str]] | None) -> None:
    assert answer(view(), name, kind) == expected


def test_a_domain_of_ones_own_is_ours_whole() -> None:
    seen = view(replace(WEB, domain="dns.podman"))
    assert answer(seen, "web.dns.podman") == (0, ["10.1.0.2"])
    assert answer(seen, "a.b.dns.podman") == (3, [])
    assert answer(seen, "web.internal") is None


def test_negative_answers_name_the_zone() -> None:
    seen = view()
    for name, zone in (("x.lan.internal", "lan.internal"), ("api", "api")):
        query = wire.parse_query(bytes(DNSRecord.question(name, "MX").pack()))
        found = seen.lookup(name, query.kind)
        assert found
        reply = DNSRecord.parse(render_answer(found, query, 7)[0])
        assert str(reply.auth[0].rname) == f"{zone}." and reply.header.aa
        assert reply.auth[0].rdata.times[0] == 7


def test_records_take_turns() -> None:
    query = wire.parse_query(bytes(DNSRecord.question("www").pack()))
    found = view().lookup("www", wire.A)
    assert found
    replies = [DNSRecord.parse(one) for one in render_answer(found, query, 1)]
    assert [str(one.rr[0].rdata) for one in replies] == ["10.1.0.2", "10.1.0.3"]


def test_a_sandbox_on_two_networks_sees_both() -> None:
    db = replace(WEB, owner="back/db/eth0", group="h/9", names=("db",), **BACK)  # type: ignore[arg-type]
    second = replace(WEB, owner="back/web/eth1", names=("web",), **BACK)  # type: ignore[arg-type]
    made = registry(WEB, API, db)
    client = made.clients[("h", WEB.owner)]
    assert answer(client.view, "db.internal") == (3, [])
    made.put(attach(second))
    assert answer(client.view, "db") == (0, ["10.1.0.2"])
    assert answer(made.clients[("h", API.owner)].view, "db") is None
    assert answer(made.clients[("h", API.owner)].view, "db.back.internal") == (3, [])
    made.drop(("h", second.owner))
    assert answer(client.view, "db.internal") == (3, [])
    for key in list(made.clients):
        made.drop(key)
    assert not made.zones and not made.views and not made._views_of and not made._groups


def test_names_of_other_nodes() -> None:
    made = registry(WEB)
    seen = made.clients[("h", WEB.owner)].view
    far = replace(API, owner="lan/far/eth0", names=("far",))
    made.put_remote(far)
    assert answer(seen, "far") == (0, ["10.1.0.3"])
    made.drop(("h", WEB.owner))
    made.put(attach(WEB))
    assert answer(made.clients[("h", WEB.owner)].view, "far") == (0, ["10.1.0.3"])
    made.drop_remote(far)
    made.drop_remote(far)
    assert answer(made.clients[("h", WEB.owner)].view, "far") is None


def test_hosts_are_apart() -> None:
    made = registry(WEB, replace(API, host="other", group="other/2"))
    assert answer(made.clients[("h", WEB.owner)].view, "api") is None


def test_a_change_forgets_what_follows_from_it_alone() -> None:
    made = registry(WEB, API)
    seen = made.clients[("h", WEB.owner)].view
    for base in ("web", "api", "www"):
        seen.keep(base, base.encode(), [b"reply"], 100)
    made.put(attach(replace(API, addresses=(ip_address("10.1.0.7"),)), 2.0))
    assert set(seen.ready) == {b"web"}
    assert answer(seen, "api") == (0, ["10.1.0.7"])
    made.drop(("h", API.owner))
    assert answer(seen, "www") == (0, ["10.1.0.2"])


def test_ready_replies_are_bounded() -> None:
    seen = view()
    for number in range(20):
        seen.keep("web", bytes([number]), [b"reply"], 8)
    assert len(seen.ready) <= 8


# --- from records


def test_names_of_an_attachment() -> None:
    container = "0123456789abcdef" * 4
    made = Attachment("lan", container, "eth0", name="Web", aliases=("www", "bad name", "web"))
    assert compute_names(made) == ("web", "www", "0123456789ab")
    odd = Attachment("lan", "c/1", "eth0", name="localhost", aliases=("x" * 64, "a.arpa"))
    assert compute_names(odd) == ("a.arpa",)
    assert compute_names(replace(odd, aliases=())) == (odd.tag,)


def test_services_of_an_attachment() -> None:
    made = Attachment(
        "lan", "c", "eth0", ports=(Port(8080, 80), Port(53, 53, "udp"), Port(1, 9999))
    )
    named = Names(services=(("api", 9999),))
    assert {(s.name, s.protocol, s.port) for s in compute_services(made, named)} == {
        ("http", "tcp", 80),
        ("domain", "udp", 53),
        ("api", "tcp", 9999),
    }


def test_the_key_names() -> None:
    assert parse_names({})[0] is None and parse_names({"names": False})[0] is None
    assert parse_names({"names": True})[0] == Names()
    full = {"domain": "DNS.Podman.", "TTL": 0, "services": {"api": 8000}, "upstreams": ["::1"]}
    assert parse_names({"names": full})[0] == Names("dns.podman", 0, (("api", 8000),), ("::1",))
    _, unknown = parse_names({"names": {"domian": "x"}})
    assert unknown[0].near == "domain" and unknown[0].misspelt
    for wrong in (
        "yes", {"domain": "a..b"}, {"domain": "-"}, {"ttl": -1}, {"ttl": "5"}, {"ttl": 10**6},
        {"services": {"a": 0}}, {"services": {"a b": 1}}, {"upstreams": ["dns.example"]},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="names"):
            parse_names({"names": wrong})

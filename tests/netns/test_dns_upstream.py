"""Names that are nobody's here: asked of upstream servers with every bad habit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import wait_for
from dns_client import ask as query
from dns_client import data, question, rcode, send
from dns_upstream import (
    Behave,
    Upstream,
    cut_off,
    failing,
    honest,
    lying,
    nxdomain,
    silent,
    upstream,
)
from dns_world import GATEWAY, OTHER, Names
from dnslib import EDNS0, DNSRecord

from netplug.dns import protocol, service

if TYPE_CHECKING:
    from conftest import Host

STUB = "127.0.0.53"  # reachable from the host's namespace alone, as systemd-resolved's
SECOND = "127.0.0.54"
RESOLV_CONF = Path("/etc/resolv.conf")


class World:
    """One container on a network whose upstream servers are those of the test."""

    def __init__(self, names: Names, host: Host) -> None:
        self.names, self.host = names, host
        self.web = host.container("web")
        self._stack = ExitStack()

    def connect(self, *servers: tuple[str, Behave | None], **keys: Any) -> list[Upstream]:
        """None: nobody listens at that address."""
        seen = [
            self._stack.enter_context(upstream(self.host, address, behave))
            for address, behave in servers
            if behave
        ]
        settings = {"upstreams": [address for address, _ in servers]}
        self.names.add(self.host, self.web, "web", names=settings, **keys)
        return seen

    def ask(self, name: str = "example.com", kind: str = "A") -> DNSRecord:
        return query(self.web, GATEWAY, name, kind)

    def stats(self) -> dict[str, Any]:
        return protocol.ask(self.names.folder / protocol.NAME, {"command": "stats"})

    def close(self) -> None:
        self.names.delete(self.host, self.web)
        self._stack.close()


@pytest.fixture
def world(tmp_path: Path, host: Host) -> Iterator[World]:
    names = Names(tmp_path)
    names.station.start()
    world = World(names, host)
    yield world
    world.close()
    names.station.end()
    service.stop(tmp_path)


def test_an_answer_is_kept(world: World) -> None:
    (server,) = world.connect((STUB, honest))
    first = world.ask("Example.COM")
    assert data(first) == ["192.0.2.7"] and first.header.ra and not first.header.aa
    assert str(first.q.qname) == "Example.COM."
    assert data(world.ask()) == ["192.0.2.7"]
    assert server.names == ["Example.COM"]
    assert not first.ar and world.ask("web").header.aa
    protocol.ask(world.names.folder / protocol.NAME, {"command": "flush"})
    world.ask()
    assert len(server.names) == 2 and len(set(server.ports)) == 2


def test_nothing_of_ours_is_forwarded(world: World) -> None:
    (server,) = world.connect((STUB, honest))
    for name, kind in (
        ("nobody.lan.internal", "A"), ("web", "MX"), ("web.lan.internal", "AAAA"),
        ("99.0.1.10.in-addr.arpa", "PTR"), ("x.internal", "A"), ("localhost", "A"),
        ("_http._tcp.web", "SRV"), ("lan.internal", "TXT"),
    ):  # fmt: skip
        world.ask(name, kind)
    assert server.names == []
    world.ask("metadata.google.internal")
    assert server.names == ["metadata.google.internal"]


def test_a_negative_answer_is_kept(world: World) -> None:
    (server,) = world.connect((STUB, nxdomain))
    for _ in range(2):
        reply = world.ask("nobody.example")
        assert rcode(reply) == "NXDOMAIN" and len(reply.auth) == 1
    assert len(server.names) == 1


@pytest.mark.parametrize("first", [silent, failing, None])
def test_the_next_server_is_asked(world: World, first: Behave | None) -> None:
    world.connect((SECOND, first), (STUB, honest))
    began = time.monotonic()
    assert data(world.ask()) == ["192.0.2.7"]
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("behave", [silent, failing, None])
def test_where_all_fail_the_client_hears_of_it(world: World, behave: Behave | None) -> None:
    world.connect((STUB, behave))
    began = time.monotonic()
    assert rcode(world.ask()) == "SERVFAIL"
    assert time.monotonic() - began < 5


def test_a_cut_off_reply_is_fetched_over_tcp(world: World) -> None:
    (server,) = world.connect((STUB, cut_off))
    assert data(world.ask()) == ["192.0.2.8"]
    assert server.over_tcp == 1


def test_false_replies_do_not_count(world: World) -> None:
    (server,) = world.connect((STUB, lying))
    assert data(world.ask()) == ["192.0.2.7"]
    assert world.stats()["forwarding"]["false_reply"] >= 4
    assert len(server.names) == 1


def test_equal_questions_share_one(world: World) -> None:
    held = threading.Event()

    def slow(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
        held.wait(5)
        return honest(asked, over_tcp)

    (server,) = world.connect((STUB, slow))
    replies: list[DNSRecord] = []
    threads = [threading.Thread(target=lambda: replies.append(world.ask())) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: world.stats()["forwarding"].get("coalesced") == 4)
    held.set()
    for thread in threads:
        thread.join()
    assert [data(reply) for reply in replies] == [["192.0.2.7"]] * 5
    assert set(server.names) == {"example.com"} and len(server.names) <= 4


def test_one_network_cannot_poison_another(world: World) -> None:
    def poisoned(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
        from dns_upstream import answer

        return [answer(asked, "203.0.113.66")]

    world.connect((STUB, honest))
    lone = world.host.container("lone")
    with upstream(world.host, SECOND, poisoned):
        world.names.add(world.host, lone, "lone", **OTHER, dns={"nameservers": [SECOND]})
        assert data(query(lone, "10.2.0.1", "example.com")) == ["203.0.113.66"]
        assert data(world.ask()) == ["192.0.2.7"]
    world.names.delete(world.host, lone, **OTHER)


def test_a_containers_own_servers_come_first(world: World) -> None:
    (first, second) = world.connect(
        (STUB, honest), (SECOND, honest), runtimeConfig={"dns": {"servers": [SECOND]}}
    )
    world.ask()
    assert (len(first.names), len(second.names)) == (0, 1)


def test_edns_ends_here(world: World) -> None:
    """A client without it gets none; one with it gets ours, whatever the server said."""
    world.connect((STUB, honest))
    asked = DNSRecord.parse(question("example.com"))
    asked.add_ar(EDNS0(udp_len=4096))
    reply = DNSRecord.parse(send(world.web, GATEWAY, bytes(asked.pack())))
    assert data(reply) == ["192.0.2.7"]
    assert [record.rtype for record in reply.ar] == [41] and reply.ar[0].rclass == 1232


def test_the_hosts_resolv_conf_is_read_again(world: World) -> None:
    before = RESOLV_CONF.read_text() if RESOLV_CONF.exists() else ""
    try:
        RESOLV_CONF.write_text("nameserver 127.0.0.53\n")
        with upstream(world.host, STUB), upstream(world.host, SECOND, nxdomain):
            world.names.add(world.host, world.web, "web")
            assert data(world.ask()) == ["192.0.2.7"]
            fresh = RESOLV_CONF.with_suffix(".new")
            fresh.write_text(f"nameserver {SECOND}\n")
            fresh.rename(RESOLV_CONF)
            wait_for(lambda: rcode(world.ask()) == "NXDOMAIN", "the new server")
    finally:
        RESOLV_CONF.write_text(before)

"""TCP connections to the name server are bounded, all together and of one client."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from types import SimpleNamespace

import pytest

from netplug.dns import answering
from netplug.dns.loop import Loop
from netplug.dns.names import Member, View
from netplug.dns.records import Attached
from netplug.dns.registry import Client
from netplug.dns.streams import CONNECTIONS, OF_ONE_CLIENT, Streams


def make_client(number: int = 0) -> Client:
    address = ipaddress.ip_address("10.0.0.0") + number
    member = Member("host", "lan", str(number), "group", ("web",), (address,))
    return Client(Attached(member, ("ready", 0.0), 0, "", (), (), ()), View(()))


def test_tcp_connections_are_bounded() -> None:
    streams = Streams(Loop(), lambda *_: None, Counter())
    clients = [make_client(number) for number in range(CONNECTIONS // OF_ONE_CLIENT + 2)]
    with socket.create_server(("127.0.0.1", 0), backlog=OF_ONE_CLIENT + 4) as listener:
        listener.setblocking(False)
        held = []
        for client in clients:
            for _ in range(OF_ONE_CLIENT + 1):
                held.append(socket.create_connection(listener.getsockname()))
            streams.accept(listener, lambda peer, client=client: client)  # type: ignore[misc]
        counted = Counter(id(stream.client) for stream in streams.open)
        assert len(streams.open) == CONNECTIONS and set(counted.values()) == {OF_ONE_CLIENT}
        assert streams.counts["refused_connections"] == len(held) - CONNECTIONS
        streams.drop(clients[0])
        assert len(streams.open) == CONNECTIONS - OF_ONE_CLIENT
        for stream in list(streams.open):
            stream.close()
        for one in held:
            one.close()


def test_the_rate_of_one_client_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(answering, "time", SimpleNamespace(monotonic=lambda: now))
    client = make_client()

    def allowed(questions: int) -> int:
        return sum(answering._allow(client) for _ in range(questions))

    assert allowed(9000) == answering.BURST_ALLOWANCE
    now += 0.5
    assert allowed(9000) == answering.RATE / 2
    now += 3600
    assert allowed(9000) == answering.BURST_ALLOWANCE

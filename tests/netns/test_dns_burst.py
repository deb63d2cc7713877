"""recvmmsg(2) and sendmmsg(2) on real sockets of both families."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from netplug.dns.burst import BURST, ROOM, burst_of

if TYPE_CHECKING:
    from conftest import Host


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_bursts_keep_sender_and_size(host: Host, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    burst = burst_of(family)
    server, *clients = (
        host.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) for _ in range(4)
    )
    server.bind((address, 0))
    for number, client in enumerate(clients):
        client.connect(server.getsockname())
        client.send(b"x" * (number * 2500))
    # what is longer than any question is cut off
    assert burst.receive(server.fileno()) == [0, 2500, ROOM]
    for number, client in enumerate(clients):
        assert burst.peer(number) == client.getsockname()
        _, begin, _, host_at, host_end = burst.slots[number]
        assert bytes(burst.addresses[host_at:host_end]) == socket.inet_pton(family, address)
        burst.replies[begin : begin + 2] = b"r%d" % number
        burst.reply_sizes[number] = 2
    assert burst.send(server.fileno(), 0, 3) == 0
    assert [client.recv(10) for client in clients] == [b"r0", b"r1", b"r2"]
    assert burst.receive(server.fileno()) == []
    for _ in range(BURST + 5):
        clients[0].send(b"q")
    assert [len(burst.receive(server.fileno())) for _ in range(3)] == [BURST, 5, 0]
    for one in (server, *clients):
        one.close()


def test_what_a_firewall_refuses_is_counted_alone(host: Host) -> None:
    """The reply to one of three senders is forbidden (EPERM): the others get theirs."""
    burst = burst_of(socket.AF_INET)
    server, *clients = (
        host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)
    )
    server.bind(("127.0.0.1", 0))
    for client in clients:
        client.connect(server.getsockname())
        client.send(b"q")
    port = clients[1].getsockname()[1]
    host.run(
        "nft 'add table ip t; add chain ip t o { type filter hook output priority 0; };"
        f" add rule ip t o udp dport {port} drop'"
    )
    assert burst.receive(server.fileno()) == [1, 1, 1]
    for number in range(3):
        begin = burst.slots[number][1]
        burst.replies[begin : begin + 1] = b"r"
        burst.reply_sizes[number] = 1
    assert burst.send(server.fileno(), 0, 3) == 1
    for client in (clients[0], clients[2]):
        assert client.recv(10) == b"r"
    with pytest.raises(BlockingIOError):
        clients[1].recv(10, socket.MSG_DONTWAIT)
    for one in (server, *clients):
        one.close()

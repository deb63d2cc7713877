"""Ports that processes hold: real sockets of every kind, in a namespace of their own."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.diag import inet_diag_msg

from netplug.errors import Conflict
from netplug.kernel import sockdiag
from netplug.kernel.sockdiag import Listener, Request, compute_conflicts, listeners
from netplug.model import Family, Protocol

if TYPE_CHECKING:
    from conftest import Host

Open = Callable[..., socket.socket]


@pytest.fixture
def listen(host: Host) -> Iterator[Open]:
    """Opens a socket inside the namespace that waits on (address, port)."""
    with ExitStack() as stack:

        def make(
            address: str, port: int, kind: str = "tcp", *, v6only: bool = False, waits: bool = True
        ) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            types = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
            one = host.call(lambda: socket.socket(family, types[kind]))
            stack.callback(one.close)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
            one.bind((address, port))
            if kind == "tcp" and waits:
                one.listen()
            return one

        yield make


def request(
    port: int, address: str = "", protocol: Protocol = "tcp", family: Family = 4
) -> Request:
    named = ip_address(address) if address else None
    return (family if named is None else named.version, named, protocol, port)


def found(host: Host, port: int = 0, family: Family = 4, protocol: Protocol = "tcp") -> set[str]:
    return {
        f"{one.address} {one.port}"
        for one in listeners(host.fd, family=family, protocol=protocol, port=port)
    }


def test_listeners_by_port_and_family(host: Host, listen: Open) -> None:
    listen("127.0.0.1", 80)
    listen("0.0.0.0", 81)
    listen("::1", 80)
    listen("::", 82)
    listen("::", 83, v6only=True)
    listen("::ffff:127.0.0.1", 84)
    assert found(host) == {"127.0.0.1 80", "0.0.0.0 81", ":: 82", "127.0.0.1 84"}
    assert found(host, family=6) == {"::1 80", ":: 82", ":: 83"}
    assert found(host, 80) == {"127.0.0.1 80"}
    assert found(host, 9) == set()
    assert found(host, protocol="udp") == set()


def test_udp_sockets_that_are_bound_but_not_connected(host: Host, listen: Open) -> None:
    listen("127.0.0.1", 53, "udp")
    listen("127.0.0.1", 54, "udp").connect(("127.0.0.1", 9))
    assert found(host, protocol="udp") == {"127.0.0.1 53"}


def test_a_kernel_without_sctp_has_no_sctp_sockets(host: Host) -> None:
    assert listeners(host.fd, family=4, protocol="sctp") == ()


def test_other_namespaces_do_not_matter(host: Host, listen: Open) -> None:
    listen("0.0.0.0", 80)
    assert found(host.container("other")) == set()


@pytest.mark.parametrize(
    ("held", "options", "asked", "clash"),
    [
        ("0.0.0.0", {}, request(80), True),
        ("127.0.0.1", {}, request(80), True),
        ("127.0.0.1", {}, request(80, "127.0.0.1"), True),
        ("0.0.0.0", {}, request(80, "127.0.0.1"), True),
        ("127.0.0.1", {}, request(80, "127.0.0.2"), False),
        ("127.0.0.1", {}, request(80, "0.0.0.0"), True),
        ("127.0.0.1", {}, request(81), False),
        ("127.0.0.1", {}, request(80, protocol="udp"), False),
        ("0.0.0.0", {}, request(80, family=6), False),
        ("::", {}, request(80), True),
        ("::", {}, request(80, "127.0.0.1"), True),
        ("::", {}, request(80, family=6), True),
        ("::", {"v6only": True}, request(80), False),
        ("::", {"v6only": True}, request(80, "::1"), True),
        ("::1", {}, request(80), False),
        ("::1", {}, request(80, family=6), True),
        ("::ffff:127.0.0.1", {}, request(80), True),
        ("::ffff:0.0.0.0", {}, request(80, family=6), False),
    ],
)
def test_conflicts_are_those_of_bind(
    host: Host, listen: Open, held: str, options: dict[str, Any], asked: Request, clash: bool
) -> None:
    """The answer, and what the kernel says to a socket that asks for the same."""
    listen(held, 80, **options)
    assert bool(sockdiag.read_conflicts(host.fd, [asked])) == clash
    family, address, protocol, port = asked
    text = str(address) if address else {4: "0.0.0.0", 6: "::"}[family]
    answer = 0
    try:
        listen(text, port, protocol, v6only=True)
    except OSError as error:
        answer = error.errno or 0
    assert answer == (errno.EADDRINUSE if clash else 0)


def test_the_error_names_the_process(host: Host, listen: Open) -> None:
    listen("::", 8080)
    sockdiag.check_free(host.fd, [request(8081), request(8080, protocol="udp")])
    with pytest.raises(Conflict) as caught:
        sockdiag.check_free(host.fd, [request(9), request(8080, "127.0.0.1")])
    with open("/proc/self/comm", encoding="utf-8") as file:
        command = file.read().strip()
    assert str(caught.value) == (
        f"port 8080/tcp is taken: {command} (PID {os.getpid()}) listens on [::]:8080"
    )


def test_a_process_that_ends_frees_its_port(host: Host, listen: Open) -> None:
    listen("0.0.0.0", 80).close()
    sockdiag.check_free(host.fd, [request(80)])


def test_a_kernel_socket_has_no_process(host: Host) -> None:
    host.run("ip link add vx0 type vxlan id 7 dstport 4789 dev lo; ip link set vx0 up")
    with pytest.raises(Conflict, match=r"the kernel, or a process .* listens on"):
        sockdiag.check_free(host.fd, [request(4789, protocol="udp")])


def test_many_listeners_take_several_messages(host: Host, listen: Open) -> None:
    for port in range(2000, 2600):
        listen("127.0.0.1", port, "udp")
    assert len(found(host, protocol="udp")) == 600
    many = sockdiag.read_conflicts(host.fd, [request(p, protocol="udp") for p in range(2590, 2610)])
    assert sorted(asked[3] for asked, _ in many) == list(range(2590, 2600))
    assert {listener.pid for _, listener in many} == {os.getpid()}


def test_our_reading_of_a_message_is_the_library_s(host: Host, listen: Open) -> None:
    listen("::1", 8080)
    raw: list[bytes] = []
    original = sockdiag._parse_listener

    def record(message: bytes, protocol: Protocol) -> Listener:
        raw.append(message)
        return original(message, protocol)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sockdiag, "_parse_listener", record)
        (ours,) = listeners(host.fd, family=6, protocol="tcp")
    header = struct.pack("=IHHII", 16 + len(raw[0]), 20, 0, 0, 0)
    theirs = inet_diag_msg(header + raw[0])
    theirs.decode()
    assert str(ours.address) == theirs["idiag_src"]
    assert (ours.port, ours.uid, ours.inode) == (
        theirs["idiag_sport"], theirs["idiag_uid"], theirs["idiag_inode"],
    )  # fmt: skip


def test_pure_conflicts_keep_the_order_of_the_request() -> None:
    held = [
        Listener(ip_address("::"), 80, "tcp", 1, dual_stack=True),
        Listener(ip_address("10.0.0.1"), 81, "tcp", 2),
    ]
    asked = [request(81, "10.0.0.1"), request(82), request(80), request(81, "10.0.0.2")]
    pairs = compute_conflicts(asked, held)
    assert [(pair[0][3], pair[1].inode) for pair in pairs] == [(81, 2), (80, 1)]

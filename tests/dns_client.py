"""A DNS client for tests: one question over UDP or TCP, the reply parsed by dnslib."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from dnslib import RCODE, DNSRecord

if TYPE_CHECKING:
    from conftest import Host

PATIENCE = 5.0


def question(name: str, kind: str = "A") -> bytes:
    packed: bytes = DNSRecord.question(name, kind).pack()
    return packed


def send(host: Host, server: str, data: bytes, *, seconds: float = PATIENCE) -> bytes:
    """The reply to these very bytes over UDP; b"" for none within `seconds`."""

    def work() -> bytes:
        family = socket.AF_INET if ip_address(server).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(seconds)
            client.connect((server, 53))
            client.send(data)
            try:
                return client.recv(65535)
            except TimeoutError:
                return b""

    return host.call(work)


def send_tcp(host: Host, server: str, *messages: bytes) -> list[bytes]:
    """Replies to questions on one connection; fewer where it ends."""

    def work() -> list[bytes]:
        replies = []
        with socket.create_connection((server, 53), PATIENCE) as client:
            client.sendall(b"".join(len(one).to_bytes(2, "big") + one for one in messages))
            with client.makefile("rb") as stream:
                for _ in messages:
                    size = stream.read(2)
                    if len(size) < 2:
                        break
                    replies.append(stream.read(int.from_bytes(size, "big")))
        return replies

    return host.call(work)


def ask(host: Host, server: str, name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    """Raises AssertionError where no reply with the same id comes."""
    asked = question(name, kind)
    reply = send_tcp(host, server, asked)[0] if tcp else send(host, server, asked)
    assert reply[:2] == asked[:2], reply
    return DNSRecord.parse(reply)


def data(reply: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in reply.rr]


def rcode(reply: DNSRecord) -> str:
    return str(RCODE.get(reply.header.rcode))

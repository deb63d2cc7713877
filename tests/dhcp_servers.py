"""DHCP servers for tests: dnsmasq, and one that says whatever a test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import wait_for
from engines.unpack import Unavailable, read_tree

from netplug.dhcp import packet
from netplug.dhcp.packet import parse_answer

if TYPE_CHECKING:
    from conftest import Host


class Dnsmasq:
    """dnsmasq in a namespace, logging what it does; ends with the test."""

    def __init__(self, host: Host, folder: Path, *options: str) -> None:
        try:
            program = read_tree().program("dnsmasq")
        except Unavailable as reason:
            pytest.skip(f"no DHCP server: {reason}")
        self.log = folder / f"dnsmasq-{host.name}.log"
        self.log.touch()
        self.leases = folder / f"dnsmasq-{host.name}.leases"
        libraries = program.parents[1] / "lib"
        paths = ":".join(map(str, [libraries, *libraries.glob("*-linux-gnu")]))
        words = " ".join(
            (
                f"LD_LIBRARY_PATH={paths} {program} --conf-file=/dev/null --keep-in-foreground",
                f"--port=0 --user=root --no-ping --log-dhcp --pid-file= --log-facility={self.log}",
                f"--dhcp-leasefile={self.leases}",
                *options,
            )
        )
        self.process = host.start(f"exec env {words}")
        self.wait_for("DHCP, IP range")

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def wait_for(self, text: str, times: int = 1) -> None:
        def enough() -> bool:
            assert self.process.poll() is None, self.log.read_text() + str(self.process.stdout)
            return self.said(text) >= times

        try:
            wait_for(enough, f"{text!r} in dnsmasq's log")
        except AssertionError as error:
            pytest.fail(f"{error}:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


# --- a server under the test's thumb

Says = Callable[[int, "Asked"], list[bytes]]


class Asked:
    """A client's message."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.xid = int.from_bytes(data[4:8], "big")
        # our own reader takes answers: the first byte says which way a message goes
        self.options = parse_answer(b"\2" + data[1:]).options
        self.kind = self.options[packet.KIND][0]
        self.address = IPv4Address(data[12:16])

    def answer(
        self,
        kind: int,
        address: str,
        more: Mapping[int, bytes | None] | None = None,
        **lies: Any,
    ) -> bytes:
        """`more` replaces or adds options by number; None leaves one out. Lies: `mac`, `xid`."""
        options: dict[int, bytes | None] = {
            packet.KIND: bytes([kind]),
            packet.SERVER_ID: IPv4Address("192.0.2.1").packed,
            packet.LEASE_TIME: (3600).to_bytes(4, "big"),
            packet.NETMASK: b"\xff\xff\xff\0",
            packet.ROUTER: IPv4Address("192.0.2.1").packed,
        }
        options |= more or {}
        header = bytearray(self.data[:236])
        header[0] = 2
        header[16:20] = IPv4Address(address).packed
        if "xid" in lies:
            header[4:8] = struct.pack("!I", lies["xid"])
        if "mac" in lies:
            header[28:34] = bytes.fromhex(lies["mac"].replace(":", ""))
        body = b"".join(
            bytes([code, len(value)]) + value
            for code, value in options.items()
            if value is not None
        )
        return bytes(header) + packet.COOKIE + body + b"\xff"


@contextmanager
def scripted_server(host: Host, device: str, says: Says) -> Iterator[list[Asked]]:
    """Answers each message with what `says(number, message)` lists, to everyone; what it was
    asked is in the list."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_REUSEADDR, socket.SO_BROADCAST):
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        made.bind(("", 67))
        return made

    server = host.call(listen)
    asked: list[Asked] = []

    def serve() -> None:
        while True:
            data = server.recv(4096)
            if not data:
                return
            message = Asked(data)
            asked.append(message)
            for reply in says(len(asked), message):
                server.sendto(reply, ("255.255.255.255", 68))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        with suppress(OSError):  # not connected, it says, but the waiting thread wakes
            server.shutdown(socket.SHUT_RD)
        thread.join()
        server.close()

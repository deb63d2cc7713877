"""Check of names: a question to the DNS server that the node would ask."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import ClassVar, Literal

from netplug.kernel.namespaces import in_namespace
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.probes import ANSWER_SECONDS, TRIES
from netplug.labs.world import World

CONFIGURATION = "/etc/netns/{node}/resolv.conf"  # what `ip netns exec` shows as /etc/resolv.conf


class DnsCheck(Check):
    """`name` is looked up as a program in the node would, search list and all.

    `answers` are addresses (or nodes), `rcode` an error such as NXDOMAIN.
    """

    word: ClassVar[str] = "dns"
    source: str
    name: str
    kind: Literal["A", "AAAA", "PTR"] = "A"
    answers: tuple[str, ...] = ()
    rcode: str = "NOERROR"
    server: str | None = None
    tcp: bool = False

    def expected(self) -> str:
        what = ", ".join(self.answers) or self.rcode
        return f"{self.source} asks for {self.name} ({self.kind}): {what}"

    def judge(self, world: World) -> Verdict:
        servers, search = read_configuration(world, self.source)
        server = world.address(self.server) if self.server else next(iter(servers), None)
        if server is None:
            path = CONFIGURATION.format(node=self.source)
            return self.answer(False, f"no nameserver in {path}", "programs ask nobody")
        wanted = sorted(a if self.kind == "PTR" else world.address(a) for a in self.answers)
        dots = 0 if self.name.endswith(".") else self.name.count(".")
        names = [self.name] if dots else [*(f"{self.name}.{s}" for s in search), self.name]
        words = f"{server} does not answer"
        for name in names:
            try:
                rcode, found = self._lookup(world, server, name)
            except OSError as error:
                words = f"{server} does not answer ({error.strerror or 'silence'})"
                continue
            words = f"{server} says {', '.join(found) or rcode} for {name}"
            if rcode == self.rcode and (sorted(found) == wanted or not wanted):
                return self.answer(True, words)
            if found:
                break
        return self.answer(False, words, "a program that uses the name goes wrong, or nowhere")

    def _lookup(self, world: World, server: str, name: str) -> tuple[str, list[str]]:
        import dnslib  # late: not every lab asks for names

        question = dnslib.DNSRecord.question(name, self.kind)
        answer = dnslib.DNSRecord.parse(
            ask(world.fd(self.source), server, question.pack(), tcp=self.tcp)
        )
        if answer.header.tc and not self.tcp:
            answer = dnslib.DNSRecord.parse(
                ask(world.fd(self.source), server, question.pack(), tcp=True)
            )
        kind = getattr(dnslib.QTYPE, self.kind)
        rcode = dnslib.RCODE[answer.header.rcode]
        return rcode, [str(rr.rdata).rstrip(".") for rr in answer.rr if rr.rtype == kind]


def read_configuration(world: World, node: str) -> tuple[list[str], list[str]]:
    """(name servers, search list) of the node. Nothing where it has no file of its own."""
    try:
        text = Path(CONFIGURATION.format(node=node)).read_text()
    except OSError:
        return [], []
    servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    search = re.findall(r"^\s*(?:search|domain)\s+(.+)$", text, re.MULTILINE)
    return servers, search[-1].split() if search else []


def ask(fd: int, server: str, packet: bytes, *, tcp: bool) -> bytes:
    """The server's reply. Raises OSError, TimeoutError too."""
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with in_namespace(fd, lambda: socket.socket(socket.AF_INET, kind)) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((server, 53))
        if tcp:
            client.sendall(len(packet).to_bytes(2, "big") + packet)
            with client.makefile("rb") as stream:
                return stream.read(int.from_bytes(stream.read(2), "big"))
        for _ in range(TRIES - 1):
            client.send(packet)
            try:
                return client.recv(65535)
            except TimeoutError:
                continue
        client.send(packet)
        return client.recv(65535)

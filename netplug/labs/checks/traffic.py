"""Checks by real packets: who reaches whom, with which address, through which filter."""

from __future__ import annotations

from contextlib import ExitStack
from errno import ECONNREFUSED, EHOSTUNREACH
from typing import ClassVar, Literal

from pydantic import Field

from netplug.labs.checks.base import Check, Verdict
from netplug.labs.probes import Outcome, Target, burst, capture, echo, exchange, fits
from netplug.labs.world import World

PORT = 4711  # of our own listeners, where no port is named
SMALLEST, LARGEST = 576, 9000  # bytes; RFC 791 lets every link carry 576


class Flow(Check):
    """From one node to another; `lands` is who gets it, where that is not the address's owner.

    `count` packets must all be answered, `data` bytes all arrive: over TCP, or in one echo,
    which may then be fragmented.
    """

    source: str = Field(alias="from")
    to: str
    proto: Literal["icmp", "tcp", "udp"] = "icmp"
    port: int = PORT
    lands: str | None = None
    lands_port: int | None = None
    version: Literal[4, 6] = 4
    count: int = Field(default=1, ge=1, le=100)
    data: int = Field(default=0, ge=0, le=1_000_000)

    @property
    def independent(self) -> bool:
        return self.proto == "icmp" and self.count == 1 and not self.data

    def flow(self) -> str:
        port = "" if self.proto == "icmp" else f" {self.proto}/{self.port}"
        lands = f", which lands in {self.lands}" if self.lands else ""
        many = f" ({self.count} times)" if self.count > 1 else ""
        much = f" ({self.data} bytes)" if self.data else ""
        return f"{self.source} -> {self.to}{port}{lands}{many}{much}"

    def send(self, world: World) -> Outcome:
        """Raises NotFound where one of the two, or its address, is missing."""
        address = world.address(self.to, self.version)
        sender = world.fd(self.source)
        if self.count > 1:
            return burst(sender, address, self.count)
        if self.proto == "icmp":
            return echo(sender, address, size=self.data or 84, whole=not self.data)
        listener = self.lands or self.to.partition(".")[0]
        return exchange(
            sender,
            Target(
                address,
                self.port,
                world.fd(listener if listener in world.names() else self.source),
                self.lands_port or self.port,
                self.proto,
                self.data,
            ),
        )


class ReachCheck(Flow):
    """A packet arrives and is answered."""

    word: ClassVar[str] = "reach"

    def expected(self) -> str:
        return f"{self.flow()} is answered"

    def judge(self, world: World) -> Verdict:
        outcome = self.send(world)
        meaning = f"{self.source} cannot talk to {self.to}; netplug lab hint narrows it down"
        return self.answer(outcome.ok, outcome.why, meaning)


class NoReachCheck(Flow):
    """No answer may come."""

    word: ClassVar[str] = "no_reach"

    def expected(self) -> str:
        return f"{self.flow()} is not answered"

    def judge(self, world: World) -> Verdict:
        outcome = self.send(world)
        return self.answer(not outcome.ok, outcome.why, "what should be kept apart is not")


class NatCheck(Flow):
    """The receiver sees `sees` (a node, NODE.LINK or an address) as the sender."""

    word: ClassVar[str] = "nat"
    proto: Literal["icmp", "tcp", "udp"] = "udp"
    sees: str

    def expected(self) -> str:
        return f"{self.flow()}: the receiver sees {self.sees} as the sender"

    def judge(self, world: World) -> Verdict:
        outcome = self.send(world)
        if not outcome.ok:
            return self.answer(
                False,
                outcome.why,
                "no answer: the receiver has no route back to the sender's private address,"
                " or the packet never came to it",
            )
        want = world.address(self.sees, self.version)
        found = f"the receiver sees {outcome.source}"
        meaning = "the sender's address is not translated as it should be"
        return self.answer(outcome.source == want, found, meaning)


class FilterCheck(Flow):
    """What happens to a connection: accept, drop (silence) or reject (an error comes back)."""

    word: ClassVar[str] = "filter"
    proto: Literal["icmp", "tcp", "udp"] = "tcp"
    verdict: Literal["accept", "drop", "reject"]

    def expected(self) -> str:
        return f"{self.flow()}: {self.verdict}"

    def judge(self, world: World) -> Verdict:
        outcome = self.send(world)
        found = "drop"
        if outcome.ok:
            found = "accept"
        elif outcome.errno in (ECONNREFUSED, EHOSTUNREACH):
            found = "reject"
        meaning = "the first rule that fits decides, unless a later chain drops the packet"
        return self.answer(found == self.verdict, f"{found} ({outcome.why})", meaning)


class MtuCheck(Flow):
    """The largest packet that passes whole, in bytes with its IP header."""

    word: ClassVar[str] = "mtu"
    exactly: int | None = Field(default=None, alias="is")
    at_least: int | None = None

    def expected(self) -> str:
        size = f"{self.exactly}" if self.exactly else f"{self.at_least} or more"
        return f"{self.source} -> {self.to}: {size} bytes pass in one piece"

    def judge(self, world: World) -> Verdict:
        address, sender = world.address(self.to, self.version), world.fd(self.source)
        outcome = echo(sender, address)
        if not outcome.ok:
            return self.answer(False, outcome.why, "not even a small packet arrives")
        wanted = self.exactly or self.at_least or LARGEST
        passes = echo(sender, address, size=wanted).ok
        if passes and (self.exactly is None or not echo(sender, address, size=wanted + 1).ok):
            return self.answer(True, f"{wanted} bytes pass")
        low, high = (wanted, LARGEST) if passes else (SMALLEST, wanted)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if echo(sender, address, size=middle).ok else (low, middle)
        meaning = "larger packets are lost, or cut in pieces: connections hang once they carry data"
        return self.answer(False, f"{low} bytes pass, {low + 1} do not", meaning)


class Watched(Flow):
    """What a link shows while the flow is sent."""

    node: str
    dev: str

    @property
    def independent(self) -> bool:
        return False


class SeenCheck(Watched):
    """A packet of protocol `packet` goes through the link while the flow is sent."""

    word: ClassVar[str] = "seen"
    packet: Literal["arp", "icmp", "tcp", "udp", "fragment"]
    packet_port: int | None = None
    exists: bool = True

    def expected(self) -> str:
        port = f" port {self.packet_port}" if self.packet_port else ""
        some = "packets" if self.exists else "no packets"
        where = f"{self.dev} of {self.node}"
        return f"{some} of {self.packet}{port} on {where}, while {self.source} talks to {self.to}"

    def judge(self, world: World) -> Verdict:
        if self.dev not in world.links(self.node):
            return self.answer(False, f"no link {self.dev} in {self.node}", "nothing passes there")
        with ExitStack() as stack:
            read = stack.enter_context(capture(world.fd(self.node), self.dev))
            self.send(world)
            frames = read()
        count = sum(fits(frame, self.packet, self.packet_port) for frame in frames)
        found = f"{count} such of {len(frames)} packets"
        meaning = "the packets take another way" if self.exists else "they should not come by here"
        return self.answer(bool(count) == self.exists, found, meaning)


class CounterCheck(Watched):
    """The link's own counter moves while the flow is sent."""

    word: ClassVar[str] = "counter"
    of: Literal["received", "sent", "received_dropped"]
    at_least: int = 1
    exists: bool = True

    def expected(self) -> str:
        least = f"{self.at_least} or more" if self.exists else f"fewer than {self.at_least}"
        where = f"{self.dev} of {self.node}"
        return f"{least} packets {self.of} by {where}, while {self.source} talks to {self.to}"

    def judge(self, world: World) -> Verdict:
        before = world.links(self.node).get(self.dev)
        self.send(world)
        after = world.links(self.node).get(self.dev)
        if before is None or after is None:
            return self.answer(False, f"no link {self.dev} in {self.node}", "nothing is counted")
        count = getattr(after, self.of) - getattr(before, self.of)
        meaning = "the packets do not come by this link"
        return self.answer((count >= self.at_least) == self.exists, f"{count} packets", meaning)

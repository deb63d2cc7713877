"""The exchange with DHCP servers (RFC 2131), over a wire that carries bytes.

Sockets, clocks of leases and retries over hours are somebody else's: `kernel.dhcpsocket`,
`ipam`, `agent.renewal`. pyroute2 has a client too; it keeps one asyncio loop, signal handlers
and a file for each interface, where one agent here serves thousands in namespaces of their own.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from netplug.dhcp import packet
from netplug.dhcp.packet import Answer, Malformed, Message, Terms, parse_answer, parse_terms
from netplug.errors import Busy

FIRST_WAIT = 0.5  # seconds; a bridge port or a switch may lose the first frame
LONGEST_WAIT = 8.0
REQUESTS = 3  # tries to get an offered address acknowledged
RENEW_WAIT = 1.0
RENEW_TRIES = 2
MESSAGE_SIZE = 1472  # bytes that an Ethernet frame carries


class Refused(Exception):
    """The server says that the address is not ours any more (DHCPNAK)."""


class Silent(Exception):
    """No server has answered in time; the text tells of answers that could not be used."""


class Wire(Protocol):
    def send(self, message: bytes) -> None: ...

    def receive(self, deadline: float) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """How a client presents itself, and what it asks for.

    `provide`: further options to send. `broadcast`: answers must go to everyone, for a link
    that shares its MAC with others. `priority`: metric of the routes.
    """

    mac: str
    client_id: bytes
    hostname: str = ""
    request: tuple[int, ...] = packet.WANTED
    provide: tuple[tuple[int, bytes], ...] = ()
    broadcast: bool = False
    priority: int | None = None

    @property
    def options(self) -> tuple[tuple[int, bytes], ...]:
        own = {packet.CLIENT_ID: self.client_id}
        if self.hostname:
            own[packet.HOST_NAME] = self.hostname.encode()
        return tuple({**own, **dict(self.provide)}.items())

    @property
    def questions(self) -> tuple[tuple[int, bytes], ...]:
        size = MESSAGE_SIZE.to_bytes(2, "big")
        return (packet.MAX_SIZE, size), (packet.PARAMETERS, bytes(self.request))


class Client:
    """One client on one wire."""

    def __init__(self, wire: Wire, identity: Identity) -> None:
        self._wire, self._identity = wire, identity
        self._xid = secrets.randbits(32)
        self._began = time.monotonic()
        self._odd = ""  # why the last useless answer was useless

    def acquire(self, seconds: float) -> Terms:
        """A lease from the first server with a good offer. Raises Busy when there is none
        within that time."""
        deadline = time.monotonic() + seconds
        for wait in _waits():
            if time.monotonic() >= deadline:
                break
            self._send(packet.DISCOVER)
            offer = self._await(packet.OFFER, min(deadline, time.monotonic() + wait))
            terms = self._request_offered(offer, deadline) if offer else None
            if terms is not None:
                return terms
        raise Busy(
            f"no DHCP server gave an address within {seconds:.0f} s",
            f"the last answer was no use: {self._odd}" if self._odd else "none answered",
            "is a server on that network, and the parent interface or uplink up?",
        )

    def _request_offered(self, offer: Terms, deadline: float) -> Terms | None:
        """None where the server takes its offer back or falls silent: then discover again."""
        chosen = (
            (packet.REQUESTED_IP, offer.address.ip.packed),
            (packet.SERVER_ID, offer.server.packed),
        )
        for _ in range(REQUESTS):
            self._send(packet.REQUEST, more=chosen)
            try:
                until = min(deadline, time.monotonic() + 2 * FIRST_WAIT)
                terms = self._await(packet.ACK, until, server=offer.server)
            except Refused:
                self._odd = f"{offer.server} offered {offer.address} and then refused it"
                return None
            if terms is not None:
                return terms
        return None

    def renew(
        self, address: IPv4Address, server: IPv4Address | None, *, bare: bool = False
    ) -> Terms:
        """The lease anew, from that server or from any (rebinding); `bare`: the link does not
        have the address. Raises Refused, Silent."""
        wish = ((packet.REQUESTED_IP, address.packed),) if bare else ()
        for _ in range(RENEW_TRIES):
            self._send(packet.REQUEST, address=None if bare else address, more=wish)
            terms = self._await(packet.ACK, time.monotonic() + RENEW_WAIT, server=server)
            if terms is not None and terms.address.ip == address:
                return terms
        raise Silent(self._odd or "no answer")

    def release(self, address: IPv4Address, server: IPv4Address) -> None:
        """Gives the address back; servers do not answer to it. Raises OSError."""
        self._send(packet.RELEASE, address=address, more=((packet.SERVER_ID, server.packed),))

    def _send(
        self,
        kind: int,
        *,
        address: IPv4Address | None = None,
        more: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        asks = kind in (packet.DISCOVER, packet.REQUEST)
        message = Message(
            kind,
            self._xid,
            self._identity.mac,
            address=address or IPv4Address(0),
            seconds=int(time.monotonic() - self._began),
            broadcast=self._identity.broadcast and address is None,
            options=(
                *more,
                *self._identity.options,
                *(self._identity.questions if asks else ()),
            ),
        )
        self._wire.send(message.pack())

    def _await(
        self, kind: int, deadline: float, *, server: IPv4Address | None = None
    ) -> Terms | None:
        """The terms of the next good answer of that kind to us; None at the deadline."""
        while (data := self._wire.receive(deadline)) is not None:
            try:
                answer = parse_answer(data)
                if not self._is_for_us(answer, server):
                    continue
                if answer.kind == packet.NAK and kind == packet.ACK:
                    raise Refused
                if answer.kind == kind:
                    return parse_terms(answer, priority=self._identity.priority)
            except Malformed as fault:
                self._odd = str(fault)
        return None

    def _is_for_us(self, answer: Answer, server: IPv4Address | None) -> bool:
        ours = answer.xid == self._xid and answer.mac == self._identity.mac
        return ours and server in (None, answer.server)


def _waits() -> Iterator[float]:
    """Doubling, give or take a tenth, so that a rack of containers does not ask in step."""
    wait = FIRST_WAIT
    while True:
        yield wait * random.uniform(0.9, 1.1)
        wait = min(wait * 2, LONGEST_WAIT)

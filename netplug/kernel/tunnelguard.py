"""Who may send into a tunnel: an nftables table for each, judging packets before they are opened.

VXLAN knows no sender: whoever can reach the port could put frames into the network. A packet
for our port and VNI passes if (sender of the outer packet, sender of the inner one) is a known
node with an address of that node's own subnet, and else is dropped; so is what is not IP.

    ip saddr . inner saddr @allowed4 accept        inner: bytes 42..45 behind the UDP header
    ip saddr . inner saddr @allowed6 accept        (8 UDP, 8 VXLAN, 14 Ethernet, 12 of 20 IP)
    drop
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Any

from netplug.errors import KernelRefused
from netplug.kernel import nftables as nf
from netplug.kernel.netlink import Refusal
from netplug.kernel.nfnetlink import Message, Nfnetlink, pack_comment
from netplug.model import IPAddress, IPNetwork, digest

CHAIN = "input"
PRIORITY = -5  # before the filters of others, whose verdicts then stand
NETWORK, TRANSPORT, L4PROTO, UDP = 1, 2, 16, 17
FAMILIES = {4: nf.IPV4, 6: nf.IPV6}
ADDRESS = {4: (7, 4), 6: (8, 16)}  # nft's number of the type, bytes
SOURCE = {4: 12, 6: 8}  # offset of the source address in an IP header
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
INNER = 8 + 8 + 14  # where the inner IP header begins, behind the start of the UDP header


@dataclass(frozen=True, slots=True)
class Allowed:
    """This node may send from these addresses."""

    vtep: IPAddress
    subnet: IPNetwork


@dataclass(frozen=True, slots=True)
class Frame:
    """The table of one tunnel, without its elements; `underlay` is 4 or 6."""

    table: str
    underlay: int
    port: int
    vni: int

    @property
    def family(self) -> int:
        return FAMILIES[self.underlay]

    def shape(self, inner: int) -> nf.SetShape:
        return nf.SetShape(
            f"allowed{inner}", (ADDRESS[self.underlay], ADDRESS[inner]), interval=True
        )

    @property
    def rules(self) -> tuple[tuple[bytes, str], ...]:
        """(code, comment) of each rule; the comment tells an older table from this one."""
        ours = (
            nf.meta(L4PROTO)
            + nf.compare(bytes((UDP,)))
            + nf.payload(TRANSPORT, 2, 2)
            + nf.compare(struct.pack("!H", self.port))
            + nf.payload(TRANSPORT, 12, 3)
            + nf.compare(self.vni.to_bytes(3, "big"))
        )
        size = ADDRESS[self.underlay][1]
        found = []
        for inner in (4, 6):
            known = (
                nf.payload(TRANSPORT, INNER - 2, 2)
                + nf.compare(ETHERTYPE[inner])
                + nf.payload(NETWORK, SOURCE[self.underlay], size)
                + nf.payload(
                    TRANSPORT, INNER + SOURCE[inner], ADDRESS[inner][1], nf.WORDS + size // 4
                )
                + nf.lookup(f"allowed{inner}")
                + nf.verdict(nf.ACCEPT)
            )
            found.append((ours + known, f"IPv{inner} of a known node"))
        found.append((ours + nf.verdict(nf.DROP), "nobody else sends into the tunnel"))
        comments = (f"netplug: {why} {digest('guard', code.hex())[:8]}" for code, why in found)
        return tuple((code, comment) for (code, _), comment in zip(found, comments, strict=True))

    @property
    def comments(self) -> tuple[str, ...]:
        return tuple(comment for _, comment in self.rules)


def read(fd: int, frame: Frame) -> tuple[bool, set[Allowed]] | None:
    """(are the rules whole, what is allowed); None without such a table."""
    with Nfnetlink(fd) as link:
        answer = link.ask([nf.get_table(frame.family, frame.table)])[0]
        if isinstance(answer, Refusal):
            return None
        held = [nf.read_rule(reply) for reply in link.dump(nf.all_rules(frame.family, frame.table))]
        whole = tuple(rule.comment for rule in held) == frame.comments
        found: set[Allowed] = set()
        for inner in (4, 6):
            message = nf.all_elements(frame.family, frame.table, f"allowed{inner}")
            try:
                replies = link.dump(message)
            except KernelRefused:  # the set is gone
                return False, set()
            for reply in replies:
                for element in nf.read_elements(reply):
                    found |= _parse(frame, inner, element)
        return whole, found


def make(fd: int, frame: Frame, allowed: Iterable[Allowed]) -> None:
    """The whole table, in place of what is there, in one transaction: never open in between."""
    batch: list[Message] = [
        nf.new_table(frame.family, frame.table),
        nf.delete_table(frame.family, frame.table),
        nf.new_table(frame.family, frame.table),
    ]
    for number, inner in enumerate((4, 6), 1):
        batch.append(nf.new_set(frame.family, frame.table, frame.shape(inner), number))
    hook = nf.Chain(0, frame.table, CHAIN, kind="filter", hook=nf.INPUT, priority=PRIORITY)
    batch.append(nf.new_chain(frame.family, frame.table, hook))
    batch += [
        nf.new_rule(frame.family, frame.table, CHAIN, code=code, userdata=pack_comment(comment))
        for code, comment in frame.rules
    ]
    _transact(fd, batch + _elements(frame, allowed, nf.add_elements))


def change(
    fd: int, frame: Frame, *, add: Iterable[Allowed] = (), remove: Iterable[Allowed] = ()
) -> None:
    """Elements that come and go, in one transaction. Raises KernelRefused."""
    batch = _elements(frame, remove, _delete) + _elements(frame, add, nf.add_elements)
    if batch:
        _transact(fd, batch)


def delete(fd: int, frame: Frame) -> None:
    """Removes the table; silent where it is gone."""
    with Nfnetlink(fd) as link:
        refusals = link.transact([nf.delete_table(frame.family, frame.table)])
    if refusals and refusals[0].errno != errno.ENOENT:
        raise _refused(refusals[0])


def usable(fd: int) -> str:
    """Why nf_tables cannot be used in this namespace; "" where it can."""
    try:
        with Nfnetlink(fd) as link:
            link.dump(nf.all_chains(nf.IPV4))
    except (KernelRefused, OSError) as error:
        return str(error)
    return ""


def _delete(
    family: int, table: str, name: str, *, elements: Sequence[nf.RawElement]
) -> list[Message]:
    return nf.delete_elements(family, table, name, elements)


def _elements(frame: Frame, allowed: Iterable[Allowed], pack: Any) -> list[Message]:
    batch: list[Message] = []
    grouped: dict[int, list[nf.RawElement]] = {4: [], 6: []}
    for one in allowed:
        head = one.vtep.packed
        grouped[one.subnet.version].append(
            nf.RawElement(
                head + one.subnet.network_address.packed,
                end=head + one.subnet.broadcast_address.packed,
            )
        )
    for inner, elements in grouped.items():
        if elements:
            batch += pack(frame.family, frame.table, f"allowed{inner}", elements=elements)
    return batch


def _parse(frame: Frame, inner: int, element: nf.RawElement) -> set[Allowed]:
    size = ADDRESS[frame.underlay][1]
    end = element.end or element.key
    first, last = ip_address(element.key[size:]), ip_address(end[size:])
    subnets = summarize_address_range(first, last)
    vtep = ip_address(element.key[:size])
    return {Allowed(vtep, ip_network(str(subnet))) for subnet in subnets}


def _transact(fd: int, batch: Sequence[Message]) -> None:
    with Nfnetlink(fd) as link:
        refusals = link.transact(batch)
    if refusals:
        raise _refused(refusals[0])


def _refused(refusal: Refusal) -> KernelRefused:
    return KernelRefused(
        "nf_tables refuses the filter of a tunnel", refusal.words, errno=refusal.errno
    )

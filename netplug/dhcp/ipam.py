"""The address of one attachment from a DHCP server: taken, given back, and who keeps it.

An address from a server must be renewed for as long as it is used, which a plugin that ends
cannot do. The agent does; without one no address is taken, for it would be lost silently.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from netplug.dhcp import leases, packet
from netplug.dhcp.client import Client, Identity
from netplug.dhcp.leases import Held, make_held
from netplug.errors import Busy, CheckFailed, NotFound, Unavailable
from netplug.kernel import Kernel
from netplug.kernel import rtmessages as rt
from netplug.kernel.dhcpsocket import DatagramSocket, FrameSocket
from netplug.locks import locked
from netplug.model import Attachment, Dhcp, Lease

KEEPER = "dhcp"  # the lock that an agent holds for as long as it renews
CLIENT_ID_LIMIT = 254  # bytes, as the reference cuts it
Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]


@contextmanager
def keeping(folder: Path, *, seconds: float = 0.0) -> Iterator[None]:
    """While it lasts, leases of this state folder are renewed. Raises Busy if another does."""
    with locked(folder, KEEPER, seconds=seconds):
        yield


def demand_keeper(folder: Path) -> None:
    """Somebody renews leases. Raises Unavailable."""
    try:
        with keeping(folder):
            pass
    except Busy:
        return
    raise Unavailable(
        "addresses of a DHCP server cannot be kept",
        "no agent runs, and only an agent renews them",
        "run: netplug agent start",
    )


def compute_identity(attachment: Attachment, dhcp: Dhcp, mac: str) -> Identity:
    """How the attachment presents itself; the client id is the reference plugin's."""
    name = attachment.name or attachment.container[:12]
    own = f"{attachment.container}/{attachment.network}/{attachment.ifname}"
    wanted = () if dhcp.skip_defaults else packet.WANTED
    return Identity(
        mac=mac,
        client_id=(b"\0" + (dhcp.client_id or own).encode())[:CLIENT_ID_LIMIT],
        hostname=(dhcp.hostname or name)[:63],
        request=tuple(dict.fromkeys((*wanted, *dhcp.request))),
        provide=tuple((p.option, (p.value or name).encode()) for p in dhcp.provide),
        broadcast=dhcp.broadcast,
        priority=dhcp.priority,
    )


class DhcpIpam:
    """`engine.ForeignIpam` for one attachment, whose link is there."""

    needs_link = False  # `give_back` talks to the server

    def __init__(
        self,
        kernel: Kernel,
        transaction: Transaction,
        folder: Path,
        *,
        host: str,
        attachment: Attachment,
        dhcp: Dhcp,
    ) -> None:
        self._kernel, self._transaction, self._folder = kernel, transaction, folder
        self._host, self._attachment, self._dhcp = host, attachment, dhcp

    def add(self) -> Lease:
        demand_keeper(self._folder)
        mac = raise_link(self._kernel, self._attachment.ifname)
        identity = compute_identity(self._attachment, self._dhcp, mac)
        owner = self._attachment.owner
        seconds = self._dhcp.seconds
        held = acquire(self._kernel, self._host, self._attachment, identity, seconds)
        with self._transaction() as db:
            leases.put(db, held)
        assert held.owner == owner
        return held.lease

    def delete(self) -> None:
        """`give_back` has done it, while the link was there."""

    def check(self) -> None:
        return None

    def status(self) -> None:
        demand_keeper(self._folder)

    def gc(self) -> None:
        return None


def raise_link(kernel: Kernel, ifname: str) -> str:
    """The container's interface up, so that it can talk; its MAC. Raises NotFound."""
    side = kernel.rtnl("sandbox")
    link = side.link(ifname) if side else None
    if side is None or link is None:
        raise NotFound(f"interface {ifname} is gone", "no address can be asked for", "retry")
    if not link.up:
        side.change(rt.set_up(link.index))
    return link.mac


def acquire(
    kernel: Kernel, host: str, attachment: Attachment, identity: Identity, seconds: float
) -> Held:
    """A new lease. Raises Busy where no server gives one in time."""
    fd = kernel.fd("sandbox")
    assert fd is not None
    wire = FrameSocket(fd, attachment.ifname)
    try:
        terms = Client(wire, identity).acquire(seconds)
    except OSError as error:
        raise Busy(
            f"{attachment.ifname} cannot ask for an address", error.strerror or "", "try again"
        ) from error
    finally:
        wire.close()
    return make_held(host, attachment.owner, identity, terms, leases.now())


def renew(kernel: Kernel, ifname: str, held: Held) -> Held:
    """The lease anew, from its server, after `rebind` from any. Raises Refused, Silent, OSError.

    Where the link has lost its address we ask as after a reboot (RFC 2131, INIT-REBOOT).
    """
    fd, side = kernel.fd("sandbox"), kernel.rtnl("sandbox")
    assert fd is not None and side is not None
    index = side.index(ifname)
    bare = all(a.interface != held.address for a in side.addresses(index or 0))
    server = held.server if leases.now() < held.rebind and not bare else None
    asked = leases.now()
    wire = FrameSocket(fd, ifname) if bare else DatagramSocket(fd, ifname, server)
    try:
        terms = Client(wire, held.identity).renew(held.address.ip, server, bare=bare)
    finally:
        wire.close()
    return make_held(held.host, held.owner, held.identity, terms, asked)


def give_back(kernel: Kernel, ifname: str, held: Held) -> None:
    """Tells the server, from the container while its link is there, else from the host.

    One datagram that nobody acknowledges; where it cannot be sent the lease ends by itself.
    """
    if held.lost:
        return
    fd, device = kernel.fd("sandbox"), ifname
    side = kernel.rtnl("sandbox")
    link = side.link(ifname) if side else None
    if fd is None or link is None or not link.up:
        fd, device = kernel.fd("host"), ""
    assert fd is not None
    with suppress(OSError):
        wire = DatagramSocket(fd, device, held.server)
        try:
            Client(wire, held.identity).release(held.address.ip, held.server)
            _linger(wire)
        finally:
            wire.close()


def _linger(wire: DatagramSocket) -> None:
    """A datagram waits in the kernel until the server's MAC is known: a moment for that."""
    wire.receive(time.monotonic() + 0.02)


def demand_held(db: sqlite3.Connection, host: str, owner: str) -> None:
    """Raises CheckFailed where the lease has ended."""
    held = leases.get(db, host, owner)
    if held is None or held.lost:
        raise CheckFailed(
            f"the address of {owner} is lost",
            "its DHCP lease ended" + (f": {held.fault}" if held and held.fault else ""),
            "is an agent running (netplug agent status), and a DHCP server on the network?",
        )

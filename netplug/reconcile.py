"""Records against the kernel: who is dead, what is ours, what a CHECK may expect."""

from __future__ import annotations

from dataclasses import replace

from netplug.errors import KernelRefused
from netplug.kernel import Kernel, namespaces
from netplug.kernel.rtmessages import Link
from netplug.kernel.rtnl import Rtnl
from netplug.model import MARK, Attachment, Result, Route, digest
from netplug.plan import Plan
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes
from netplug.resources.links import Veth
from netplug.resources.upper import UPPER_KINDS, WAS, Moved, Upper, remove_marked
from netplug.state import Record

BACKENDS = ("nft", "iptables")


def compute_expected(plan: Plan, attachment: Attachment, previous: Result) -> Plan:
    """The plan with MAC, MTU, addresses and routes of prevResult: a later plugin of the
    chain may have changed them (CNI spec, CHECK). Results before 1.1.0 tell no MTU: 0, any."""
    inner = next(
        (i for i in previous.interfaces if i.name == attachment.ifname and i.sandbox != ""),
        next((i for i in previous.interfaces if i.name == attachment.ifname), None),
    )
    addresses = tuple(ip.address for ip in previous.ips)
    return Plan(
        tuple(
            _expected(
                step,
                attachment.ifname,
                mac=inner.mac if inner else "",
                mtu=(inner.mtu or 0) if inner else 0,
                addresses=addresses,
                routes=previous.routes,
            )
            for step in plan
        )
    )


def _expected(
    step: Resource,
    ifname: str,
    *,
    mac: str,
    mtu: int,
    addresses: tuple[object, ...],
    routes: tuple[Route, ...],
) -> Resource:
    if isinstance(step, (Veth, Upper, Moved)) and step.ifname == ifname:
        return replace(step, mac=(mac or step.mac).lower(), mtu=mtu)
    if isinstance(step, Addresses) and step.place == "sandbox" and step.device == ifname:
        return replace(step, addresses=addresses)  # type: ignore[arg-type]
    if isinstance(step, Routes) and step.place == "sandbox" and routes:
        return replace(step, routes=routes)
    return step


def is_dead(kernel: Kernel, record: Record) -> bool:
    """Proof that nobody uses the attachment: our host-side link is gone, and the sandbox's
    cookie is in no process and no mount. A path that does not open is no proof, nor is a
    sandbox that could not be identified (cookie 0)."""
    if not record.cookie or any(
        isinstance(step, Veth) and kernel.host.link(step.host_name) is not None
        for step in record.plan
    ):
        return False
    return record.cookie not in namespaces.living_cookies()


def remove_owned(kernel: Kernel, attachment: Attachment) -> None:
    """Removes links and rules of an attachment that has no record, found by their marks, on the
    host and in the kernel's sandbox."""
    for name in (attachment.host_name, "ifb" + digest("ifb", attachment.owner)[:12]):
        link = kernel.host.link(name)
        if link is not None and link.alias in ("", attachment.mark):
            kernel.host.delete_link(link.index)
    remove_marked(kernel, attachment.mark)
    for backend in BACKENDS:
        _remove_rules(kernel, backend, attachment.tag)


def _remove_rules(kernel: Kernel, backend: str, owner: str) -> None:
    try:
        kernel.firewall(backend).remove_owned(owner)
    except (KernelRefused, ImportError):
        return  # a backend that this host does not have holds nothing


def owned_networks(kernel: Kernel) -> set[str]:
    """Networks that links with our mark name, whether a record knows them or not."""
    owners = (x.alias.removeprefix(MARK) for x in kernel.host.links() if x.alias.startswith(MARK))
    return {owner.split("/")[0] for owner in owners if owner.count("/") == 2}


def find_shared(kernel: Kernel) -> list[tuple[str, Link]]:
    """Links of ours that attachments share, with their keys: bridges without any port, shims."""
    links = kernel.host.links()
    masters = {link.master for link in links}
    bridges = [
        (f"bridge:{link.name}", link)
        for link in links
        if link.alias == f"{MARK}bridge/{link.name}" and link.index not in masters
    ]
    shims = [(f"{x.kind}:{x.name}", x) for x in links if x.alias == f"{MARK}shim/{x.name}"]
    return bridges + shims


def find_owned(kernel: Kernel, network: str, keep: set[tuple[str, str]]) -> list[Attachment]:
    """Owners of links with our mark, of one network, without those to keep (container, ifname).

    Most have a record; who removes one must look, under its lock.
    """
    found: dict[str, Attachment] = {}
    for link in kernel.host.links():
        owner = link.alias.partition(WAS)[0].removeprefix(MARK)
        parts = owner.split("/")
        if not link.alias.startswith(MARK) or len(parts) != 3 or parts[0] != network:
            continue
        if (parts[1], parts[2]) not in keep:
            found[owner] = Attachment(parts[0], parts[1], parts[2])
    return [found[owner] for owner in sorted(found)]


def find_inside(kernel: Kernel, network: str, keep: set[tuple[str, str]]) -> list[Attachment]:
    """As `find_owned`, of links inside living namespaces that lie on a link of this host."""
    found = []
    for path, fd in namespaces.living():
        rtnl = Rtnl(fd)
        try:
            links = [link for link in rtnl.links() if link.alias.startswith(f"{MARK}{network}/")]
            ours = rtnl.nsid(kernel.fd("host") or -1) if links else -1
        finally:
            rtnl.close()
        for link in links:
            parts = link.alias.removeprefix(MARK).split("/")
            on_host = link.parent_nsid == ours >= 0 and link.kind in UPPER_KINDS
            if on_host and len(parts) == 3 and (parts[1], parts[2]) not in keep:
                found.append(Attachment(network, parts[1], parts[2], sandbox=path))
    return found

"""Upkeep of what is attached: repair, garbage collection, status.

Functions over an `engine.Engine`, which offers them as its methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netplug import admission, plan, plugins, ports, resolver_files
from netplug.errors import Busy, Impaired, NetplugError, NotFound, Unavailable, collect
from netplug.kernel import Kernel, namespaces, sockdiag
from netplug.model import Attachment, Facts, Network, Via
from netplug.plan import Difference
from netplug.plugins import Driver
from netplug.reconcile import find_inside, find_owned, find_shared, owned_networks, remove_owned
from netplug.resources.links import Veth
from netplug.resources.upper import Upper
from netplug.state import Record

if TYPE_CHECKING:
    from netplug.engine import Engine


@dataclass(frozen=True, slots=True)
class Repair:
    """What one attachment lacked, and what could not be put back."""

    record: Record
    found: tuple[Difference, ...]
    failed: tuple[NetplugError, ...] = ()


def repair(engine: Engine, record: Record, *, dry_run: bool = False) -> Repair:
    """Compares one attachment with the kernel and puts back what is missing.

    What a crash left half made is removed instead.
    """
    with engine.state.locked(engine.lock_name(record.owner)):
        current = engine.state.get(engine.host.id, record.owner)
        if current is None:
            return Repair(record, ())
        if current.phase != "ready":
            if not dry_run:
                engine.remove(current)
            return Repair(current, ())
        with engine.host.kernel(lambda: engine.sandbox_of(current)) as kernel:
            found = plan.check(kernel, current.plan)
            failed = [] if dry_run else _put_back(engine, kernel, current, found)
    return Repair(current, tuple(found), tuple(failed))


def _put_back(
    engine: Engine, kernel: Kernel, record: Record, found: list[Difference]
) -> list[NetplugError]:
    """Applies, in the plan's order, what differs."""
    failed: list[NetplugError] = []
    usage = engine.usage(record)
    while found:
        first = found[0]
        try:
            plan.apply(kernel, first.resource, usage)
        except NetplugError as error:
            failed.append(error)
        # A step may bring back, or take along, what later steps need: look again behind it.
        found = [d for d in plan.check(kernel, record.plan) if d.index > first.index]
    return failed


def gc(
    engine: Engine,
    network: str,
    valid: Iterable[tuple[str, str]] | None,
    *,
    dry_run: bool = False,
    via: Via | None = None,
) -> list[str]:
    """Removes attachments of the network, or those of one kind, that `valid` (container,
    ifname) does not list.

    `valid` None: the caller has no opinion, only what is provably dead goes, as do
    in any case attachments of `netplug connect`. Goes on after errors.
    """
    keep = None if valid is None else set(valid)
    gone: list[str] = []
    errors: list[NetplugError] = []
    for record in engine.records(network):
        a = record.attachment
        if via not in (None, a.via) or (keep is not None and (a.container, a.ifname) in keep):
            continue
        try:
            if keep is None or a.via == "cli":
                if not _collect_dead(engine, record.owner, dry_run=dry_run):
                    continue
            elif not dry_run:
                engine.delete(a)
            gone.append(record.owner)
        except NetplugError as error:
            errors.append(error)
    with engine.host.kernel() as kernel:
        for orphan in find_owned(kernel, network, keep or set()) if via is None else ():
            if _collect_orphan(engine, kernel, orphan, dry_run=dry_run):
                gone.append(orphan.owner)
        # All attachments of a network are of one kind, and those with a cable end on the host.
        cabled = any(isinstance(step, Veth) for r in engine.records(network) for step in r.plan)
        inside = [] if cabled or via else find_inside(kernel, network, keep or set())
    for orphan in inside:
        if _collect_inside(engine, orphan, dry_run=dry_run):
            gone.append(orphan.owner)
    collect(f"network {network} could not be cleaned whole", errors)
    return gone


def gc_host(engine: Engine, *, dry_run: bool = False) -> list[str]:
    """What is provably dead on the whole host, and shared things that no record uses any more."""
    with engine.host.kernel() as kernel:
        names = {record.attachment.network for record in engine.records()}
        gone = []
        for name in sorted(names | owned_networks(kernel)):
            gone += gc(engine, name, None, dry_run=dry_run)
        for key, link in find_shared(kernel):
            with engine.state.locked(f"{engine.host.id}/{key}"):
                if engine.state.is_used(engine.host.id, key):
                    continue
                if not dry_run:
                    kernel.host.delete_link(link.index)
                gone.append(key.replace(":", " "))
    return gone + resolver_files.sweep(engine.state, dry_run=dry_run)


def _collect_dead(engine: Engine, owner: str, *, dry_run: bool) -> bool:
    """Removes what is dead, or left half made by a process that is gone; whether it was.

    Decided under its lock and by its record of now: it may have been added since it was listed.
    """
    try:
        with engine.state.locked(engine.lock_name(owner), seconds=0):
            record = engine.state.get(engine.host.id, owner)
            if record is None or (record.phase == "ready" and not engine.dead(record)):
                return False
            if not dry_run:
                engine.remove(record)
            return True
    except Busy:  # whoever works on it lives
        return False


def _collect_orphan(
    engine: Engine, kernel: Kernel, attachment: Attachment, *, dry_run: bool
) -> bool:
    """Removes what is in the kernel without a record; whether it has none, now, under its lock."""
    try:
        with engine.state.locked(engine.lock_name(attachment.owner), seconds=0):
            if engine.state.get(engine.host.id, attachment.owner) is not None:
                return False
            if not dry_run:
                remove_owned(kernel, attachment)
            return True
    except Busy:
        return False


def _collect_inside(engine: Engine, attachment: Attachment, *, dry_run: bool) -> bool:
    """As `_collect_orphan`, for links inside the attachment's sandbox."""
    with engine.host.kernel(lambda: namespaces.open_namespace(attachment.sandbox)) as kernel:
        return _collect_orphan(engine, kernel, attachment, dry_run=dry_run)


def status(engine: Engine, network: Network) -> list[str]:
    """Warnings. Raises Unavailable when an ADD on this network could not succeed now."""
    driver = plugins.get_driver(network.driver)
    backend = engine.host.choose_firewall(network.firewall)
    with engine.host.kernel() as kernel:
        facts = kernel.read_facts(driver.facts(network), backend)
        for link in facts.links:
            if network.driver == "bridge" and link.kind != "bridge":
                raise Unavailable(
                    f"link {link.name} is no bridge",
                    f"it is of kind {link.kind or 'device'}",
                    "remove it, or set the key 'bridge' to another name",
                )
        drops = kernel.firewall(backend).foreign_drops()
        records = engine.records(network.name)
        parents = {link.parent for record in records for link in _links_on_host(record)}
        orphaned = any(kernel.host.link(parent) is None for parent in parents)
    _demand_plannable(driver, network, facts, impaired=orphaned)
    admission.demand_free_addresses(engine.state, engine.host.id, network)
    return [*drops, *_changed_config(records, network), *_shrunk(records, facts)]


def _demand_plannable(driver: Driver, network: Network, facts: Facts, *, impaired: bool) -> None:
    """A plan could be made now. What the driver misses is Impaired where containers suffer too."""
    if not facts.readable:  # it lies inside the containers
        return
    try:
        driver.plan_link(network, Attachment(network.name, "status", "eth0"), facts)
    except NotFound as error:
        kind = Impaired if impaired else Unavailable
        raise kind(error.what, error.why, error.hint) from error


def _links_on_host(record: Record) -> list[Upper]:
    """A container's links on top of those of the host."""
    uppers = (step for step in record.plan if isinstance(step, Upper))
    return [u for u in uppers if u.key is None and u.parent and u.parent_place == "host"]


def _shrunk(records: list[Record], facts: Facts) -> list[str]:
    """Links whose parent has a smaller MTU than they were made with: the kernel shrinks them."""
    parents = {link.name: link for link in (*facts.links, facts.egress) if link is not None}
    found = []
    for record in records:
        for link in _links_on_host(record):
            parent = parents.get(link.parent)
            if parent is not None and parent.mtu < link.mtu:
                found.append(
                    f"{record.owner} was made with an MTU of {link.mtu}, but its parent"
                    f" {parent.name} has {parent.mtu} now; run: ip link set {parent.name}"
                    f" mtu {link.mtu} and netplug repair, or connect it anew"
                )
    return found


def _changed_config(records: list[Record], network: Network) -> list[str]:
    """Attachments that were made with another configuration than the file has now."""
    changed = [
        record.attachment.name or record.attachment.container
        for record in records
        if record.attachment.via != "names"
        and _comparable(record.config) != _comparable(network.raw)
    ]
    if not changed:
        return []
    return [
        f"{len(changed)} attachments were made with another configuration"
        f" ({', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''});"
        " connect them anew to take over the change"
    ]


def _comparable(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in ("cniVersion", "args")}


def warnings(engine: Engine) -> list[str]:
    """What is amiss on this host beyond any one network."""
    lines = []
    for record in engine.records():
        if record.phase != "ready":
            lines.append(
                f"{record.owner} was left {record.phase} by a process that ended;"
                " run: netplug repair"
            )
    published = ports.published(engine.state.connection, host=engine.host.id)
    owners = {entry.port: entry.owner for entry in published}
    for request, listener in sockdiag.read_conflicts(engine.host.fd, list(owners)):
        port = ports.HostPort(*request)
        who = f"{listener.command} (pid {listener.pid})" if listener.pid else "a process"
        lines.append(
            f"{who} listens on {port}, but is shadowed: {owners[port]} publishes that port"
        )
    return lines

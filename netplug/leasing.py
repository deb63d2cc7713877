"""What the engine does as IPAM plugin of foreign main plugins: addresses, and no more."""

from __future__ import annotations

import time
from dataclasses import replace

from netplug import admission, ipam
from netplug.engine import Engine
from netplug.errors import CheckFailed
from netplug.kernel import Kernel, namespaces
from netplug.model import Attachment, Network, Result, ResultAddress
from netplug.plan import Plan
from netplug.state import Record


def lease(engine: Engine, network: Network, attachment: Attachment) -> Result:
    """Leases addresses; the record has an empty plan. Raises Conflict, Exhausted."""
    with engine.host.kernel(lambda: engine.open_sandbox(attachment.sandbox)) as kernel:
        return _lease(engine, kernel, network, attachment)


def _lease(engine: Engine, kernel: Kernel, network: Network, attachment: Attachment) -> Result:
    sandbox = kernel.fd("sandbox")
    cookie = namespaces.cookie(sandbox) if sandbox is not None else 0
    state, host = engine.state, engine.host
    with state.transaction() as db:
        record = Record(
            host.id, attachment, "ready", host.boot, cookie, time.time(), Plan(), network.raw
        )
        given = admission.allocate(db, network, record)
        result = Result(
            ips=tuple(ResultAddress(a.address, a.gateway) for a in given.addresses),
            routes=given.routes,
            dns=given.dns,
        )
        record = replace(record, result=result)
        state.put(db, record)
        engine.demand_awaited(record)
    if network.names is None:
        return result
    result = engine.publish(kernel, network, record)
    with state.transaction() as db:
        state.tell(db, host.id, record.owner, result)
    return result


def check(engine: Engine, attachment: Attachment) -> None:
    """Raises CheckFailed when the attachment holds no address."""
    state, host = engine.state, engine.host
    if not ipam.leases(state.connection, host=host.id, owner=attachment.owner):
        raise CheckFailed(
            f"{attachment.owner} holds no address", "its lease is gone", "add it again"
        )

"""What the engine does as IPAM plugin of foreign main plugins: addresses, and no more."""

from __future__ import annotations

import time
from dataclasses import replace

from netplug import admission, ipam
from netplug.engine import Engine
from netplug.errors import CheckFailed
from netplug.kernel import namespaces
from netplug.model import Attachment, Network, Result, ResultAddress
from netplug.plan import Plan
from netplug.state import Record


def lease(engine: Engine, network: Network, attachment: Attachment) -> Result:
    """Leases addresses; the record has an empty plan. Raises Conflict, Exhausted."""
    sandbox = engine.open_sandbox(attachment.sandbox)
    cookie = namespaces.cookie(sandbox) if sandbox is not None else 0
    if sandbox is not None:
        namespaces.close(sandbox)
    state, host = engine.state, engine.host
    with state.transaction() as db:
        record = Record(host.id, attachment, "ready", host.boot, cookie, time.time(), Plan(), {})
        given = admission.allocate(db, network, record)
        result = Result(
            ips=tuple(ResultAddress(a.address, a.gateway) for a in given.addresses),
            routes=given.routes,
            dns=given.dns,
        )
        state.put(db, replace(record, result=result))
        engine.demand_awaited(record)
    return result


def check(engine: Engine, attachment: Attachment) -> None:
    """Raises CheckFailed when the attachment holds no address."""
    state, host = engine.state, engine.host
    if not ipam.leases(state.connection, host=host.id, owner=attachment.owner):
        raise CheckFailed(
            f"{attachment.owner} holds no address", "its lease is gone", "add it again"
        )

"""What an ADD would do, without doing it: the dry run."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from netplug import admission, plugins
from netplug.engine import Engine
from netplug.model import Attachment, Network, Result
from netplug.plan import Plan
from netplug.state import Record


@dataclass(frozen=True, slots=True)
class Preview:
    """The plan, which of its steps are there already, and the result."""

    plan: Plan
    present: tuple[bool, ...]
    result: Result


def preview(engine: Engine, network: Network, attachment: Attachment) -> Preview:
    """What `engine.add` would do. Takes no lease: its transaction is rolled back."""
    network = engine.sited(network, join=True)
    driver = plugins.get_driver(network.driver)
    state, host = engine.state, engine.host
    with engine.open(attachment.sandbox) as kernel:
        facts = engine.read_facts(kernel, driver, network)
        links = driver.plan_link(network, attachment, facts)
        record = Record(host.id, attachment, "pending", host.boot, 0, time.time(), links, {})
        with suppress(_Rollback), state.transaction() as db:
            _, record = admission.describe(db, driver, network, record, facts)
            raise _Rollback
        present = tuple(step.present(kernel) == "" for step in record.plan)
    assert record.result is not None
    return Preview(record.plan, present, record.result)


class _Rollback(Exception):
    """Ends a transaction that was only asked what it would do."""

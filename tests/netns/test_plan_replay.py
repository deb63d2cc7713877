"""Plans that an older netplug stored are removed whole: tests/golden/records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attaching import Site, dump

from netplug import plan
from netplug.kernel import namespaces
from netplug.model import Attachment
from netplug.plan import SCHEMA, Plan, from_json
from netplug.state import Record

if TYPE_CHECKING:
    from conftest import Host

# A node's own: no attachment ever has them. test_overlay_plan removes them.
OF_NODES = ("TunnelGuard", "Vxlan", "PeerSet", "Wireguard", "WireguardPeers")
RECORDS = Path(__file__).parents[1] / "golden" / "records"


@pytest.mark.parametrize("number", range(1, SCHEMA + 1))
def test_what_an_older_version_attached_is_removed(host: Host, number: int) -> None:
    site, container = Site(host), host.container("web")
    before = dump(host)
    # the plan changes a setting of up0, puts a macvlan on it, and moves up1
    host.run("ip link add up0 type veth peer name up1 address 02:00:00:00:00:41")
    whole = from_json(json.loads((RECORDS / f"schema-{number}.json").read_text()))
    stored = Plan(tuple(step for step in whole if type(step).__name__ not in OF_NODES))
    attachment = Attachment("lan", "web", "eth0", container.path)
    with site.engine() as engine:
        record = Record(
            host=engine.host.id,
            attachment=attachment,
            phase="ready",
            boot=engine.host.boot,
            cookie=namespaces.cookie(container.fd),
            since=0.0,
            plan=stored,
            config={},
        )
        with engine.state.transaction() as db:
            engine.state.put(db, record)
        with engine.host.kernel(lambda: engine.sandbox_of(record)) as kernel:
            plan.add(kernel, stored, engine.usage(record))
    site.check(attachment)
    site.delete(attachment)
    assert "02:00:00:00:00:41" in host.run("ip link show up1")
    host.run("ip link del up0")
    site.demand_nothing_left(before)

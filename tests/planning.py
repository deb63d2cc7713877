"""Plans without a kernel: what the first attachment of a network gets, and how it is kept."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import Any

from netplug import ipam, plugins
from netplug.firewall.intent import Base, Intent
from netplug.firewall.render import render
from netplug.model import Attachment, Facts, Lease, Network
from netplug.plan import Plan, to_json, to_shell
from netplug.resources import Shell


def plan_first(network: Network, wishes: dict[str, Any], facts: Facts) -> Plan:
    """Links and the rest, with the first address that the network leases."""
    driver = plugins.get_driver(network.driver)
    attachment = Attachment(
        network.name, "web", **{"ifname": "eth0", "sandbox": "/run/netns/web", **wishes}
    )
    backend = "nft" if network.firewall == "auto" else network.firewall
    facts = replace(facts, firewall=backend)
    links = driver.plan_link(network, attachment, facts)
    lease = lease_first(network, attachment)
    return links + driver.plan_network(network, attachment, lease, facts)


def lease_first(network: Network, attachment: Attachment) -> Lease:
    if network.ipam is None:
        return Lease()
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(ipam.SCHEMA)
    lease = ipam.allocate(
        db,
        host="host",
        boot="boot",
        segment=network.segment,
        network=network.name,
        owner=attachment.owner,
        ipam=network.ipam,
        requested=attachment.addresses,
        now=0.0,
    )
    db.close()
    return lease


def render_plan(plan: Plan) -> str:
    return json.dumps(json.loads(to_json(plan)), indent=1) + "\n"


def render_commands(plan: Plan) -> str:
    def without_frame(backend: str, intent: Intent) -> list[str]:
        if isinstance(intent, Base):
            return [f"# the frame: tests/golden/{backend}"]
        return render(backend, intent)

    return "\n".join(to_shell(plan, Shell("web", without_frame))) + "\n"

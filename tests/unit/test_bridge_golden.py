"""The plan of every option, as kept in tests/golden/plans: NAME.json as stored, NAME.sh as typed.

The base firewall frame alone is left out of NAME.sh: tests/golden/nft and iptables show it. To
keep new plans, after reading the difference: `python -m tests.unit.test_bridge_golden`.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from bridge_cases import CASES

from netplug import ipam
from netplug.firewall.intent import Base, Intent
from netplug.firewall.render import render
from netplug.model import Attachment, Facts, Lease
from netplug.plan import Plan, from_json, to_json, to_shell
from netplug.plugins.bridge import driver
from netplug.resources import Shell

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


def compute_plan(name: str) -> Plan:
    """The first attachment's plan, on a host whose way out has an MTU of 1420."""
    network, wishes = CASES[name]
    wishes = dict(wishes)
    attachment = Attachment(network.name, "web", wishes.pop("ifname", "eth0"), "/run/netns/web")
    attachment = Attachment(
        attachment.network, attachment.container, attachment.ifname, attachment.sandbox, **wishes
    )
    backend = "nft" if network.firewall == "auto" else network.firewall
    facts = Facts(firewall=backend, egress_mtu=1420, ra_interfaces=("up0",))
    links = driver.plan_link(network, attachment, facts)
    lease = Lease()
    if network.ipam is not None:
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
    return links + driver.plan_network(network, attachment, lease, facts)


def render_plan(plan: Plan) -> str:
    return json.dumps(json.loads(to_json(plan)), indent=1) + "\n"


def render_commands(plan: Plan) -> str:
    def without_frame(backend: str, intent: Intent) -> list[str]:
        if isinstance(intent, Base):
            return [f"# the frame: tests/golden/{backend}"]
        return render(backend, intent)

    return "\n".join(to_shell(plan, Shell("web", without_frame))) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    plan = compute_plan(name)
    assert json.loads(render_plan(plan)) == json.loads((GOLDEN / f"{name}.json").read_text())
    assert render_commands(plan) == (GOLDEN / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_stored_plan_reads_back(name: str) -> None:
    plan = compute_plan(name)
    assert from_json(json.loads(to_json(plan))) == plan


def test_no_golden_file_is_forgotten() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{name}.{ending}" for name in CASES for ending in ("json", "sh")
    }


if __name__ == "__main__":
    for case in CASES:
        kept = compute_plan(case)
        (GOLDEN / f"{case}.json").write_text(render_plan(kept))
        (GOLDEN / f"{case}.sh").write_text(render_commands(kept))

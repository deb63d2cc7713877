"""The plan of every option, as kept in tests/golden/plans: NAME.json as stored, NAME.sh as typed.

The base firewall frame alone is left out of NAME.sh: tests/golden/nft and iptables show it. To
keep new plans, after reading the difference: `python -m tests.unit.test_bridge_golden`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bridge_cases import CASES
from planning import plan_first, render_commands, render_plan

from netplug.model import Facts
from netplug.plan import Plan, from_json, to_json

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


def compute_plan(name: str) -> Plan:
    """The first attachment's plan, on a host whose way out has an MTU of 1420."""
    network, wishes = CASES[name]
    return plan_first(network, wishes, Facts(egress_mtu=1420, ra_interfaces=("up0",)))


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

"""The plan of every option of the drivers beside bridge: tests/golden/drivers, as in golden/plans.

To keep new plans, after reading the difference: `python -m tests.unit.test_driver_golden`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from driver_cases import CASES, FACTS
from planning import plan_first, render_commands, render_plan

from netplug.plan import Plan, from_json, to_json
from netplug.plugins import driver_names, get_driver

GOLDEN = Path(__file__).parents[1] / "golden" / "drivers"


def compute_plan(name: str) -> Plan:
    return plan_first(*CASES[name], FACTS)


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    plan = compute_plan(name)
    assert json.loads(render_plan(plan)) == json.loads((GOLDEN / f"{name}.json").read_text())
    assert render_commands(plan) == (GOLDEN / f"{name}.sh").read_text()
    assert from_json(json.loads(to_json(plan))) == plan


def test_no_golden_file_is_forgotten() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{name}.{ending}" for name in CASES for ending in ("json", "sh")
    }


def test_every_driver_answers_to_its_name() -> None:
    """And each but host and bridge, which have tables of their own, has cases here."""
    assert [get_driver(name).name for name in driver_names()] == driver_names()
    shown = {network.driver for network, _ in CASES.values()}
    assert shown == set(driver_names()) - {"bridge", "host"}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        kept = compute_plan(case)
        (GOLDEN / f"{case}.json").write_text(render_plan(kept))
        (GOLDEN / f"{case}.sh").write_text(render_commands(kept))

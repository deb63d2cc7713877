"""The plan of every option of the drivers beside bridge: tests/golden/drivers, as in golden/plans.

To keep new plans, after reading the difference: `python -m tests.unit.test_driver_golden`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attaching import driver_network
from driver_cases import CASES, FACTS
from planning import plan_first, render_commands, render_plan

from netplug.draw.scene import Scene
from netplug.model import Attachment, Network
from netplug.picture import SHARED, compute_scene
from netplug.plan import Plan, from_json, to_json
from netplug.plugins import driver_names, get_driver
from netplug.state import Record

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


def pictured(network: Network, plan: Plan) -> Scene:
    attachment = Attachment(network.name, "web", "eth0", "/run/netns/web")
    record = Record("host", attachment, "ready", "boot", 1, 0.0, plan, {"driver": network.driver})
    return compute_scene("here", [record])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("macvlan-hostAccess", "macvlan on eth1"),
        ("ipvlan", "ipvlan on eth1"),
        ("vlan", "vlan on eth1"),
        ("dummy", "dummy"),
        ("ptp", "veth"),
        ("host-device", "moved"),
    ],
)
def test_pictures_come_by_themselves(name: str, words: str) -> None:
    scene = pictured(CASES[name][0], compute_plan(name))
    boxes = {box.name: box for box in scene.boxes}
    assert boxes["network lan"].lines[0] == words
    assert ("door eth1" in boxes) == ("eth1" in words)
    assert "container web" in boxes


def test_a_container_of_the_host_is_pictured_too() -> None:
    scene = pictured(driver_network("host"), Plan())
    assert [box.lines for box in scene.boxes if box.name == "container web"] == [(SHARED,)]


def test_every_driver_answers_to_its_name() -> None:
    """And each but host, bridge and overlay, which have tables of their own, has cases here."""
    assert [get_driver(name).name for name in driver_names()] == driver_names()
    shown = {network.driver for network, _ in CASES.values()}
    assert shown == set(driver_names()) - {"bridge", "host", "overlay"}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        kept = compute_plan(case)
        (GOLDEN / f"{case}.json").write_text(render_plan(kept))
        (GOLDEN / f"{case}.sh").write_text(render_commands(kept))

"""Records of every schema that was ever written are still understood: tests/golden/records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netplug.plan import INTENTS, KINDS, LATE, SCHEMA, from_json, to_json
from netplug.resources.rules import Rules

RECORDS = Path(__file__).parents[1] / "golden" / "records"


@pytest.mark.parametrize("number", range(1, SCHEMA + 1))
def test_a_stored_plan_is_decoded_whole(number: int) -> None:
    stored = json.loads((RECORDS / f"schema-{number}.json").read_text())
    plan = from_json(stored)
    assert len(plan) == len(stored["steps"])
    assert from_json(json.loads(to_json(plan))) == plan


def test_the_current_schema_shows_every_kind_of_step() -> None:
    """Who adds or changes a kind writes a new schema, or extends this one compatibly."""
    plan = from_json(json.loads((RECORDS / f"schema-{SCHEMA}.json").read_text()))
    assert {type(step).__name__ for step in plan} == {*KINDS, *LATE}
    assert {type(s.intent).__name__ for s in plan if isinstance(s, Rules)} == set(INTENTS)

"""text.md: why, then for each step what to do and what happened.

# Title
why ...
## STEP: heading
what to do ...
### What happened
the explanation, shown once the step is passed
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from netplug.errors import ConfigError
from netplug.labs.format import TEXT, Lab

HEADING = re.compile(r"^## ([a-z][a-z0-9-]*): (.*)$", re.MULTILINE)
HAPPENED = "\n### What happened\n"


@dataclass(frozen=True, slots=True)
class StepText:
    heading: str
    task: str
    happened: str


@dataclass(frozen=True, slots=True)
class Text:
    """`why` comes before the first step."""

    why: str
    steps: dict[str, StepText]


def parse_text(text: str) -> Text:
    """The parts of a text; step texts by step."""
    parts = HEADING.split(text)
    steps = {}
    for name, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        task, _, happened = body.partition(HAPPENED)
        steps[name] = StepText(heading, task.strip(), happened.strip())
    return Text(parts[0].strip(), steps)


def read_text(lab: Lab) -> Text:
    """The text of a lab. Raises ConfigError where it speaks of a step that there is not."""
    text = parse_text(lab.read(TEXT))
    known = [step.id for step in lab.steps]
    for name in text.steps:
        if name not in known:
            raise ConfigError(
                f"{lab.name}/{TEXT}: ## {name}", "no step has this name", f"steps: {known}"
            )
    return text

"""Variants of a lab: `{{name}}` becomes a value chosen by the seed.

`vary: {net: "20-250", colour: "red green blue"}`: a range of numbers, or words. Seed 0 takes
the first of each, so that the text of a course reads the same for everybody who names none.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping

from netplug.errors import ConfigError

Values = dict[str, str]
VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
SEEDS = 1 << 31


def compute_values(vary: Mapping[str, object], seed: int, *, source: str) -> Values:
    """A value for each variable. Raises ConfigError for one without choices."""
    values = {}
    for name, text in vary.items():
        choices = _choices(str(text))
        if not choices:
            why = f"{text!r}: a range such as 20-250, or words, are expected"
            raise ConfigError(f"{source}: vary.{name}", why)
        values[str(name)] = str(choices[0] if seed == 0 else generator(seed, name).choice(choices))
    return values


def _choices(text: str) -> list[str] | range:
    match = re.fullmatch(r"(\d+)\s*-\s*(\d+)", text.strip())
    return range(int(match[1]), int(match[2]) + 1) if match else text.split()


def generator(seed: int, purpose: str) -> random.Random:
    """Random numbers that the seed decides, another row for each purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def seed_of(student: str, lab: str, secret: str = "") -> int:
    """A seed for a student: the same each time, another for each lab."""
    digest = hashlib.sha256("\0".join(("netplug", secret, lab, student)).encode()).digest()
    return 1 + int.from_bytes(digest[:4], "big") % (SEEDS - 1)


def substitute(text: str, values: Values) -> str:
    """`{{name}}` replaced; what is no variable stays as it is."""
    return VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)

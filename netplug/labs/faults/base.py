"""What a fault is: how it is made and unmade, how it shows, what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netplug.fixtures.schema import did_you_mean

FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class FaultKind:
    """An entry of the catalogue. Texts and commands name their places in braces.

    `breaks` and `mends` are shell commands in `where`, inverse to each other; `evidence` is
    the check that fails while the fault is there, and no fault else. `symptom` is what people
    report, `cause` why, `remedy` the way out.
    """

    name: str
    group: str
    breaks: str
    mends: str
    evidence: Mapping[str, Any]
    symptom: str
    cause: str
    remedy: str
    where: str = "{node}"
    defaults: Mapping[str, str] | None = None
    needs: tuple[str, ...] = ()

    @property
    def places(self) -> list[str]:
        """What must be named to make one."""
        texts = [self.where, self.breaks, self.mends, str(self.evidence)]
        found = dict.fromkeys(name for text in texts for name in FIELD.findall(text))
        return [name for name in found if name not in (self.defaults or {})]

    def at(self, places: Mapping[str, str]) -> Fault:
        """Raises ValueError for a place that is missing or unknown."""
        known = [*self.places, *(self.defaults or {})]
        for name in places:
            if name not in known:
                raise ValueError(f"{self.name} has no {name!r}; {did_you_mean(name, known)}")
        if missing := [name for name in self.places if name not in places]:
            raise ValueError(f"{self.name} needs {', '.join(missing)}")
        return Fault(self, tuple(sorted({**(self.defaults or {}), **places}.items())))


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at its place."""

    kind: FaultKind
    places: tuple[tuple[str, str], ...]

    def fill(self, text: str) -> str:
        values = dict(self.places)
        return FIELD.sub(lambda match: values.get(match[1], match[0]), text)

    @property
    def node(self) -> str:
        return self.fill(self.kind.where)

    @property
    def breaks(self) -> str:
        return self.fill(self.kind.breaks)

    @property
    def mends(self) -> str:
        return self.fill(self.kind.mends)

    @property
    def evidence(self) -> dict[str, Any]:
        """The check that fails while the fault is there, as written in lab.yaml."""
        return {word: self._fill_all(keys) for word, keys in self.kind.evidence.items()}

    def _fill_all(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._fill_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill_all(item) for item in value]
        return self.fill(value) if isinstance(value, str) else value

    def __str__(self) -> str:
        return f"{self.kind.name} ({', '.join(f'{key} {value}' for key, value in self.places)})"

"""What a check is: a question about the kernel, and an answer that explains itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from netplug.errors import NetplugError
from netplug.labs.world import World


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was expected, what is there, and what that means for a packet."""

    ok: bool
    expected: str
    found: str
    meaning: str = ""


class Check(BaseModel):
    """One condition on the lab's state. It is asked again whenever checks run.

    `trivial` says that it may hold before the student did anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    word: ClassVar[str]
    trivial: bool = False

    def expected(self) -> str:
        """What the check wants, in a few words."""
        raise NotImplementedError

    def judge(self, world: World) -> Verdict:
        """Reads the kernel and compares."""
        raise NotImplementedError

    @property
    def independent(self) -> bool:
        """May it run beside others? Not where it listens, or watches what passes."""
        return False

    def ask(self, world: World) -> Verdict:
        """The verdict, also where the question cannot even be asked."""
        try:
            return self.judge(world)
        except NetplugError as error:
            return Verdict(False, self.expected(), str(error), error.hint)

    def answer(self, ok: bool, found: str, meaning: str = "") -> Verdict:
        return Verdict(ok, self.expected(), found, "" if ok else meaning)

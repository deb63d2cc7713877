"""A question to the student, whose right answer is read from the kernel or written in the lab."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class Answer(BaseModel):
    """One of: the MAC of NODE.LINK, its address, one of several texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mac_of: str | None = None
    address_of: str | None = None
    text: str | tuple[str, ...] | None = None

    def values(self, world: World) -> list[str]:
        if self.mac_of:
            return [world.mac(self.mac_of)]
        if self.address_of:
            return [world.address(self.address_of)]
        return [self.text] if isinstance(self.text, str) else list(self.text or ())


class AskCheck(Check):
    """`id` names the answer in `netplug lab check --answer ID=TEXT`."""

    word: ClassVar[str] = "ask"
    id: str
    question: str
    right: Answer

    def expected(self) -> str:
        return f"an answer to: {self.question}"

    def judge(self, world: World) -> Verdict:
        given = world.answers.get(self.id)
        if given is None:
            return self.answer(False, "none yet", f"netplug lab check --answer {self.id}=...")
        ok = fold(given) in map(fold, self.right.values(world))
        return self.answer(ok, f"you say {given}", "look again where the text says")


def fold(text: str) -> str:
    """What matters of an answer: no case, no blanks, no full stop."""
    return re.sub(r"\s+", " ", text.strip().rstrip(".").lower())

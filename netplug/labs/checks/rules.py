"""Check of the firewall's text. What packets do says more: see nat and filter."""

from __future__ import annotations

from typing import ClassVar

from netplug.errors import UnsupportedError
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class RulesetCheck(Check):
    """Some line of `nft list ruleset` in the node has this text, or none has.

    nftables writes rules in a form of its own: `oifname "eth0"`, priorities by name.
    """

    word: ClassVar[str] = "ruleset"
    node: str
    has: str
    exists: bool = True

    def expected(self) -> str:
        return f"{'a' if self.exists else 'no'} rule with '{self.has}' in {self.node}"

    def judge(self, world: World) -> Verdict:
        done = world.run(self.node, "nft list ruleset")
        if done.returncode:
            raise UnsupportedError("the ruleset cannot be read", done.stderr.strip())
        lines = [line.strip() for line in done.stdout.splitlines()]
        fitting = [line for line in lines if self.has in line]
        found = fitting[0] if fitting else f"no such rule among {len(lines)} lines"
        meaning = "the rule is missing" if self.exists else "this rule decides before others do"
        return self.answer(bool(fitting) == self.exists, found, meaning)

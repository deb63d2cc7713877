"""Check against a plan: what `netplug connect` would make, beside what there is."""

from __future__ import annotations

from typing import ClassVar

from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class PlanCheck(Check):
    """`target` is connected to `network` by netplug, and the kernel holds all of that plan.

    With `compare` it is not: the plan is set beside what was built by hand around `target`,
    and every step must have its counterpart there.
    """

    word: ClassVar[str] = "plan"
    node: str
    target: str
    network: str
    ifname: str = "eth0"
    compare: bool = False

    def expected(self) -> str:
        if self.compare:
            plan = f"the plan of: netplug connect {self.target} {self.network}"
            return f"{plan}, each step of it beside yours"
        return f"{self.target} on {self.network}, as netplug planned it, in {self.node}"

    def judge(self, world: World) -> Verdict:
        from netplug.labs.compare import compare_with_plan, render_rows  # late: the whole engine
        from netplug.labs.planning import preview_connect, read_differences

        if self.compare:
            preview = world.inside(
                self.node, lambda: preview_connect(self.target, self.network, self.ifname)
            )
            rows = compare_with_plan(world, self.node, self.target, preview.plan)
            ok = all(row.found for row in rows)
            return self.answer(ok, "\n" + render_rows(rows), "you built nothing for some step")
        differences = world.inside(self.node, lambda: read_differences(self.target, self.network))
        if differences is None:
            found = f"{self.target} is not connected to {self.network}"
            return self.answer(False, found, "see: netplug ps")
        meaning = "netplug check says the same, netplug repair mends it"
        return self.answer(not differences, "; ".join(differences) or "all is there", meaning)

"""Check against a plan: what `netplug connect` would make, beside what there is."""

from __future__ import annotations

import json
from typing import ClassVar

from netplug.errors import NotFound
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class PlanCheck(Check):
    """Every step of the plan for `target` on `network`, made in `node`, is in the kernel.

    `target` and `network` name what `netplug connect TARGET NETWORK` would take. With `made`
    false, the plan's links are not there: somebody else's may be.
    """

    word: ClassVar[str] = "plan"
    node: str
    target: str
    network: str
    ifname: str | None = None
    made: bool = True

    def expected(self) -> str:
        return f"what netplug connect {self.target} {self.network} makes, in {self.node}"

    def judge(self, world: World) -> Verdict:
        ifname = f" --ifname {self.ifname}" if self.ifname else ""
        command = f"netplug connect {self.target} {self.network}{ifname} --dry-run --json"
        if self.made:
            command = f"netplug check {self.network}"
        done = world.run(self.node, command)
        if self.made:
            text = (done.stdout + done.stderr).strip()
            if done.returncode == 0 and self.target not in text:
                listed = world.run(self.node, f"netplug ps {self.network} --json").stdout
                names = [item["attachment"]["name"] for item in json.loads(listed or "[]")]
                if self.target not in names:
                    found = f"{self.target} is not connected to {self.network}"
                    return self.answer(False, found, f"netplug connect {self.target} ...")
            return self.answer(
                not done.returncode, text or "the kernel agrees", "see netplug check"
            )
        if done.returncode:
            raise NotFound(f"there is no plan for {self.target}", done.stderr.strip())
        steps = json.loads(done.stdout)
        missing = [step["what"] for step in steps if not step["present"]]
        found = f"{len(steps) - len(missing)} of {len(steps)} steps are there already"
        return self.answer(bool(missing), found)

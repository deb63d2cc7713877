"""The way out: a Python function of the lab's own. Who starts such a lab is asked first."""

from __future__ import annotations

import runpy
from typing import Any, ClassVar

from netplug.errors import ConfigError, NotFound
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class PythonCheck(Check):
    """`call` is FILE.py:FUNCTION. It gets the World, and gives (ok, expected, found, meaning)."""

    word: ClassVar[str] = "python"
    call: str

    def expected(self) -> str:
        return f"{self.call} is content"

    def judge(self, world: World) -> Verdict:
        file, _, name = self.call.partition(":")
        if world.folder is None:
            raise NotFound(f"{self.call} cannot be found", "the lab has no folder")
        path = world.folder / file
        if not path.resolve().is_relative_to(world.folder.resolve()) or not path.is_file():
            raise NotFound(f"{file} is not in the lab's folder", str(world.folder))
        function: Any = runpy.run_path(str(path)).get(name)
        if not callable(function):
            raise ConfigError(f"{self.call} cannot be called", f"{file} has no function {name}")
        try:
            answer = function(world)
            return Verdict(bool(answer[0]), *map(str, answer[1:4]))
        except Exception as error:  # of somebody else's code
            raise ConfigError(f"{self.call} failed", f"{type(error).__name__}: {error}") from error

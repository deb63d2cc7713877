"""Check of a file that the student wrote: a configuration, a result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class FileCheck(Check):
    """The file holds `text`, or is JSON with these values and keys."""

    word: ClassVar[str] = "file"
    path: str
    executable: bool = False
    text: str | None = None
    values: dict[str, Any] | None = Field(default=None, alias="json")
    has: tuple[str, ...] = ()

    def expected(self) -> str:
        words = [f"file {self.path}"]
        words += ["executable"] if self.executable else []
        words += [f"with {self.text!r}"] if self.text else []
        words += [f"with {key} {value!r}" for key, value in (self.values or {}).items()]
        return ", ".join([*words, *(f"with the key {key}" for key in self.has)])

    def judge(self, world: World) -> Verdict:
        path = Path(self.path)
        if self.executable:
            found = "executable" if os.access(path, os.X_OK) else "not there, or not executable"
            return self.answer(os.access(path, os.X_OK), found, "nothing can call it")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return self.answer(False, getattr(error, "strerror", None) or "no text", "write it")
        if self.text is not None and self.text not in text:
            return self.answer(False, text.strip()[:200] or "an empty file", "it says otherwise")
        if self.values is None and not self.has:
            return self.answer(True, "as expected")
        try:
            body = json.loads(text)
        except ValueError as error:
            return self.answer(False, f"no JSON: {error}", "a plugin would refuse it (code 6)")
        for key, value in (self.values or {}).items():
            if not isinstance(body, dict) or body.get(key) != value:
                found = f"{key} is {body.get(key)!r}" if isinstance(body, dict) else "no object"
                return self.answer(False, found, "the plugin would do something else")
        missing = [key for key in self.has if key not in body]
        return self.answer(not missing, f"missing: {', '.join(missing)}" if missing else "complete")

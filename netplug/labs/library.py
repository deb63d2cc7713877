"""Where labs are found: the shipped course, folders, topology files."""

from __future__ import annotations

import os
from pathlib import Path

from netplug.errors import NotFound
from netplug.fixtures.load import SHIPPED
from netplug.fixtures.load import names as topology_names
from netplug.fixtures.schema import did_you_mean
from netplug.labs.format import FILE, Lab, read_lab
from netplug.labs.session import Session

COURSE = Path(__file__).parent / "course"


def shipped() -> list[Path]:
    """The folders of the course, in its order."""
    return sorted(path.parent for path in COURSE.glob(f"*/{FILE}"))


def find_lab(text: str) -> Path:
    """A lab's folder or a topology's file: by path, by name, by the number of a shipped one.

    Raises NotFound with the nearest name.
    """
    folders = shipped()
    for folder in folders:
        number, _, rest = folder.name.partition("-")
        if text in (folder.name, rest) or (text.isdigit() and number.lstrip("0") == text):
            return folder
    if os.path.exists(text):  # False, too, for what may not be seen
        return Path(text).absolute()
    if text in topology_names():
        return SHIPPED / f"{text}.yaml"
    names = [folder.name.partition("-")[2] for folder in folders]
    hint = did_you_mean(text, [*names, *topology_names()])
    raise NotFound(f"there is no lab {text}", "neither a shipped one nor a file", hint)


def lab_of(session: Session) -> Lab:
    """The lab as it was started."""
    return read_lab(Path(session.source), seed=session.seed)


def is_shipped(path: Path) -> bool:
    return path.is_relative_to(COURSE) or path.is_relative_to(SHIPPED)

"""A running lab as files: who holds it, what was answered, which hints were taken.

A folder for each lab below the user's runtime folder. It is gone when the lab stops, and
swept at the next start when the lab's process was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netplug.errors import Conflict, NotFound, PermissionRefused
from netplug.kernel.namespaces import boot_id
from netplug.kernel.sandbox import end_sandbox
from netplug.labs.furnish import SESSION

RECORD, PROGRESS, STARTER = "session.json", "progress.json", "starter"
ENVIRONMENT = "NETPLUG_LAB"


@dataclass(slots=True)
class Progress:
    """What the student did so far. `reached` are the steps that were passed once, by time."""

    started: float = field(default_factory=time.time)
    reached: dict[str, float] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    resets: list[str] = field(default_factory=list)
    checks: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A lab that runs: `folder` holds its files, `pid` its namespaces."""

    folder: Path
    name: str
    source: str  # the lab's folder, or a topology file
    seed: int
    pid: int
    born: int  # start time of the process in clock ticks: process numbers come again
    boot: str
    student: str = ""

    @property
    def inside(self) -> bool:
        """Are we a process of the lab's sandbox?"""
        return self.folder == SESSION

    @property
    def running(self) -> bool:
        if self.inside:
            return True
        return self.boot == boot_id() and birth(self.pid) == self.born

    def read_progress(self) -> Progress:
        try:
            return Progress(**json.loads((self.folder / PROGRESS).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return Progress()

    def write_progress(self, progress: Progress) -> None:
        write_file(self.folder / PROGRESS, json.dumps(asdict(progress), indent=1))


def birth(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def write_file(path: Path, text: str) -> None:
    """Whole or not at all: a file beside it takes its place."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def sessions_folder() -> Path:
    """Where this user's running labs are kept; it may not be there. Raises PermissionRefused."""
    uid = os.geteuid()
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    if uid == 0:
        folder = Path("/run/netplug/labs")
    elif os.access(runtime, os.W_OK | os.X_OK):
        folder = runtime / "netplug-labs"
    else:
        folder = Path(f"/tmp/netplug-labs-{uid}")
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return folder
    if status.st_uid != uid or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise PermissionRefused(
            f"{folder} cannot be used",
            "it belongs to somebody else, or others may write to it",
            "remove it, or set XDG_RUNTIME_DIR",
        )
    return folder


@contextmanager
def new_folder(name: str) -> Iterator[Path]:
    """The folder of a lab about to start; gone when the block fails. Raises Conflict."""
    sweep()
    sessions_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = sessions_folder() / name  # which looks whose it is
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise Conflict(
            f"lab {name} runs already", "", f"go on with it, or run: netplug lab stop {name}"
        ) from None
    (folder / STARTER).write_text(f"{os.getpid()} {birth(os.getpid())}")
    try:
        yield folder
    except BaseException:
        _remove(folder)
        raise


def write_session(session: Session) -> None:
    values = asdict(session) | {"folder": str(session.folder)}
    write_file(session.folder / RECORD, json.dumps(values))


def read_session(folder: Path) -> Session | None:
    try:
        values: dict[str, Any] = json.loads((folder / RECORD).read_text())
        return Session(**values | {"folder": folder})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def sessions() -> list[Session]:
    """The labs of this user that run; inside a lab, that one."""
    if os.environ.get(ENVIRONMENT) and (own := read_session(SESSION)):
        return [own]
    found = (read_session(folder) for folder in _folders())
    return [session for session in found if session and session.running]


def sweep() -> None:
    """Removes the folders of labs whose process has ended, and those of starts that were killed."""
    for folder in _folders():
        session = read_session(folder)
        if not (session.running if session else _is_starting(folder)):
            _remove(folder)


def _folders() -> list[Path]:
    folder = sessions_folder()
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_starting(folder: Path) -> bool:
    try:
        pid, born = (folder / STARTER).read_text().split()
    except (OSError, ValueError):
        return False
    return str(birth(int(pid))) == born


def end_session(session: Session) -> None:
    """Ends every process of the lab; the kernel takes its networks and files with them."""
    end_sandbox(session.pid)
    _remove(session.folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:  # another lab runs
        pass


def find_session(name: str | None, *, running: Sequence[Session] | None = None) -> Session:
    """The lab of this name that runs, or the only one. Raises NotFound."""
    found = sessions() if running is None else list(running)
    names = ", ".join(session.name for session in found)
    if name is None:
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound("no lab runs", "", "see: netplug lab list; then: netplug lab start LAB")
        raise NotFound("several labs run", names, "name one with --lab")
    for session in found:
        if name in (session.name, session.name.partition("-")[0]):
            return session
    why = f"there runs: {names}" if names else "none runs"
    raise NotFound(f"lab {name} does not run", why, f"run: netplug lab start {name}")

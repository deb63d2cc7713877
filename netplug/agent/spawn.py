"""A new agent process, in the background: it keeps nothing of whoever starts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO


def agent_command(socket: str | Path, folder: str | Path) -> list[str]:
    return [sys.executable, "-I", "-m", "netplug.agent", str(socket), str(folder)]


def spawn(
    command: list[str],
    output: int | IO[bytes] = subprocess.DEVNULL,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A session of its own, stdin on /dev/null, every descriptor above 2 closed, cwd /."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environ,
        start_new_session=True,
        cwd="/",
    )

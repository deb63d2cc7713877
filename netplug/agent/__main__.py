"""`python -m netplug.agent SOCKET FOLDER`: the agent in this process, logging to stderr."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from netplug.agent import logs
from netplug.agent.server import serve_forever
from netplug.errors import NetplugError
from netplug.overlay.settings import DEFAULT_FILE


def main() -> int:
    parser = argparse.ArgumentParser(prog="netplug.agent", description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("config", type=Path, nargs="?", default=DEFAULT_FILE)
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text")
    given = parser.parse_args()
    logs.configure(given.log_format)
    try:
        serve_forever(given.socket, given.folder, given.config)
    except NetplugError as error:  # another agent runs already, for one
        logs.event("not started", why=error)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m netplug.agent SOCKET FOLDER`: the agent in this process, logging to stderr."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from netplug.agent.server import serve_forever


def main() -> None:
    socket, folder = sys.argv[1:]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(message)s"
    )
    serve_forever(Path(socket), Path(folder))


if __name__ == "__main__":
    main()

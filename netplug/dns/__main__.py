"""`python -m netplug.dns SOCKET FOLDER`: the name server in this process, logging to stderr."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from netplug.agent.server import listen
from netplug.dns.control import Control
from netplug.dns.server import RESOLV_CONF, NameServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m netplug.dns", description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolv-conf", type=Path, default=RESOLV_CONF)
    parser.add_argument(
        "--detach", action="store_true", help="go on in the background once it answers"
    )
    parser.add_argument("--while-used", action="store_true", help="end when no container has names")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if words.detach:
        return detach(words)
    serve(words, lambda: None)
    return 0


def detach(words: argparse.Namespace) -> int:
    """0 once a child answers, which nobody needs to wait for; 1 where it ended before."""
    ear, mouth = os.pipe()
    if os.fork():
        os.close(mouth)
        return 0 if os.read(ear, 1) else 1
    os.close(ear)
    os.setsid()
    try:
        serve(words, lambda: os.write(mouth, b"+"))
    finally:
        os._exit(0)


def serve(words: argparse.Namespace, ready: Callable[[], object]) -> None:
    """Answers until SIGTERM, SIGINT or `stop`. Raises Conflict where another one does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets for each place
    path: Path = words.socket
    listener = listen(path)
    inode = path.stat().st_ino
    server = NameServer(words.folder, words.resolv_conf, while_used=words.while_used)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.loop.stop())
    signal.set_wakeup_fd(server.loop.waker())
    server.start()  # before the first caller is answered: it then finds all names there
    control = Control(server, listener)
    gc.freeze()
    ready()
    try:
        server.loop.run()
    finally:
        control.close()
        listener.close()
        server.close()
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())

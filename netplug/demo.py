"""`./run demo`: the main job, shown on this machine without touching it.

Runs in a network namespace of its own (tests/sandbox.sh), which plays the host.
Every line after a `$` is a real command, executed as shown.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from netplug.cli.app import app
from netplug.dns import service
from netplug.errors import NetplugError
from netplug.fixtures import build, parse_topology
from netplug.host import Host, default_run_folder
from netplug.kernel import namespaces
from netplug.state import State

PATIENCE = 10.0  # seconds for the name server to end
TOPOLOGY = {"about": "Two machines without any cable.", "hosts": {"web": [], "db": []}}


def main() -> int:
    if namespaces.identity(namespaces.own_namespace()) == _init_namespace():
        print("the demo wants a network namespace of its own; run: ./run demo", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    before = _inventory()
    _title("Two network namespaces, without any cable")
    with build(parse_topology(TOPOLOGY, name="demo"), names="") as lab:
        _run("ip", "netns", "list")
        _title("A network, and both namespaces on it")
        _netplug("network", "create", "lan", "--subnet", "10.89.7.0/24", "--private")
        _netplug("connect", "web", "lan", "--publish", "8080:80")
        _netplug("connect", "db", "lan")
        _netplug("ps")
        _title("They find each other by name")
        _run("cat", "/etc/netns/db/resolv.conf")
        _run("ip", "netns", "exec", "db", "getent", "hosts", "web")
        _run("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "2", "db")
        _netplug("dns", "query", "web", "--from", "db")
        _title("The published port answers on the host")
        _serve(lambda: lab.in_node("web", _make_server))
        _title("What was made")
        _netplug("graph")
        _title("The same by hand, for one more container: netplug connect --dry-run")
        _show_commands()
        _title("Everything removed again")
        _netplug("disconnect", "web", "lan")
        _netplug("disconnect", "db", "lan")
        _netplug("network", "rm", "lan")
    return _prove(before)


def _init_namespace() -> tuple[int, int]:
    """Identity of process 1's network namespace; our own where that cannot be seen."""
    try:
        fd = namespaces.open_namespace("/proc/1/ns/net")
    except NetplugError:
        return (0, 0)
    if fd is None:
        return (0, 0)
    found = namespaces.identity(fd)
    namespaces.close(fd)
    return found


def _title(text: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def _netplug(*words: str) -> None:
    print(f"$ netplug {' '.join(words)}", flush=True)
    app(words, prog_name="netplug", standalone_mode=False)


def _run(*words: str) -> None:
    print(f"$ {' '.join(words)}", flush=True)
    subprocess.run(words, check=True)


def _make_server() -> http.server.HTTPServer:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"hello from web to {self.client_address[0]}\n".encode())

        def log_message(self, *words: object) -> None:
            return

    return http.server.HTTPServer(("0.0.0.0", 80), Hello)


def _serve(make_server: Callable[[], http.server.HTTPServer]) -> None:
    """One request from the host to the published port; the server's socket lives in `web`."""
    server = make_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        print("$ curl http://127.0.0.1:8080/")
        with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=5) as answer:
            print(answer.read().decode(), end="")
    finally:
        server.shutdown()
        server.server_close()


def _show_commands() -> None:
    """The dry run of another attachment; what is there already it shows as comments."""
    _netplug("connect", "db", "lan", "--ifname", "eth1", "--publish", "8081:80", "--dry-run")


def _state_folder() -> Path:
    return Path(os.environ["NETPLUG_STATE"])


def _inventory() -> dict[str, str]:
    """What could be left behind, as text to compare."""
    found = {}
    for words in (
        ["ip", "-o", "link"],
        ["ip", "-o", "address"],
        ["ip", "route"],
        ["ip", "netns", "list"],
        ["nft", "list", "ruleset"],
    ):
        found[" ".join(words)] = subprocess.run(
            words, check=True, capture_output=True, text=True
        ).stdout
    found["resolver files"] = "\n".join(map(str, Path("/etc/netns").glob("*/*")))
    found["name server"] = str(service.read_status(default_run_folder()) or "")
    folder = _state_folder()
    found["records"] = ""
    if (folder / "state.db").exists():
        state = State(folder)
        with Host() as host:
            found["records"] = "\n".join(record.owner for record in state.records(host.id))
        state.close()
    return found


def _prove(before: dict[str, str]) -> int:
    deadline = time.monotonic() + PATIENCE
    while service.read_status(default_run_folder()) and time.monotonic() < deadline:
        time.sleep(0.05)  # it ends a second after the last container has left
    after = _inventory()
    changed = [name for name in before if before[name] != after[name]]
    for name in changed:
        print(f"left behind, by {name}:\n{after[name]}", file=sys.stderr)
    if not changed:
        print(f"\nnothing is left (compared: {', '.join(before)})")
    return 1 if changed else 0


if __name__ == "__main__":
    os.environ.setdefault("NETPLUG_STATE", "/run/netplug/demo")
    try:
        sys.exit(main())
    except NetplugError as error:
        sys.exit(f"error: {error}")

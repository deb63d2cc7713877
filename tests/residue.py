"""What a test could leave behind: everything of the sandbox that netplug can change."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

FOLDERS = ("/run", "/var/lib/netplug", "/var/lib/cni", "/etc/cni", "/etc/netplug", "/etc/netns")
DATABASE = "/var/lib/netplug/state.db"
SANDBOX = ("/run/.sandbox", "/run/tmp")  # made by sandbox.sh for itself, and for tmp_path
KEPT_FILES = {
    "/run/xtables.lock",
    "/var/lib/netplug/lock",
    "/run/netplug/lock",
    *(DATABASE + tail for tail in ("", "-wal", "-shm")),
}
TABLES = {"records", "usage", "ports", "leases"}  # others say nothing about an attachment
WATCHED_DESCRIPTORS = ("socket:", "net:", "/run/", "/var/lib/")


@dataclass(frozen=True, slots=True)
class Snapshot:
    links: frozenset[str]
    routes: frozenset[str]
    rules: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    rows: frozenset[str]
    processes: frozenset[str]
    descriptors: frozenset[str]

    def added(self, later: Snapshot) -> list[str]:
        """One line, with its kind, for each thing that `later` has and this one has not."""
        return [
            f"{field.name}: {thing}"
            for field in fields(self)
            for thing in sorted(getattr(later, field.name) - getattr(self, field.name))
        ]


def take_snapshot() -> Snapshot:
    return Snapshot(
        links=frozenset(name for _, name in socket.if_nameindex()),
        routes=_lines("/proc/net/route") | _lines("/proc/net/ipv6_route"),
        rules=_firewall_rules(),
        mounts=frozenset(line.split()[4] for line in _lines("/proc/self/mountinfo")),
        files=_files(),
        rows=_rows(),
        processes=_processes(),
        descriptors=_descriptors(),
    )


def _lines(path: str) -> frozenset[str]:
    return frozenset(Path(path).read_text(errors="surrogateescape").splitlines())


def _firewall_rules() -> frozenset[str]:
    """nftables (which shows iptables-nft as well), and what the legacy tables hold."""
    rules = {f"nft: {line}" for line in _output("nft", "list", "ruleset") if line != "}"}
    for family, names in (("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")):
        try:
            loaded = Path(f"/proc/net/{names}").read_text().split()
        except FileNotFoundError:  # no such module
            continue
        except PermissionError:  # a user namespace may not read it
            loaded = ["filter", "nat"]
        for table in loaded:
            for line in _output(f"{family}-legacy-save", "-t", table):
                # a built-in chain has a policy and stays; one of ours has "-" for it
                if line.startswith("-A") or (line.startswith(":") and line.split()[1] == "-"):
                    rules.add(f"{family} {table}: {line.partition(' [')[0]}")
    return frozenset(rules)


def _output(*command: str) -> list[str]:
    if not shutil.which(command[0]):
        return []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _files() -> frozenset[str]:
    return frozenset(
        path
        for root in FOLDERS
        for folder, folders, names in os.walk(root)
        for path in (f"{folder}/{name}" for name in [*folders, *names])
        if path not in KEPT_FILES and not path.startswith(SANDBOX)
    )


def _rows() -> frozenset[str]:
    """How many rows each table of the real database has: the file stays, its rows must not."""
    if not os.path.exists(DATABASE):
        return frozenset()
    with closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return frozenset(
            f"{count} in table {table}"
            for (table,) in tables.fetchall()
            if table in TABLES
            for (count,) in database.execute(f'SELECT count(*) FROM "{table}"')
            if count
        )


def _processes() -> frozenset[str]:
    """Children of ours, and daemons that still see our mounts."""
    ours = os.readlink("/proc/self/ns/mnt")
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
            name, _, rest = status.partition(" (")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            if parent == str(os.getpid()) or os.readlink(f"/proc/{pid}/ns/mnt") == ours:
                found.add(f"{pid} {name}{' (not waited for)' if state == 'Z' else ''}")
        except OSError:
            continue
    return frozenset(found)


def _descriptors() -> frozenset[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed the folder
            continue
        if target.startswith(WATCHED_DESCRIPTORS) and not target.startswith(SANDBOX):
            found.add(f"{number} -> {target}")
    return frozenset(found)

"""The child process: born in the namespace, does one request on its legacy tables, ends.

stdin: {"verb", "lockfile", "patience", ...}; stdout: {"result"} or {"error", "what", ...}.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netplug.codec import decode
from netplug.errors import Busy, KernelRefused, NetplugError
from netplug.firewall import intent as intents
from netplug.firewall.intent import Accept, Base, Intent, Subnet
from netplug.firewall.iptables.changes import (
    Tables,
    choose_forward,
    compare,
    demolish,
    ensure,
    read_owners,
    refuse_overlap,
    withdraw,
)
from netplug.firewall.iptables.rules import (
    Ruleset,
    compute_legacy_accept,
    compute_ruleset,
    owner_comment,
)
from netplug.firewall.iptables.tables import load_library

NAMESPACE = "/proc/self/ns/net"
ATTEMPTS = 5  # for commits that the kernel refuses because the table has changed meanwhile
READING = {"present", "owners", "legacy_present"}  # the kernel gives a table as a whole


@contextmanager
def locked(path: str, patience: float) -> Iterator[None]:
    """Holds the lock that `iptables -w` takes. Raises Busy after `patience` seconds.

    Where that file cannot be opened (somebody else's /run, a read-only one) no iptables could
    lock it either; then the namespace itself is the lock, so that netplug does not race itself.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        path = NAMESPACE
        fd = os.open(path, flags)

    def give_up(*_: object) -> None:
        raise Busy(
            "the legacy tables are locked",
            f"another process held {path} for {patience:g} s",
            f"see who with `fuser -v {path}`, then try again",
        )

    try:
        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, max(patience, 0.001))
        fcntl.flock(fd, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, 0)
        yield
    finally:
        os.close(fd)


def compute(tables: Tables, request: dict[str, Any]) -> Ruleset:
    """The ruleset that a request is about, with its accepts where they belong on this host."""
    if request["verb"].startswith("legacy_"):
        accept = Accept(request["bridge"], request["family"], request["forward"])
        ruleset = compute_legacy_accept(accept)
        forward = choose_forward(tables, accept.family, ruleset.comment)
        return compute_legacy_accept(accept, forward=forward)
    intent = parse_intent(request)
    ruleset = compute_ruleset(intent)
    if isinstance(intent, Accept):
        forward = choose_forward(tables, intent.family, ruleset.comment)
        return compute_ruleset(intent, forward=forward)
    return ruleset


def parse_intent(request: dict[str, Any]) -> Intent:
    return decode(getattr(intents, request["kind"]), request["intent"])  # type: ignore[no-any-return]


def answer(tables: Tables, request: dict[str, Any]) -> Any:
    """The result of one request, which has the lock if it needs one."""
    match request["verb"]:
        case "present" | "legacy_present":
            return compare(tables, compute(tables, request))
        case "apply":
            intent = parse_intent(request)
            if isinstance(intent, Subnet):
                refuse_overlap(tables, intent)
            return ensure(tables, compute(tables, request))
        case "legacy_apply":
            return ensure(tables, compute(tables, request))
        case "undo":
            intent = parse_intent(request)
            ruleset = compute_ruleset(intent)
            if isinstance(intent, Base):
                return demolish(tables, ruleset.family)
            return withdraw(tables, ruleset.family, ruleset.comment)
        case "legacy_undo":
            ruleset = compute_legacy_accept(Accept(request["bridge"], request["family"]))
            return withdraw(tables, ruleset.family, ruleset.comment)
        case "remove_owned":
            comment = owner_comment(request["owner"])
            return sum(withdraw(tables, family, comment) for family in (4, 6))
        case "owners":
            return read_owners(tables)
        case verb:
            raise ValueError(f"no such verb: {verb}")


def serve(request: dict[str, Any]) -> Any:
    """The result of one request. Raises NetplugError."""
    tables = Tables(load_library())
    if request["verb"] in READING:
        return answer(tables, request)
    with locked(request["lockfile"], request["patience"]):
        for _ in range(ATTEMPTS - 1):
            try:
                return answer(tables, request)
            except KernelRefused as error:
                # someone without the lock changed the table between our read and our commit
                if "temporarily unavailable" not in error.why:
                    raise
                tables.refresh()
        return answer(tables, request)


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # libxtables may print; the answer stays alone in its place
    try:
        reply = {"result": serve(json.load(sys.stdin))}
    except NetplugError as error:
        reply = {"error": type(error).__name__, "what": error.what, "why": error.why}
        reply |= {"hint": error.hint, "errno": getattr(error, "errno", 0)}
    with os.fdopen(out, "w") as stream:
        json.dump(reply, stream)
    sys.stderr.flush()
    os._exit(0)  # not through python-iptables' destructors

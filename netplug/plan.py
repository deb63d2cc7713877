"""The one description of every action: an ordered list of kernel objects.

ADD applies it, CHECK compares it, DEL removes it, `repair` restores what is
missing, `--dry-run` prints it.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from netplug.codec import decode, encode
from netplug.errors import NetplugError
from netplug.firewall import intent as intents
from netplug.kernel import Kernel
from netplug.model import Place
from netplug.resources import Resource, Shell
from netplug.resources.addresses import Addresses, Routes, Sysctl
from netplug.resources.links import Bridge, Veth
from netplug.resources.rules import Rules
from netplug.resources.shaping import Shaping
from netplug.resources.upper import Moved, Upper

SCHEMA = 1
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Bridge, Veth, Upper, Moved, Addresses, Routes, Sysctl, Rules, Shaping)
}
# What a node has and no container: imported when a stored plan names it.
LATE = {
    "Vxlan": "tunnels",
    "PeerSet": "tunnels",
    "TunnelGuard": "tunnelguard",
    "Wireguard": "wireguard",
    "WireguardPeers": "wireguard",
}
INTENTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        intents.Base,
        intents.BridgePolicy,
        intents.Subnet,
        intents.Accept,
        intents.Publish,
        intents.SpoofGuard,
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Resources in the order of their making."""

    steps: tuple[Resource, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.steps + other.steps)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def keys(self) -> dict[str, Resource]:
        """Shared resources by key."""
        return {step.key: step for step in self.steps if step.key is not None}


@dataclass(frozen=True, slots=True)
class Difference:
    """One resource that the kernel lacks (`absent`) or holds otherwise."""

    index: int
    resource: Resource
    words: str
    absent: bool

    def __str__(self) -> str:
        return f"{self.resource.describe()}: {self.words}"


class Sharing(Protocol):
    """Who may make and unmake a shared resource; see `state.Usage`."""

    def hold(self, key: str) -> AbstractContextManager[None]:
        """Locks the key for one step."""

    def claimed(self, key: str) -> bool:
        """Is it known to be ours already?"""

    def claim(self, key: str) -> None:
        """Said under `hold`, before a step that finds the resource absent: it is ours now."""

    def leave(self) -> None:
        """Said before anything is undone: this plan needs its shared resources no longer."""

    def may_undo(self, key: str) -> bool:
        """Said under `hold`, after `leave`: made by us, and no other record uses it."""


class Unshared:
    """A plan that nobody else shares: tests, labs, a fresh namespace."""

    def hold(self, key: str) -> AbstractContextManager[None]:
        return nullcontext()

    def claimed(self, key: str) -> bool:
        return True

    def claim(self, key: str) -> None:
        return None

    def leave(self) -> None:
        return None

    def may_undo(self, key: str) -> bool:
        return True


def add(kernel: Kernel, plan: Plan, sharing: Sharing | None = None) -> tuple[Resource, ...]:
    """Applies every step in order; the steps that were absent before.

    A failure undoes what was begun, in reverse, and is raised again.
    """
    sharing = sharing or Unshared()
    begun: list[Resource] = []
    try:
        return apply_each(kernel, plan, sharing, begun)
    except BaseException:
        # What was there before stays: only shared steps can have been, and `may_undo` knows.
        remove(kernel, Plan(tuple(begun)), sharing)
        raise


def apply_each(
    kernel: Kernel, plan: Plan, sharing: Sharing, begun: list[Resource] | None = None
) -> tuple[Resource, ...]:
    """`add` for whoever undoes a failure himself; `begun` gets every step before it is applied,
    for half a step is undone as well."""
    made: list[Resource] = []
    for step in plan:
        if begun is not None:
            begun.append(step)
        if apply(kernel, step, sharing):
            made.append(step)
    return tuple(made)


def apply(kernel: Kernel, step: Resource, sharing: Sharing) -> bool:
    """Applies one step, a shared one under its lock; whether it was absent."""
    if step.key is None:
        return step.apply(kernel)
    with sharing.hold(step.key):
        if not sharing.claimed(step.key) and step.present(kernel) is None:
            sharing.claim(step.key)
        return step.apply(kernel)


def remove(kernel: Kernel, plan: Plan, sharing: Sharing | None = None) -> list[NetplugError]:
    """Undoes every step in reverse; goes on after errors and returns them."""
    sharing = sharing or Unshared()
    sharing.leave()
    ends = {end for step in plan if (end := _end(step)) is not None}
    errors: list[NetplugError] = []
    for step in reversed(plan.steps):
        try:
            if step.key is None:
                if not _goes_with(step, ends):
                    step.undo(kernel)
                continue
            with sharing.hold(step.key):
                if sharing.may_undo(step.key):
                    step.undo(kernel)
        except NetplugError as error:
            errors.append(error)
    return errors


def _end(step: Resource) -> tuple[Place, str] | None:
    """The link that goes with the step, and all that it carries."""
    if isinstance(step, Veth):
        return step.peer_place, step.ifname
    if isinstance(step, Upper) and step.key is None:
        return step.place, step.ifname
    return ("sandbox", step.ifname) if isinstance(step, Moved) else None


def _goes_with(step: Resource, ends: set[tuple[Place, str]]) -> bool:
    """Does it vanish with a link of the plan? Where that link was never made, a link of this
    name is somebody else's, and its addresses and routes stay."""
    return isinstance(step, Addresses | Routes) and (step.place, step.device) in ends


def check(kernel: Kernel, plan: Plan) -> list[Difference]:
    """What is absent or differs, in the plan's order."""
    found: list[Difference] = []
    for index, step in enumerate(plan):
        words = step.present(kernel)
        if words != "":
            found.append(Difference(index, step, words or "missing", words is None))
    return found


@functools.lru_cache(4096)
def identity(step: Any) -> str:
    """Text in which two users of one key must agree; fields named in `loose` do not count."""
    loose = getattr(step, "loose", ())
    values = {k: v for k, v in _encode(step).items() if k not in loose}
    return json.dumps(values, sort_keys=True)


def to_shell(plan: Plan, shell: Shell) -> list[str]:
    """The commands one would type to get the same."""
    return [line for step in plan for line in step.shell(shell)]


def to_json(plan: Plan) -> str:
    """The plan as it is stored with a record."""
    return f'{{"schema": {SCHEMA}, "steps": [{", ".join(_text(step) for step in plan)}]}}'


@functools.lru_cache(4096)
def _text(step: Any) -> str:
    """Most steps are the same for all containers of a network: an agent renders them once."""
    return json.dumps(_encode(step))


def from_json(data: dict[str, Any]) -> Plan:
    """The inverse of `to_json`; steps of a kind that this version does not know are left out.

    A record of a newer netplug must not block DEL: what is known is still undone,
    and `find_owned` sweeps the rest by its marks.
    """
    steps = (_decode(item) for item in data.get("steps", ()))
    return Plan(tuple(step for step in steps if step is not None))


def _encode(step: Resource) -> dict[str, Any]:
    data: dict[str, Any] = {"type": type(step).__name__, **encode(step)}
    if isinstance(step, Rules):
        data["intent"] = {"type": type(step.intent).__name__, **encode(step.intent)}
    return data


def _kind_of(name: str) -> type[Any] | None:
    if name in LATE:
        module = importlib.import_module(f"netplug.resources.{LATE[name]}")
        kind: type[Any] = getattr(module, name)
        return kind
    return KINDS.get(name)


def _decode(item: dict[str, Any]) -> Resource | None:
    kind = _kind_of(item.get("type", ""))
    if kind is None:
        return None
    if kind is Rules:
        inner = INTENTS.get(item["intent"].get("type", ""))
        return Rules(item["backend"], decode(inner, item["intent"])) if inner else None
    return decode(kind, item)  # type: ignore[no-any-return]

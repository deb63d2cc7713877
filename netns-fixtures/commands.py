"""Commands that set up a node, read for what they do: `ip addr`, `ip route` and a few more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network

from netplug.fixtures.topology import StaticRoute
from netplug.model import IPInterface

ADD = ("add", "a", "append", "replace", "change")
OBJECTS = {
    "addr": ("address", "addr", "a"),
    "route": ("route", "ro", "r"),
    "link": ("link", "l"),
}
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding")


@dataclass(slots=True)
class InterfaceFacts:
    addresses: list[IPInterface] = field(default_factory=list)
    mac: str = ""
    mtu: int = 0
    up: bool = True


@dataclass(slots=True)
class NodeFacts:
    """What the commands of one node add up to; `forwards` is None where none says it."""

    interfaces: dict[str, InterfaceFacts] = field(default_factory=dict)
    routes: list[StaticRoute] = field(default_factory=list)
    forwards: bool | None = None
    nat: str | None = None

    def interface(self, name: str) -> InterfaceFacts:
        return self.interfaces.setdefault(name, InterfaceFacts())

    def set_sysctl(self, key: str, value: str) -> bool:
        """Does it say something that a topology holds?"""
        if key.replace("/", ".") not in FORWARDING:
            return False
        self.forwards = self.forwards or value.strip() == "1"
        return True


def read_command(command: str, facts: NodeFacts) -> list[str]:
    """Adds what a command does to `facts`; in words what could not be read."""
    try:
        parts = list(_split(command))
    except ValueError as error:
        return [f"`{command}` is left out: {error}"]
    found = []
    for words in parts:
        try:
            known = _read(words, facts)
        except (ValueError, IndexError):
            known = False
        if not known:
            found.append(f"`{shlex.join(words)}` is left out")
    return found


def _split(command: str) -> Iterator[list[str]]:
    """The commands of a line; those in `sh -c '...'` too."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in (";", "&&"):
            words.append(word)
            continue
        if len(words) > 2 and words[0].rsplit("/", 1)[-1] in ("sh", "bash", "ash"):
            flag = words[1]
            if flag.startswith("-") and flag.endswith("c") and len(words) == 3:
                yield from _split(words[2])
                words = []
                continue
        if words:
            yield words
        words = []


def _read(words: Sequence[str], facts: NodeFacts) -> bool:
    program = words[0].rsplit("/", 1)[-1]
    if program == "ip":
        return _read_ip([word for word in words[1:] if word not in ("-4", "-6")], facts)
    if program == "sysctl":
        settings = [word for word in words[1:] if not word.startswith("-")]
        return bool(settings) and all(
            "=" in word and facts.set_sysctl(*word.split("=", 1)) for word in settings
        )
    if program == "iptables":
        return _read_masquerade(words[1:], facts)
    return False


def _read_ip(words: Sequence[str], facts: NodeFacts) -> bool:
    kind = next((name for name, forms in OBJECTS.items() if words[0] in forms), "")
    verb, rest = words[1], list(words[2:])
    if kind == "addr" and verb in ADD:
        return _read_address(rest, facts)
    if kind == "route" and verb in ADD:
        return _read_route(rest, facts)
    if kind == "route" and verb in ("del", "delete") and rest[:1] == ["default"]:
        return True  # the one of the management network, which is not here
    if kind == "link" and verb == "set":
        return _read_link(rest, facts)
    return False


def _read_address(rest: list[str], facts: NodeFacts) -> bool:
    device, rest = _take(rest, "dev")
    rest = [word for word in rest if word not in ("nodad", "noprefixroute")]
    for known in ("brd", "broadcast", "scope"):
        _, rest = _take(rest, known, needed=False)
    if not device or len(rest) != 1:
        return False
    address = ip_interface(rest[0])
    if address not in facts.interface(device).addresses:
        facts.interface(device).addresses.append(address)
    return True


def _read_route(rest: list[str], facts: NodeFacts) -> bool:
    via, rest = _take(rest, "via")
    if via == "inet6" and rest:
        via, rest = rest[-1], rest[:-1]
    for known in ("dev", "proto", "metric", "src"):
        _, rest = _take(rest, known, needed=False)
    if not via or len(rest) != 1:
        return False
    gateway = ip_address(via)
    everything = "0.0.0.0/0" if gateway.version == 4 else "::/0"
    destination = ip_network(everything if rest[0] == "default" else rest[0])
    if destination.version != gateway.version:
        return False
    facts.routes = [route for route in facts.routes if route.destination != destination]
    facts.routes.append(StaticRoute(destination, gateway))
    return True


def _read_link(rest: list[str], facts: NodeFacts) -> bool:
    device, rest = _take(rest, "dev", needed=False)
    if not device:
        device, *rest = rest
    while rest:
        word = rest.pop(0)
        if word in ("up", "down"):
            facts.interface(device).up = word == "up"
        elif word == "address" and MAC.fullmatch(rest[0]):
            facts.interface(device).mac = rest.pop(0).lower()
        elif word == "mtu":
            facts.interface(device).mtu = int(rest.pop(0))
        else:
            return False
    return True


def _read_masquerade(rest: Sequence[str], facts: NodeFacts) -> bool:
    device, words = _take(list(rest), "-o")
    known = {"-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"}
    if not device or set(words) != known or facts.nat not in (None, device):
        return False
    facts.nat = device
    return True


def _take(words: list[str], key: str, *, needed: bool = True) -> tuple[str, list[str]]:
    """The word behind `key`, and the words without both; "" where it is not there."""
    if key not in words:
        return "", words
    at = words.index(key)
    return words[at + 1], words[:at] + words[at + 2 :]

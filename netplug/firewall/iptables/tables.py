"""The legacy tables of this process's network namespace, by libiptc (python-iptables).

Only the short-lived child opens tables: python-iptables keeps one cache of them for the whole
process, whatever namespace a thread is in. Rules are compared as the kernel
stores them, without python-iptables' own reader, which forks stdout for every match.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from netplug.errors import KernelRefused, NetplugError, PermissionRefused, UnsupportedError
from netplug.firewall.iptables.rules import PREFIX, Rule, comment_match
from netplug.model import Family

NAMES = ("raw", "nat", "filter")  # the tables that we use, in the order in which we commit
DOCKER_USER = "DOCKER-USER"  # Docker's place for rules of others; it never flushes it
_LIBRARIES = {
    "c": ("libc.so.6",),
    "xtables": ("libxtables.so.12", "libxtables.so.13", "libxtables.so.11", "libxtables.so.10"),
    "ip4tc": ("libip4tc.so.2", "libip4tc.so.0"),
    "ip6tc": ("libip6tc.so.2", "libip6tc.so.0"),
}
# struct xt_entry_match and xt_entry_target: u16 size, char name[29], u8 revision, data
_EXTENSION = struct.Struct("=H29sB")
_IFNAMSIZ = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule as the kernel keeps it. `condition` is all that decides whether it matches."""

    condition: tuple[bytes, ...]
    comment: str
    target: str
    data: bytes  # of the target; verdicts and jumps have none


def read_active_tables(family: Family) -> set[str]:
    """Names of the legacy tables that the calling thread's namespace has; reading makes none."""
    path = f"/proc/thread-self/net/ip{'' if family == 4 else '6'}_tables_names"
    try:
        with open(path, encoding="ascii") as names:
            return set(names.read().split())
    except FileNotFoundError:
        return set()
    except PermissionError:  # a namespace older than its user's uid_map belongs to nobody
        return set(NAMES)


def load_library() -> ModuleType:
    """python-iptables. Raises UnsupportedError where it or its C libraries are missing."""
    find, distutils = ctypes.util.find_library, sys.modules.get("distutils")
    ctypes.util.find_library = _find_library
    # It prefers distutils to sysconfig: 200 ms where setuptools brings it, for one path.
    sys.modules["distutils"] = None  # type: ignore[assignment]
    try:
        import iptc
    except Exception as error:  # a library that is not there shows as any of five types
        raise UnsupportedError(
            "the iptables firewall backend cannot start",
            f"python-iptables cannot be loaded: {error}",
            "install python-iptables and the iptables package (libxtables, libip4tc, libip6tc), "
            'or choose "firewall": "nft"',
        ) from error
    finally:
        ctypes.util.find_library = find
        del sys.modules["distutils"]
        if distutils is not None:
            sys.modules["distutils"] = distutils
    return iptc  # type: ignore[no-any-return]


def _find_library(name: str) -> str | None:
    """As ctypes' own, which runs ldconfig, gcc and ld (100 ms); by the names that exist."""
    for soname in _LIBRARIES.get(name, ()):
        try:
            ctypes.CDLL(soname)
        except OSError:
            continue
        return soname
    return None


class LegacyTable:
    """A copy of one table; `commit` puts all changes into the kernel at once, or none."""

    def __init__(self, library: ModuleType, family: Family, name: str) -> None:
        self.family = family
        self.name = name
        self.dirty = False
        self._iptc = library
        self._built: dict[tuple[Rule, str], tuple[Any, Entry]] = {}
        kind = library.Table if family == 4 else library.Table6
        # For each jump it looks through every table, and would load those that are not in use.
        for other in kind.ALL:
            kind.existing_table_names.setdefault(other, False)
        kind.existing_table_names[name] = True
        try:
            self._table: Any = kind(name, autocommit=False)
        except library.IPTCError as error:
            raise self._refused("cannot be read", error) from error

    @cached_property
    def _calls(self) -> Any:
        module = self._iptc.ip4tc if self.family == 4 else self._iptc.ip6tc
        return module.iptc if self.family == 4 else module.ip6tc

    def refresh(self) -> None:
        """Forgets what was not committed and reads the kernel again."""
        self._table.refresh()
        self.dirty = False

    def commit(self) -> None:
        if not self.dirty:
            return
        try:
            self._table.commit()
        except self._iptc.IPTCError as error:
            raise self._refused("cannot be changed", error) from error
        self.refresh()

    def chains(self) -> list[str]:
        return [chain.name for chain in self._table.chains]

    def watched(self) -> list[str]:
        """The chains in which rules of ours may be."""
        return [
            name
            for name in self.chains()
            if name.startswith(PREFIX) or name == DOCKER_USER or self._table.builtin_chain(name)
        ]

    def has_chain(self, name: str) -> bool:
        return bool(self._table.is_chain(name))

    def add_chain(self, name: str) -> None:
        self._table.create_chain(name)
        self.dirty = True

    def remove_chain(self, name: str) -> None:
        """Removes a chain and its rules; nothing may jump to it."""
        self._table.flush_entries(name)
        self._table.delete_chain(name)
        self.dirty = True

    def entries(self, chain: str) -> list[Entry]:
        found = []
        raw = self._table.first_rule(chain)
        while raw:
            target = self._table.get_target(raw)
            found.append(_parse_entry(raw, target.decode() if target else ""))
            raw = self._table.next_rule(raw)
        return found

    def entry(self, rule: Rule, comment: str) -> Entry:
        """The rule as `entries` would read it."""
        return self._build(rule, comment)[1]

    def lacking_chain(self, rule: Rule) -> str | None:
        """The chain without which the rule cannot be; None when it can."""
        needed = (rule.chain, rule.target) if rule.target.startswith(PREFIX) else (rule.chain,)
        return next((chain for chain in needed if not self.has_chain(chain)), None)

    def add(self, rule: Rule, comment: str) -> None:
        if chain := self.lacking_chain(rule):
            raise KernelRefused(
                f"chain {chain} of table {self.name} is missing",
                "somebody removed the chains of netplug",
                "run `netplug repair`",
            )
        raw, _ = self._build(rule, comment)
        try:
            if rule.place == "last":
                self._table.append_entry(rule.chain, raw)
            else:
                self._table.insert_entry(rule.chain, raw, 0)
        except self._iptc.IPTCError as error:
            raise self._refused(f"does not take a rule in {rule.chain}", error) from error
        self.dirty = True

    def remove(self, chain: str, numbers: list[int]) -> None:
        """Removes the rules with these positions (from 0)."""
        for number in sorted(numbers, reverse=True):
            # by position: python-iptables' own way deletes the first rule that looks alike
            if not self._calls.iptc_delete_num_entry(chain.encode(), number, self._table._handle):
                raise KernelRefused(f"rule {number + 1} of {chain} cannot be removed")
            self.dirty = True

    def _build(self, rule: Rule, comment: str) -> tuple[Any, Entry]:
        """The rule as bytes (struct ipt_entry and what follows it), and as `Entry`."""
        if (rule, comment) not in self._built:
            try:
                raw, kind = self._encode(rule, comment)
            except self._iptc.XTablesError as error:
                raise UnsupportedError(
                    f"libxtables does not know this rule of table {self.name}: {rule}",
                    _reason(error),
                    "install the extensions that come with the iptables package",
                ) from error
            self._built[rule, comment] = raw, _parse_entry(kind.from_buffer(raw), rule.target)
        return self._built[rule, comment]

    def _encode(self, rule: Rule, comment: str) -> tuple[Any, Any]:
        made = self._iptc.Rule() if self.family == 4 else self._iptc.Rule6()
        for attribute, value in (
            ("src", rule.source),
            ("dst", rule.destination),
            ("in_interface", rule.inside),
            ("out_interface", rule.outside),
            ("protocol", rule.protocol),
        ):
            if value:
                setattr(made, attribute, value)
        if self.family == 6:
            _repair_interface_masks(made.entry.ipv6, rule)
        for wanted in (*rule.matches, comment_match(comment)):
            match = made.create_match(wanted.name)
            for name, value in wanted.options:
                match.set_parameter(name, value)
        target = made.create_target(rule.target)
        for name, value in rule.options:
            target.set_parameter(name, value)
        made.final_check()  # libxtables completes some extensions only here (MASQUERADE's range)
        return made.rule, type(made.entry)

    def _refused(self, what: str, error: Exception) -> NetplugError:
        why = _reason(error)
        family = "" if self.family == 4 else "6"
        subject = f"ip{family}tables table {self.name}"
        if "Permission denied" in why:
            return PermissionRefused(f"{subject} {what}", why, "run as root")
        if "Table does not exist" in why or "Protocol not available" in why:
            return UnsupportedError(
                f"{subject} is not there",
                "this kernel was built without the legacy tables, or their module is not loaded",
                f'run `modprobe ip{family}table_{self.name}`, or choose "firewall": "nft"',
            )
        return KernelRefused(f"{subject} {what}", why)


def _reason(error: Exception) -> str:
    """python-iptables puts the C library's bytes into its message as they print: b'...'."""
    text = str(error)
    return text.replace("b'", "").rstrip("'")


def _repair_interface_masks(header: Any, rule: Rule) -> None:
    """python-iptables 1.2 masks the bytes of IPv6 interface names with 1 instead of 255.

    The kernel then compares their lowest bits alone: a rule for br0 would match br2.
    """
    for field, value in (("iniface_mask", rule.inside), ("outiface_mask", rule.outside)):
        if value:
            length = len(value.removeprefix("!").encode()) + 1  # and the end of the text
            setattr(header, field, b"\xff" * min(length, _IFNAMSIZ))


def _parse_entry(entry: Any, target: str) -> Entry:
    """From a struct ipt_entry or ip6t_entry with its matches and target behind it."""
    raw = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
    condition = [raw[: type(entry).nfcache.offset]]  # struct ipt_ip, ip6t_ip6
    comment = ""
    for name, revision, data in _matches(raw, type(entry).elems.offset, entry.target_offset):
        if name == b"comment":
            comment = data.partition(b"\0")[0].decode(errors="replace")
        else:
            condition.append(name + bytes([revision]) + data)
    size, name, revision = _EXTENSION.unpack_from(raw, entry.target_offset)
    name = name.partition(b"\0")[0]
    data = raw[entry.target_offset + _EXTENSION.size : entry.target_offset + size]
    # Verdicts and jumps: in the kernel without a name, in a rule just built without data.
    extension = name and any(data)
    return Entry(tuple(condition), comment, target, bytes([revision]) + data if extension else b"")


def _matches(raw: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, bytes]]:
    while start < end:
        size, name, revision = _EXTENSION.unpack_from(raw, start)
        yield name.partition(b"\0")[0], revision, raw[start + _EXTENSION.size : start + size]
        start += size

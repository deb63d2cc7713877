"""The legacy xtables, read as iptables-legacy reads them: does a chain drop by itself?

Asked only where the filter table is loaded, for the very question would load it
(include/uapi/linux/netfilter_ipv4/ip_tables.h and its sibling for IPv6).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from netplug.kernel.namespaces import in_namespace
from netplug.model import Family

INPUT, FORWARD, HOOKS = 1, 2, 5
GET_INFO, GET_ENTRIES = 64, 65  # IPT_SO_GET_* and IP6T_SO_GET_* are the same numbers
INFO = struct.Struct("=32sI5I5III")  # name, valid hooks, entries, underflows, count, size
ENTRIES_HEAD = struct.Struct("=32sI4x")
TARGET = struct.Struct("=H29sB")  # size, name, revision; a standard target's verdict follows
VERDICT_DROP = -1  # -NF_DROP - 1


@dataclass(frozen=True, slots=True)
class _Form:
    names: str
    domain: int
    level: int
    match: int  # bytes of ipt_ip or ip6t_ip6, all zero in a rule without conditions
    entry: int  # bytes of a rule's head


_FORMS: dict[Family, _Form] = {
    4: _Form("ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 84, 112),
    6: _Form("ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 136, 168),
}


def legacy_filter_loaded(fd: int, family: Family) -> bool:
    """Whether the namespace has the legacy filter table at all."""
    return in_namespace(fd, lambda: _loaded(_FORMS[family]))


def _loaded(form: _Form) -> bool:
    try:
        descriptor = os.open(f"/proc/thread-self/net/{form.names}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no xtables in this kernel, or not ours to read
        return False
    try:
        return b"filter" in os.read(descriptor, 4096).split()
    finally:
        os.close(descriptor)


def legacy_drops(fd: int, family: Family, hook: int) -> bool:
    """Whether the legacy chain INPUT or FORWARD drops or rejects what no rule of it accepts."""
    return in_namespace(fd, lambda: _read(_FORMS[family], hook))


def _read(form: _Form, hook: int) -> bool:
    if not _loaded(form):
        return False
    try:
        with socket.socket(form.domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as probe:
            info = _ask(probe, (form.level, GET_INFO), b"filter".ljust(INFO.size, b"\0"))
            fields = INFO.unpack(info)
            question = ENTRIES_HEAD.pack(b"filter", fields[-1]) + bytes(fields[-1])
            answer = _ask(probe, (form.level, GET_ENTRIES), question)
    except OSError:  # not ours to read
        return False
    first, policy = fields[2 + hook], fields[2 + HOOKS + hook]
    return _ends_in_drop(form, answer[ENTRIES_HEAD.size :], first, policy)


def _ends_in_drop(form: _Form, entries: bytes, first: int, policy: int) -> bool:
    """By policy, or by a last rule that is for everything (RHEL's REJECT)."""
    offset = last = first
    while offset < policy:
        last = offset
        offset += struct.unpack_from("=HH", entries, offset + form.match + 4)[1]
    return _drops_all(form, entries, policy) or _drops_all(form, entries, last)


def _drops_all(form: _Form, entries: bytes, offset: int) -> bool:
    target = struct.unpack_from("=H", entries, offset + form.match + 4)[0]
    if target != form.entry or any(entries[offset : offset + form.match]):
        return False  # a rule with matches or addresses
    name = TARGET.unpack_from(entries, offset + target)[1].rstrip(b"\0")
    verdict: int = struct.unpack_from("=i", entries, offset + target + TARGET.size)[0]
    return name == b"REJECT" or (not name and verdict == VERDICT_DROP)


def _ask(probe: socket.socket, option: tuple[int, int], question: bytes) -> bytes:
    """getsockopt(2) that also passes a question in, which Python's own cannot."""
    import ctypes  # late: most hosts have no legacy table to ask

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    if libc.getsockopt(probe.fileno(), *option, buffer, ctypes.byref(length)):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return buffer.raw[: length.value]

"""The old xtables of a host whose firewall is nft: do they drop what containers forward?

Read by getsockopt, as iptables-legacy does, and only when the table is loaded: the very
question would load it (include/uapi/linux/netfilter_ipv4/ip_tables.h).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

from netplug.kernel.namespaces import in_namespace
from netplug.model import Family

FORWARD_HOOK = 2
HOOKS = 5
GET_INFO, GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO and IP6T_SO_GET_INFO are the same number
INFO = struct.Struct("=32sI5I5III")  # name, valid hooks, entries, underflows, number, size
ENTRY_TARGET = {4: 84 + 4, 6: 136 + 4}  # offset of target_offset: after the match and nfcache
VERDICT = 32  # bytes of xt_entry_target before a standard target's verdict
XT_DROP = -1  # -NF_DROP - 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_LOADED = {4: "ip_tables_names", 6: "ip6_tables_names"}
_SOCKET = {4: (socket.AF_INET, socket.IPPROTO_IP), 6: (socket.AF_INET6, socket.IPPROTO_IPV6)}


def legacy_drops(fd: int, family: Family) -> list[str]:
    """Words on the legacy FORWARD chain where its policy is DROP; none where all is well."""
    return in_namespace(fd, lambda: _read_drops(family))


def _read_drops(family: Family) -> list[str]:
    try:
        names = Path("/proc/thread-self/net", _LOADED[family]).read_text().split()
        if "filter" not in names or not _forward_drops(family):
            return []
    except OSError:  # no xtables at all, or not ours to read
        return []
    command = "iptables-legacy" if family == 4 else "ip6tables-legacy"
    return [
        f"chain FORWARD of the legacy {command.removesuffix('-legacy')} drops by policy:"
        f" {command} -P FORWARD ACCEPT, or an accept for the bridges there"
    ]


def _forward_drops(family: Family) -> bool:
    level = _SOCKET[family][1]
    with socket.socket(_SOCKET[family][0], socket.SOCK_RAW, socket.IPPROTO_RAW) as probe:
        info = _ask(probe, (level, GET_INFO), b"filter".ljust(INFO.size, b"\0"))
        fields = INFO.unpack(info)
        policy, size = fields[2 + HOOKS + FORWARD_HOOK], fields[-1]
        head = struct.pack("=32sI4x", b"filter", size)
        entries = _ask(probe, (level, GET_ENTRIES), head + bytes(size))[len(head) :]
    target = policy + int(struct.unpack_from("=H", entries, policy + ENTRY_TARGET[family])[0])
    return bool(struct.unpack_from("=i", entries, target + VERDICT)[0] == XT_DROP)


def _ask(probe: socket.socket, option: tuple[int, int], question: bytes) -> bytes:
    """getsockopt(2) that also passes a question in, which Python's own cannot."""
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    if _LIBC.getsockopt(probe.fileno(), *option, buffer, ctypes.byref(length)):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return buffer.raw[: length.value]

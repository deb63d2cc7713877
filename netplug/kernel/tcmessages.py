"""Traffic control messages: a token bucket, and the redirection of what a link receives.

include/uapi/linux/{pkt_sched,pkt_cls}.h; tc-tbf(8), tc-mirred(8).
"""

from __future__ import annotations

import struct

from netplug.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes,
    nest,
    text,
    unpack_text,
)
from netplug.kernel.rtmessages import Message, u32

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_GETTFILTER = 36, 37, 38, 44, 46
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
ROOT_HANDLE, INGRESS_HANDLE = 0x10000, 0xFFFF0000  # 1: and ffff:
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_CLASSID, TCA_U32_SEL, TCA_U32_ACT = 1, 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1
TICKS = 15.625e6  # the kernel counts bursts in ticks of 64 ns (/proc/net/psched)
UINT32 = 2**32 - 1
EVERY_PROTOCOL = 0x0300  # ETH_P_ALL in network order

_HEADER = struct.Struct("=BxxxiIII")  # tcmsg: family, link, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec
_LIMITS = struct.Struct("=III")  # rest of tc_tbf_qopt: limit, buffer, mtu
_MIRRED = struct.Struct("=IIiiiIi")
ETHERNET = 1  # TC_LINKLAYER_ETHERNET


def _body(index: int, *, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _HEADER.pack(0, index, handle, parent, info)


def set_tbf(index: int, *, rate: int, burst: int, limit: int) -> Message:
    """A token bucket at the root of a link: rate in bytes/s, burst and queue limit in bytes."""
    ticks = min(int(burst / rate * TICKS), UINT32)
    no_peak = bytes(_RATE.size)
    parameters = _RATE.pack(0, ETHERNET, 0, 0, 0, min(rate, UINT32)) + no_peak
    parameters += _LIMITS.pack(limit, ticks, 0)
    options = attribute(TCA_TBF_PARMS, parameters) + u32(TCA_TBF_BURST, burst)
    if rate > UINT32:
        options += attribute(TCA_TBF_RATE64, struct.pack("=Q", rate))
    body = _body(index, handle=ROOT_HANDLE, parent=TC_H_ROOT)
    body += text(TCA_KIND, "tbf") + nest(TCA_OPTIONS, options)
    what = f"the rate of link {index} cannot be limited"
    return Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def new_ingress(index: int) -> Message:
    body = _body(index, handle=INGRESS_HANDLE, parent=TC_H_INGRESS) + text(TCA_KIND, "ingress")
    what = f"ingress of link {index} cannot be redirected"
    return Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, what)


def delete_ingress(index: int) -> Message:
    """Its filters go with it."""
    body = _body(index, handle=INGRESS_HANDLE, parent=TC_H_INGRESS)
    return Message(RTM_DELQDISC, 0, body, f"ingress of link {index} cannot be redirected")


def new_redirect(index: int, target: int) -> Message:
    """Whatever `index` receives is sent to link `target`: a u32 filter that matches all."""
    parameters = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, target)
    action = text(TCA_ACT_KIND, "mirred")
    action += nest(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, parameters))
    everything = struct.pack("=BBBBHHhhI", 1, 0, 1, 0, 0, 0, 0, 0, 0) + bytes(16)
    options = u32(TCA_U32_CLASSID, ROOT_HANDLE) + attribute(TCA_U32_SEL, everything)
    options += nest(TCA_U32_ACT, nest(1, action))
    body = _body(index, parent=INGRESS_HANDLE, info=1 << 16 | EVERY_PROTOCOL)
    body += text(TCA_KIND, "u32") + nest(TCA_OPTIONS, options)
    what = f"ingress of link {index} cannot be redirected"
    return Message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body, what)


def get_qdiscs(index: int) -> Message:
    return Message(RTM_GETQDISC, 0, _body(index), f"queues of link {index} cannot be read")


def get_filters(index: int) -> Message:
    body = _body(index, parent=INGRESS_HANDLE)
    return Message(RTM_GETTFILTER, 0, body, f"filters of link {index} cannot be read")


def parse_qdisc(body: bytes) -> tuple[int, str, int]:
    """(link, kind, rate in bytes/s or 0)."""
    _, index, _, _, _ = _HEADER.unpack_from(body)
    found = attributes(body, _HEADER.size)
    kind = unpack_text(found.get(TCA_KIND, b""))
    rate = 0
    if kind == "tbf":
        options = attributes(found.get(TCA_OPTIONS, b""))
        rate = _RATE.unpack_from(options[TCA_TBF_PARMS])[5]
        if TCA_TBF_RATE64 in options:
            (rate,) = struct.unpack("=Q", options[TCA_TBF_RATE64])
    return index, kind, rate

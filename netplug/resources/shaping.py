"""Bandwidth of one attachment: token buckets on both ways of its veth."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from netplug.errors import KernelRefused, NotFound
from netplug.kernel import Kernel
from netplug.kernel import rtmessages as rt
from netplug.kernel import tcmessages as tc
from netplug.kernel.rtmessages import Message
from netplug.kernel.rtnl import Rtnl
from netplug.model import Attachment, digest
from netplug.resources import Shell
from netplug.resources.links import differences

LATENCY_SECONDS = 0.025  # how long a packet may wait in the bucket's queue
BURST_LIMIT = 2**32 - 1  # bytes: tc_tbf_qopt has 32 bits


@dataclass(frozen=True, slots=True)
class Shaping:
    """Limits `device`, the host end of a veth. Rates in bytes/s (0: none), bursts in bytes.

    What the container receives leaves the host by `device`: a tbf at its root.
    What it sends arrives there, where nothing queues: it is redirected to `ifb`,
    which has a tbf of its own.
    """

    device: str
    ifb: str
    alias: str
    mtu: int
    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"bandwidth of {self.device}"

    def present(self, kernel: Kernel) -> str | None:
        device, ifb = kernel.host.link(self.device), kernel.host.link(self.ifb)
        held = (
            kernel.host.rate(device.index) if device else 0,
            kernel.host.rate(ifb.index) if ifb else 0,
        )
        if held == (0, 0):
            return None
        words = differences(
            ("ingress rate", self.ingress_rate, held[0]), ("egress rate", self.egress_rate, held[1])
        )
        if self.egress_rate and device and not kernel.host.redirected(device.index):
            words = ", ".join(w for w in (words, f"redirection to {self.ifb} is missing") if w)
        return words

    def apply(self, kernel: Kernel) -> bool:
        host = kernel.host
        device = host.link(self.device)
        if device is None:
            raise NotFound(
                f"link {self.device} is gone", "its bandwidth cannot be limited", "retry"
            )
        before = self.present(kernel)
        if before == "":
            return False
        if self.ingress_rate:
            host.change(_tbf(device.index, self.ingress_rate, self.ingress_burst))
        if self.egress_rate:
            self._apply_egress(host, device.index)
        return before is None

    def _apply_egress(self, host: Rtnl, index: int) -> None:
        ifb = host.link(self.ifb)
        if ifb is None:
            if host.redirected(index):  # to an ifb that is no more
                host.change(tc.delete_ingress(index))
            host.change(
                rt.new_link(self.ifb, "ifb", mtu=self.mtu), rt.set_alias(self.ifb, self.alias)
            )
            ifb = host.link(self.ifb)
            if ifb is None:
                raise KernelRefused(f"link {self.ifb} vanished while it was set up")
        host.change(_tbf(ifb.index, self.egress_rate, self.egress_burst))
        if not host.redirected(index):
            host.change(tc.new_ingress(index), tolerate=(errno.EEXIST,))
            host.change(tc.new_redirect(index, ifb.index))

    def undo(self, kernel: Kernel) -> None:
        """The device's own queues die with it; the ifb is a link of its own."""
        ifb = kernel.host.link(self.ifb)
        if ifb is not None and ifb.kind == "ifb" and ifb.alias in ("", self.alias):
            kernel.host.delete_link(ifb.index)

    def shell(self, shell: Shell) -> list[str]:
        lines = []
        if self.ingress_rate:
            lines.append(
                f"tc qdisc add dev {self.device} root handle 1:"
                f" {_tbf_words(self.ingress_rate, self.ingress_burst)}"
            )
        if self.egress_rate:
            lines += [
                f"ip link add {self.ifb} mtu {self.mtu} type ifb",
                f"ip link set {self.ifb} alias {self.alias} up",
                f"tc qdisc add dev {self.ifb} root handle 1:"
                f" {_tbf_words(self.egress_rate, self.egress_burst)}",
                f"tc qdisc add dev {self.device} ingress",
                f"tc filter add dev {self.device} parent ffff: protocol all prio 1 u32"
                f" match u32 0 0 flowid 1: action mirred egress redirect dev {self.ifb}",
            ]
        return lines


def compute_shaping(attachment: Attachment, *, mtu: int) -> Shaping:
    """The attachment's limits in bytes, bursts defaulted and held within what tbf can count.

    A burst of 10 ms at full rate keeps the rate honest; the huge default of some
    engines (2^32 bits) would mean no limit for seconds.
    """
    wanted = attachment.bandwidth

    def burst(rate: int, bits: int) -> int:
        if not rate:
            return 0
        return min(max(bits // 8 or rate // 800, mtu + 14), BURST_LIMIT // 2)

    return Shaping(
        attachment.host_name,
        ifb="ifb" + digest("ifb", attachment.owner)[:12],
        alias=attachment.mark,
        mtu=mtu,
        ingress_rate=-(-wanted.ingress_rate // 8),  # rounded up: 0 would be no limit
        ingress_burst=burst(wanted.ingress_rate, wanted.ingress_burst),
        egress_rate=-(-wanted.egress_rate // 8),
        egress_burst=burst(wanted.egress_rate, wanted.egress_burst),
    )


def _limit(rate: int, burst: int) -> int:
    """Bytes that may queue: the burst, and what flows within the latency."""
    return int(rate * LATENCY_SECONDS) + burst


def _tbf(index: int, rate: int, burst: int) -> Message:
    limit = min(_limit(rate, burst), BURST_LIMIT)
    return tc.set_tbf(index, rate=rate, burst=burst, limit=limit)


def _tbf_words(rate: int, burst: int) -> str:
    return f"tbf rate {rate * 8}bit burst {burst} limit {min(_limit(rate, burst), BURST_LIMIT)}"

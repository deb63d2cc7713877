"""Masquerading of a router: one table, one chain, one rule. Both families at once."""

from __future__ import annotations

import os

from netplug.errors import KernelRefused
from netplug.kernel import nftables
from netplug.kernel.nfnetlink import Message, Nfnetlink

TABLE, CHAIN = "topology", "postrouting"
SRCNAT = 100  # priority of source NAT, after all filters
META_OIFNAME = 7
IFNAMSIZ = 16


def plan_masquerade(interface: str) -> list[Message]:
    """What leaves through the interface takes its address: `oifname INTERFACE masquerade`."""
    chain = nftables.Chain(
        nftables.INET, TABLE, CHAIN, kind="nat", hook=nftables.POSTROUTING, priority=SRCNAT
    )
    code = (
        nftables.meta(META_OIFNAME)
        + nftables.compare(interface.encode().ljust(IFNAMSIZ, b"\0"))
        + nftables.masquerade()
    )
    return [
        nftables.new_table(nftables.INET, TABLE),
        nftables.new_chain(nftables.INET, TABLE, chain),
        nftables.new_rule(nftables.INET, TABLE, CHAIN, code=code, userdata=b""),
    ]


def ensure_masquerade(fd: int, interface: str, *, router: str) -> None:
    """Raises KernelRefused that names the router."""
    with Nfnetlink(fd) as nfnetlink:
        for refusal in nfnetlink.transact(plan_masquerade(interface)):
            raise KernelRefused(
                f"routers.{router}.nat cannot be set up",
                refusal.text or os.strerror(refusal.errno),
                "NAT needs nf_tables with inet NAT (Linux 5.2 or newer)",
                errno=refusal.errno,
            )

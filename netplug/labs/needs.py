"""What a lab needs of the kernel, tried once in a sandbox of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from netplug.errors import ConfigError, KernelRefused, NetplugError, UnsupportedError
from netplug.fixtures.schema import did_you_mean
from netplug.kernel import rtmessages as rt
from netplug.kernel.namespaces import own_namespace
from netplug.kernel.netlink import attribute, nest, text
from netplug.kernel.rtnl import Rtnl
from netplug.kernel.sandbox import try_in_sandbox
from netplug.labs.format import Lab

IFLA_LINK = 5
IFLA_VXLAN_ID, IFLA_VXLAN_PORT = 1, 15


def _make_link(kind: str, data: bytes = b"", parent: bool = False) -> None:
    fd = own_namespace()
    rtnl = Rtnl(fd)
    try:
        if parent:
            rtnl.change(
                rt.new_bridge("parent", mac="02:00:00:00:00:01", mtu=0, vlan_filtering=False)
            )
            index = rtnl.index("parent") or 0
            body = rt._body() + text(rt.IFLA_IFNAME, "probe") + rt.u32(IFLA_LINK, index)
            info = nest(rt.IFLA_LINKINFO, text(rt.IFLA_INFO_KIND, kind))
            rtnl.change(rt.Message(rt.RTM_NEWLINK, 0x600, body + info))
            return
        rtnl.change(rt.new_link("probe", kind, data=data))
    finally:
        rtnl.close()
        os.close(fd)


def _make_table(*, bridge: bool = False) -> None:
    from netplug.kernel import nftables
    from netplug.kernel.nfnetlink import Nfnetlink

    fd = own_namespace()
    family = 7 if bridge else nftables.INET  # NFPROTO_BRIDGE
    try:
        with Nfnetlink(fd) as link:
            for refusal in link.transact([nftables.new_table(family, "probe")]):
                raise KernelRefused("no table", os.strerror(refusal.errno))
    finally:
        os.close(fd)


def _make_nat() -> None:
    from netplug.fixtures.nat import ensure_masquerade

    fd = own_namespace()
    try:
        ensure_masquerade(fd, "lo", router="probe")
    finally:
        os.close(fd)


def _overlay() -> None:
    from netplug.kernel.sandbox import mount

    mount("probe", "/mnt", "tmpfs")
    for name in ("upper", "work"):
        os.mkdir(f"/mnt/{name}")
    mount("probe", "/etc", "overlay", options="lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work")


def _rate() -> None:
    import shutil
    import subprocess

    if not shutil.which("tc"):
        raise UnsupportedError("tc is missing")
    words = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "10k"]
    done = subprocess.run([*words, "latency", "50ms"], capture_output=True, text=True)
    if done.returncode:
        raise UnsupportedError(done.stderr.strip())


FEATURES: dict[str, tuple[str, Callable[[], None]]] = {
    "veth": ("veth pairs (CONFIG_VETH)", lambda: _make_link("veth")),
    "bridge": ("bridges (CONFIG_BRIDGE)", lambda: _make_link("bridge")),
    "vxlan": (
        "VXLAN (CONFIG_VXLAN)",
        lambda: _make_link("vxlan", attribute(IFLA_VXLAN_ID, (1).to_bytes(4, "little"))),
    ),
    "macvlan": ("macvlan (CONFIG_MACVLAN)", lambda: _make_link("macvlan", parent=True)),
    "nft": ("nf_tables (CONFIG_NF_TABLES)", _make_table),
    "nft-bridge": (
        "nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE)",
        lambda: _make_table(bridge=True),
    ),
    "nat": ("NAT by nf_tables (CONFIG_NFT_MASQ)", _make_nat),
    "private-etc": ("overlay mounts for users (Linux 5.11)", _overlay),
    "tbf": ("token bucket filters (CONFIG_NET_SCH_TBF) and the program tc", _rate),
}
PROGRAMS = {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables", "ping": "iputils-ping"}


def missing_features(wanted: Iterable[str]) -> dict[str, str]:
    """Those of the wanted features that this machine has not, with words for people."""
    import shutil

    missing: dict[str, str] = {}
    for need in wanted:
        if need in FEATURES:
            try:
                try_in_sandbox(FEATURES[need][1])
            except NetplugError as error:
                lacking = f"this kernel has no {FEATURES[need][0]}"
                refused = getattr(error, "exit_status", 1) == 3
                missing[need] = str(error) if refused else lacking
        elif need in PROGRAMS:
            if not shutil.which(need, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
                missing[need] = f"the program {need} is missing (package {PROGRAMS[need]})"
        else:
            raise ConfigError(
                f"needs: {need}", "no such feature", did_you_mean(need, [*FEATURES, *PROGRAMS])
            )
    return missing


def demand_features(lab: Lab) -> None:
    """Raises UnsupportedError that names the first feature missing."""
    faults = lab.keys.faults.of if lab.keys.faults else ()
    needs = dict.fromkeys((*lab.keys.needs, *(n for f in faults for n in f.kind.needs)))
    for why in missing_features(needs).values():
        raise UnsupportedError(f"lab {lab.name} cannot run here", why, "see: netplug lab list")

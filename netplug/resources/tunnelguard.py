"""The filter of a tunnel: only known nodes, only from their own subnets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netplug.errors import KernelRefused
from netplug.kernel import Kernel, tunnelguard
from netplug.kernel.tunnelguard import Allowed, Frame
from netplug.resources import Shell


@dataclass(frozen=True, slots=True)
class TunnelGuard:
    """See `kernel.tunnelguard`. One table for each tunnel, named after its device."""

    device: str
    port: int
    vni: int
    underlay: int  # 4 or 6
    allowed: tuple[Allowed, ...] = ()

    @property
    def key(self) -> None:
        return None

    @property
    def frame(self) -> Frame:
        return Frame(f"netplug-{self.device}", self.underlay, self.port, self.vni)

    def describe(self) -> str:
        return f"filter of {self.device}, {len(self.allowed)} subnets"

    def present(self, kernel: Kernel) -> str | None:
        found = tunnelguard.read(_fd(kernel), self.frame)
        if found is None:
            return None
        whole, held = found
        words = [] if whole else ["its rules are others"]
        words += [f"{one.subnet} of {one.vtep} is missing" for one in set(self.allowed) - held]
        words += [f"{one.subnet} of {one.vtep} is not wanted" for one in held - set(self.allowed)]
        return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")

    def apply(self, kernel: Kernel) -> bool:
        found = tunnelguard.read(_fd(kernel), self.frame)
        if found is None or not found[0]:
            tunnelguard.make(_fd(kernel), self.frame, self.allowed)
            return found is None
        self.change(kernel, found[1])
        return False

    def change(self, kernel: Kernel, found: Iterable[Allowed]) -> None:
        """From `found`, which is taken for what the kernel holds, to what is wanted."""
        held, wanted = set(found), set(self.allowed)
        try:
            tunnelguard.change(_fd(kernel), self.frame, add=wanted - held, remove=held - wanted)
        except KernelRefused:  # it holds something else
            tunnelguard.make(_fd(kernel), self.frame, self.allowed)

    def undo(self, kernel: Kernel) -> None:
        tunnelguard.delete(_fd(kernel), self.frame)

    def shell(self, shell: Shell) -> list[str]:
        """nft knows no name for the inner header: it is bits behind the UDP header."""
        outer = {4: "ip", 6: "ip6"}[self.underlay]
        table = f"{outer} {self.frame.table}"
        whys = iter(self.frame.comments)
        ours = f"meta l4proto udp th dport {self.port} @th,96,24 {self.vni:#x}"
        lines = [f"nft add table {table}"]
        for inner, kind, bits in ((4, "0x0800", "336,32"), (6, "0x86dd", "304,128")):
            name = f"allowed{inner}"
            types = f"{outer} saddr . @th,{bits}"
            elements = ", ".join(
                f"{one.vtep} . {int(one.subnet[0]):#x}-{int(one.subnet[-1]):#x}"
                for one in self.allowed
                if one.subnet.version == inner
            )
            lines.append(f"nft 'add set {table} {name} {{ typeof {types}; flags interval; }}'")
            if elements:
                lines.append(f"nft 'add element {table} {name} {{ {elements} }}'")
            if inner == 4:
                lines.append(
                    f"nft 'add chain {table} {tunnelguard.CHAIN}"
                    f" {{ type filter hook input priority {tunnelguard.PRIORITY}; }}'"
                )
            lines.append(
                f"nft 'add rule {table} {tunnelguard.CHAIN} {ours} @th,224,16 {kind}"
                f' {types} @{name} accept comment "{next(whys)}"\''
            )
        last = f'{ours} drop comment "{next(whys)}"'
        return [*lines, f"nft 'add rule {table} {tunnelguard.CHAIN} {last}'"]


def _fd(kernel: Kernel) -> int:
    fd = kernel.fd("host")
    assert fd is not None
    return fd

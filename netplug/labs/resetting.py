"""Back to a known state, in the namespaces that there are: open shells stay where they are."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from netplug.fixtures import rebuild
from netplug.fixtures.topology import WIRE
from netplug.kernel.bind import unbind_namespace
from netplug.labs.checking import find_step
from netplug.labs.entering import run_inside
from netplug.labs.format import Lab
from netplug.labs.furnish import PRIVATE
from netplug.labs.injecting import inject, pick_faults
from netplug.labs.session import Session
from netplug.labs.solution import SETUP, apply_stages
from netplug.labs.world import HOST, NAMES, World

# Everything that a namespace can hold beside what it was born with.
WIPE = """
for link in $(ip -o link | sed 's/^[0-9]*: //; s/[:@].*//'); do
    [ "$link" = lo ] || ip link del "$link" 2>/dev/null
done
ip address flush dev lo; ip link set lo down; ip link set lo up
tc qdisc del dev lo root 2>/dev/null
ip rule flush; ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default
for family in -4 -6; do
    ip $family route flush table all proto boot
    ip $family route flush table main
done
ip neigh flush all
nft flush ruleset 2>/dev/null
for tables in iptables-legacy ip6tables-legacy; do
    command -v $tables >/dev/null || continue
    for table in filter nat mangle raw; do $tables -t $table -F; $tables -t $table -X; done
done 2>/dev/null
sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
true
"""


OWN = {
    *("/run/netns", "/run/netplug", "/run/user"),
    *("/run/netplug/lab", "/run/netplug/layers"),
}


def reset_session(session: Session, lab: Lab, step: str) -> None:
    """The state after `step`, "" for that of the start. Raises NotFound, KernelRefused."""
    if step:
        find_step(lab, step)
    run_inside(session, lambda: reset(lab, session.seed, step))
    progress = session.read_progress()
    progress.resets.append(step)
    progress.reached.clear()
    session.write_progress(progress)


def reset(lab: Lab, seed: int, step: str, *, faults: bool = True) -> None:
    """Inside the lab: everything wiped, the topology built again, the steps' state applied.

    Faults are made again, unless the state after some step is wanted.
    """
    _end_daemons()
    _wipe(lab)
    if lab.topology.nodes or lab.topology.switches:
        rebuild(lab.topology, names="")
    steps = [known.id for known in lab.steps]
    done = steps[: steps.index(step) + 1] if step else []
    with World(folder=lab.folder) as world:
        apply_stages(lab, world, [SETUP])
        apply_stages(lab, world, done)
        for fault in pick_faults(lab, seed) if faults and not step else ():
            inject(world, fault)


def _wipe(lab: Lab) -> None:
    kept = {WIRE, *(node.name for node in lab.topology.nodes)}
    with World() as world:
        for name in world.names():
            world.run(name, f"set +e; {WIPE}")
            if name != HOST and name not in kept:
                unbind_namespace(NAMES / name)
    for folder in (*PRIVATE, "/run/user", "/run/netplug", "/run"):
        _empty(Path(folder))


def _empty(folder: Path) -> None:
    """What the student wrote; what the lab made for itself stays, and the machine's folders."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if str(path) in OWN or (path.is_dir() and path.is_mount()):
            continue
        if str(folder) == "/run/user":
            _empty(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _end_daemons() -> None:
    """Programs without a terminal, which a step started; shells are the student's own."""
    spared = {1, os.getpid(), os.getppid()}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spared:
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
            if stat[4] == "0" and stat[0] != "Z":  # tty_nr
                os.kill(int(entry), signal.SIGKILL)
        except OSError:
            continue

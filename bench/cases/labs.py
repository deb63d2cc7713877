"""Labs: how long a topology takes to start and stop, beside mininet; what a node costs.

`start` and `stop` are the calls of either library, in a process that has imported it;
`program start` and `program stop` are whole programs, with an interpreter that starts and
imports. netplug runs as nobody where we are root: labs need no root. mininet needs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.case import Case, Contender, Missing, NotMeasured, Setup, Target
from bench.chain import SEARCH_PATH
from bench.peers import ROOT as PEERS
from bench.peers import find_program, unpacked_folders

NETPLUG, MININET = "netplug lab", "mininet"
FANOUT = 7  # tree of depth 2: 49 hosts on 7 switches, these on one more
NOBODY = 65534
KERNEL = ("Slab:", "Percpu:", "KernelStack:")  # of /proc/meminfo: what namespaces and links take

# Two programs that say how long their calls took. Mininet's is run by Debian's Python, with
# Linux bridges, for Open vSwitch is no part of a lab.
MININET_PROGRAM = f"""
import sys, time
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topolib import TreeTopo
begin = time.perf_counter()
net = Mininet(topo=TreeTopo(2, {FANOUT}), switch=LinuxBridge, controller=None, waitConnected=False)
net.start()
print("up", time.perf_counter() - begin, flush=True)
sys.stdin.readline()
begin = time.perf_counter()
net.stop()
print("down", time.perf_counter() - begin, flush=True)
"""
NETPLUG_PROGRAM = """
import sys, time
from pathlib import Path
from netplug.labs.format import read_lab
from netplug.labs.running import start
from netplug.labs.session import end_session
begin = time.perf_counter()
path = Path(sys.argv[1])
session = start(read_lab(path), path)
print("up", time.perf_counter() - begin, flush=True)
sys.stdin.readline()
begin = time.perf_counter()
end_session(session)
print("down", time.perf_counter() - begin, flush=True)
"""


def drive(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, float]:
    """Runs one of the two programs; what it says, in ms. Raises NotMeasured."""
    started = time.perf_counter()
    process = subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    with process:
        up = process.stdout.readline().split()
        if up[:1] != ["up"]:
            last = process.stderr.read().strip().rpartition("\n")[2]
            raise NotMeasured(f"{words[0]} does not start a network here: {last}")
        whole = time.perf_counter() - started
        asked = time.perf_counter()
        process.stdin.write("\n")
        process.stdin.close()
        down = process.stdout.readline().split()
        process.wait()
        ended = time.perf_counter() - asked
    return {
        "start": 1000 * float(up[1]),
        "stop": 1000 * float(down[1]),
        "program start": 1000 * whole,
        "program stop": 1000 * ended,
    }


def render_tree(fanout: int) -> str:
    """A topology file: `fanout` hosts on each of `fanout` switches, these on one more."""
    edges = {f"s{i}": [f"h{i * fanout + j}" for j in range(fanout)] for i in range(fanout)}
    return _render(edges)


def render_hosts(count: int, per_switch: int = 50) -> str:
    """A topology file with so many hosts, fifty on a switch."""
    names = [f"h{i}" for i in range(count)]
    chunks = [names[i : i + per_switch] for i in range(0, count, per_switch)]
    return _render({f"s{i}": chunk for i, chunk in enumerate(chunks)})


def _render(edges: Mapping[str, Sequence[str]]) -> str:
    hosts = [name for members in edges.values() for name in members]
    lines = ["hosts:"]
    lines += [f"  {name}: [10.0.{i // 200}.{i % 200 + 1}/16]" for i, name in enumerate(hosts)]
    lines += ["switches:", f"  top: [{', '.join(edges)}]"]
    lines += [f"  {switch}: [{', '.join(members)}]" for switch, members in edges.items()]
    return "\n".join(lines) + "\n"


class Lab:
    """netplug's labs of one topology file. Measures `start` and `stop`, in ms."""

    def __init__(self, folder: Path, text: str, *, name: str = NETPLUG, suffix: str = "") -> None:
        self.name = name
        self._suffix = suffix
        self._file = folder / f"{name.replace(' ', '-')}{suffix.replace(' ', '-')}.yaml"
        self._file.write_text(text)
        self._file.chmod(0o644)
        self._netplug = str(Path(sys.executable).with_name("netplug"))
        self._prefix = _become_nobody(self._netplug, self._file)
        self._environ = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": str(folder)}

    def run(self, *words: str) -> float:
        """Milliseconds of one command. Raises NotMeasured with what it said."""
        started = time.perf_counter()
        done = subprocess.run(
            [*self._prefix, self._netplug, "lab", *words],
            env=self._environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        took = 1000 * (time.perf_counter() - started)
        if done.returncode:
            raise NotMeasured(f"netplug lab {words[0]}: {done.stderr.strip()}")
        return took

    def measure(self) -> Mapping[str, float]:
        start, stop = self.run("start", str(self._file)), self.run("stop", self._file.stem)
        return {f"start{self._suffix}": start, f"stop{self._suffix}": stop}

    def measure_memory(self) -> float:
        """KiB of the kernel's, while it runs."""
        before = _kernel_memory()
        self.run("start", str(self._file))
        after = _kernel_memory()
        self.run("stop", self._file.stem)
        return after - before

    def drive(self) -> Mapping[str, float]:
        """The calls of the library beside whole commands."""
        python = [*self._prefix, sys.executable, "-c", NETPLUG_PROGRAM, str(self._file)]
        found = drive(python, self._environ)
        commands = self.measure()
        return found | {f"program {verb}": commands[verb] for verb in ("start", "stop")}


class Tree:
    """netplug's lab with mininet's tree."""

    name = NETPLUG

    def __init__(self, folder: Path) -> None:
        self._lab = Lab(folder, render_tree(FANOUT))

    def measure(self) -> Mapping[str, float]:
        return self._lab.drive()


def _become_nobody(program: str, file: Path) -> list[str]:
    """Words that run what follows as nobody; none where we are nobody special, or he may not
    read our files."""
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if os.geteuid() != 0 or not shutil.which(words[0]):
        return []
    probe = [*words, "sh", "-c", f'"{program}" --version && cat "{file}"']
    done = subprocess.run(probe, capture_output=True, stdin=subprocess.DEVNULL)
    return [] if done.returncode else words


class Mininet:
    """The same tree by mininet."""

    name = MININET

    def __init__(self) -> None:
        find_program("mnexec")
        modules = PEERS / "root/usr/lib/python3/dist-packages"
        folders = ":".join(str(path) for path in unpacked_folders())
        self._environ = {"PATH": f"{folders}:{SEARCH_PATH}", "PYTHONPATH": str(modules)}
        self.measure()  # once, to see that it works here

    def measure(self) -> Mapping[str, float]:
        return drive(["/usr/bin/python3", "-c", MININET_PROGRAM], self._environ)


def make_trees(setup: Setup, stack: ExitStack) -> Sequence[Contender | Missing]:
    lab = Tree(setup.folder)
    try:
        return [Mininet(), lab]
    except (NotMeasured, OSError) as reason:
        return [lab, Missing(MININET, str(reason))]


def make_large(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    return [Sizes(setup.folder)]


class Sizes:
    """50 and 500 nodes, one after the other."""

    name = NETPLUG

    def __init__(self, folder: Path) -> None:
        counts = (50, 500)
        self._labs = [Lab(folder, render_hosts(n), suffix=f" {n} nodes") for n in counts]

    def measure(self) -> Mapping[str, float]:
        return {key: ms for lab in self._labs for key, ms in lab.measure().items()}


NODES = 500


class Memory:
    """Kernel memory of one node: namespace, cable, bridge port, routes."""

    name = NETPLUG

    def __init__(self, folder: Path) -> None:
        self._lab = Lab(folder, render_hosts(NODES), suffix=" memory")

    def measure(self) -> Mapping[str, float]:
        return {"a node": self._lab.measure_memory() / NODES}


def _kernel_memory() -> float:
    """KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(KERNEL))


CASES = (
    Case(
        "labs",
        f"a tree of {FANOUT * FANOUT} hosts, started and stopped",
        make_trees,
        {("start", NETPLUG): Target(0.15), ("stop", NETPLUG): Target(0.15)},
    ),
    Case(
        "lab-sizes",
        "netplug lab start and stop, without root",
        make_large,
        {
            ("start 50 nodes", NETPLUG): Target(500, relative=False),
            ("stop 50 nodes", NETPLUG): Target(1000, relative=False),
            ("start 500 nodes", NETPLUG): Target(5000, relative=False),
            ("stop 500 nodes", NETPLUG): Target(5000, relative=False),
        },
    ),
    Case(
        "lab-memory",
        f"kernel memory of each of {NODES} nodes in a lab",
        lambda setup, stack: [Memory(setup.folder)],
        {("a node", NETPLUG): Target(400, relative=False)},
        unit="KiB",
        once=True,
    ),
)

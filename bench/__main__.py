"""Side by side with the peers, as ratios; `--case` runs one comparison alone.

Works in namespaces of its own, with an agent of its own, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.breakdown import profile_calls, render_breakdowns
from bench.case import Case, Setup
from bench.cases import CASES
from bench.execute import Execution, ProgramFailed, execute
from bench.launchers import make_plugins, start_agent
from bench.peers import fetch_peers, read_versions
from bench.plot import render_plot
from bench.record import read_entries, write_entries
from bench.report import (
    Circumstances,
    Results,
    render_circumstances,
    render_gaps,
    render_json,
    render_page,
    render_tables,
    render_verdict,
)
from bench.runner import Gap, Outcome, run_case

ROOT = Path(__file__).resolve().parents[1]
SANDBOX = ROOT / "tests/sandbox.sh"
UNPACKED = ROOT / ".engines/root/usr/lib/cni"  # filled by tests/engines/unpack.py
INSTALLED = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
NEEDED = ("bridge", "host-local", "portmap", "firewall", "bandwidth")
PAGES = ROOT / "docs/bench"
FEWEST_ROUNDS = 30  # a median of fewer says little on a machine that does other things as well


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=40, help="rounds of each case (40)")
    parser.add_argument(
        "--case", action="append", choices=names, metavar="NAME", help=f"only: {', '.join(names)}"
    )
    parser.add_argument("--reference", type=Path, help="folder of the reference plugins")
    parser.add_argument("--json", action="store_true", help="for programs, with every value")
    parser.add_argument(
        "--write", action="store_true", help=f"into {PAGES.relative_to(ROOT)}: table and plot"
    )
    parser.add_argument(
        "--profile", action="store_true", help="instead: where the time inside the agent goes"
    )
    options = parser.parse_args(words)
    if options.rounds < 1:
        parser.error("there is at least one round")
    return options


def enter_sandbox(words: Sequence[str]) -> None:
    """Become this bench inside private namespaces, unless that is where we are."""
    if os.environ.get("NETPLUG_SANDBOX") == os.readlink("/proc/self/ns/net"):
        return
    os.chdir(ROOT)
    if not UNPACKED.exists():  # now, where the network is
        subprocess.run([sys.executable, "-m", "tests.engines.unpack"], check=True)
    fetch_peers()
    os.execv(SANDBOX, [str(SANDBOX), sys.executable, "-m", "bench", *words])


def find_reference(wanted: Path | None) -> Path:
    for folder in (wanted,) if wanted else (UNPACKED, *INSTALLED):
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise SystemExit(
        f"bench: no reference plugins ({', '.join(NEEDED)}): "
        "unpack them with `python -m tests.engines.unpack`, or name a folder by --reference"
    )


def measure_idle_exec() -> float:
    """Milliseconds that executing /bin/true takes us: the floor below every number."""
    times = []
    for _ in range(FEWEST_ROUNDS):
        started = time.perf_counter()
        execute(Execution(["/bin/true"], "{}", {}))
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times)[len(times) // 2]


def make_setup(reference: Path, say: Callable[[str], None], stack: ExitStack) -> Setup:
    """Launchers and a running agent, in a folder that is gone at the end."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="netplug-bench-")))
    agent = start_agent(folder, stack)
    return Setup(
        reference=reference,
        plugins=make_plugins(folder, agent),
        folder=folder,
        state=agent.state,
        run=agent.socket.parent,
        say=say,
    )


def run_cases(
    cases: Sequence[Case], reference: Path, rounds: int, stack: ExitStack
) -> tuple[list[Outcome], list[Gap]]:
    outcomes: list[Outcome] = []
    gaps: list[Gap] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def say(text: str) -> None:
            progress.update(task, description=f"{case.name}: {text}")

        setup = make_setup(reference, say, stack)
        for case in cases:
            progress.reset(task, total=1 if case.once else rounds, description=case.name)
            found, missing = run_case(case, setup, rounds, partial(progress.advance, task))
            outcomes += found
            gaps += missing
    return outcomes, gaps


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    enter_sandbox(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the agent is stopped
    with ExitStack() as stack:
        try:
            if options.profile:
                folder = stack.enter_context(TemporaryDirectory(prefix="netplug-bench-"))
                show_profile(Path(folder), options.rounds, write=options.write)
            else:
                show_results(options, stack)
        except ProgramFailed as failure:
            raise SystemExit(f"bench: {failure}") from None
    return 0


def show_profile(folder: Path, rounds: int, *, write: bool) -> None:
    page = render_breakdowns(profile_calls(folder, rounds))
    print(page, end="")
    if write:
        PAGES.mkdir(parents=True, exist_ok=True)
        (PAGES / "profile.md").write_text(page)


def show_results(options: argparse.Namespace, stack: ExitStack) -> None:
    cases = [case for case in CASES if not options.case or case.name in options.case]
    reference = find_reference(options.reference)
    circumstances = Circumstances.read(options.rounds, describe(reference), measure_idle_exec())
    results = Results(*run_cases(cases, reference, options.rounds, stack), circumstances)
    if options.json:
        print(json.dumps(render_json(results)))
    else:
        console = Console()
        for table in render_tables(results):
            console.print(table)
        for line in render_gaps(results):
            console.print(f"Not measured: {line}")
        console.print(render_circumstances(circumstances))
        console.print(render_verdict(results))
    if options.write:
        write_entries(PAGES / "results.json", results, cases)
        entries = read_entries(PAGES / "results.json", CASES)
        outcomes = [outcome for entry in entries for outcome in entry.results.outcomes]
        (PAGES / "results.md").write_text(render_page(entries, "results.svg"))
        (PAGES / "results.svg").write_text(render_plot(outcomes))


def describe(reference: Path) -> str:
    """The peers' versions, for people."""
    versions = read_versions()
    manifest = ROOT / ".engines/manifest.json"
    name = "containernetworking-plugins"
    if reference != UNPACKED or not manifest.exists():
        return str(reference)
    versions |= {name: json.loads(manifest.read_text())["versions"][name]}
    wanted = (name, "netavark", "docker.io", "dnsmasq-base", "aardvark-dns")
    return "Debian's " + ", ".join(f"{one} {versions[one]}" for one in wanted if one in versions)


if __name__ == "__main__":
    sys.exit(main())

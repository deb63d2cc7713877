"""`python -m bench`: enters namespaces of its own, runs the cases, prints ratios."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress

from bench.case import Case, Setup
from bench.cases import CASES
from bench.chain import PluginFailed
from bench.report import (
    Circumstances,
    render_circumstances,
    render_json,
    render_page,
    render_tables,
)
from bench.runner import Outcome, run_case

ROOT = Path(__file__).resolve().parents[1]
SANDBOX = ROOT / "tests/sandbox.sh"
UNPACKED = ROOT / ".engines/root/usr/lib/cni"  # filled by tests/engines/unpack.py
INSTALLED = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
NEEDED = ("bridge", "host-local", "portmap", "firewall", "bandwidth")
PAGE = ROOT / "docs/bench/results.md"
FEWEST_ROUNDS = 30  # a median of fewer says little on a machine that does other things as well


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=40, help="rounds of each case")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one"
    )
    parser.add_argument("--netplug", help="the executable to measure, or the word 'reference'")
    parser.add_argument("--reference", type=Path, help="folder of the reference plugins")
    parser.add_argument("--json", action="store_true", help="for programs, with every value")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    return parser.parse_args(words)


def enter_sandbox(words: Sequence[str]) -> None:
    """Become this bench inside private namespaces, unless that is where we are."""
    if os.environ.get("NETPLUG_SANDBOX") == os.readlink("/proc/self/ns/net"):
        return
    if not UNPACKED.exists():  # now, where the network is
        subprocess.run([sys.executable, "-m", "tests.engines.unpack"], cwd=ROOT, check=True)
    os.chdir(ROOT)
    os.execv(SANDBOX, [str(SANDBOX), sys.executable, "-m", "bench", *words])


def find_reference(wanted: Path | None) -> Path:
    for folder in (wanted,) if wanted else (UNPACKED, *INSTALLED):
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise SystemExit(
        f"bench: no reference plugins ({', '.join(NEEDED)}): "
        "unpack them with `python -m tests.engines.unpack`, or name a folder by --reference"
    )


def find_netplug(wanted: str | None, folder: Path) -> Path | None:
    """The executable to measure; without a wish, this clone's, put into `folder` by itself."""
    if wanted == "reference":
        return None
    if wanted:
        return Path(wanted).absolute()
    command = Path(sys.executable).with_name("netplug")
    subprocess.run([command, "install", "--bin-dir", folder], check=True, stdout=sys.stderr)
    return folder / "netplug"


def measure_idle_exec() -> float:
    """Milliseconds that executing /bin/true takes us: the floor below every number."""
    times = []
    for _ in range(FEWEST_ROUNDS):
        started = time.perf_counter()
        subprocess.run(["/bin/true"], input="{}", text=True, capture_output=True, check=True)
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times)[len(times) // 2]


def run_cases(cases: Sequence[Case], setup: Setup, rounds: int) -> list[Outcome]:
    outcomes = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for case in cases:
            task = progress.add_task(case.name, total=rounds)
            outcomes += run_case(case, setup, rounds, partial(progress.advance, task))
    return outcomes


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    enter_sandbox(sys.argv[1:])
    if options.write and options.rounds < FEWEST_ROUNDS:
        raise SystemExit(f"bench: --write wants {FEWEST_ROUNDS} rounds or more")
    cases = [case for case in CASES if not options.case or case.name in options.case]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="netplug-bench-")))
        reference = find_reference(options.reference)
        setup = Setup(find_netplug(options.netplug, folder), reference)
        idle_exec = measure_idle_exec()
        try:
            outcomes = run_cases(cases, setup, options.rounds)
        except PluginFailed as failure:
            raise SystemExit(f"bench: {failure}") from None
    circumstances = Circumstances.read(options.rounds, describe(reference), idle_exec)
    if options.json:
        print(json.dumps(render_json(outcomes, circumstances)))
    else:
        console = Console()
        for table in render_tables(outcomes):
            console.print(table)
        console.print(render_circumstances(circumstances))
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(render_page(outcomes, circumstances))
    return 0


def describe(reference: Path) -> str:
    manifest = ROOT / ".engines/manifest.json"
    if reference == UNPACKED and manifest.exists():
        version = json.loads(manifest.read_text())["versions"]["containernetworking-plugins"]
        return f"Debian's containernetworking-plugins {version}"
    return str(reference)


if __name__ == "__main__":
    sys.exit(main())

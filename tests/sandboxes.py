"""Where tests run: in a sandbox (sandbox.sh), or shared out among several.

Without `-n`, this very process goes into a sandbox. With it (`./run test`), pytest-xdist starts
workers and each of them gets a sandbox of its own, so that what a test does, and the residue it is
judged by, is its worker's alone. The process that reports then stays outside and touches nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from execnet import XSpec

SANDBOX = Path(__file__).with_name("sandbox.sh")
SUITES = ("unit", "golden", "netns", "engines", "docs", "")
TOGETHER = ("engines",)  # what the files of these suites share costs more than their tests


def in_sandbox() -> bool:
    return os.environ.get("NETPLUG_SANDBOX") == os.readlink("/proc/self/ns/net")


@cache
def can_sandbox() -> bool:
    """Whether this user gets namespaces here; what forbids it goes to stderr."""
    probe = subprocess.run([SANDBOX, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        print(f"{probe.stderr}tests that need namespaces are skipped", file=sys.stderr)
    return probe.returncode == 0


def suite_of(nodeid: str) -> str:
    """The folder of a test below tests/, "" where there is none."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 and parts[1] in SUITES else ""


def unit_of_work(nodeid: str) -> str:
    """What one worker does whole: a file, or a suite whose files share much."""
    suite = suite_of(nodeid)
    return suite if suite in TOGETHER else nodeid.partition("::")[0]


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Runs this very pytest command again inside a sandbox, where no workers will."""
    has_workers = config.getoption("numprocesses", None) or config.getoption("tx", None)
    if in_sandbox() or has_workers or is_worker(config) or not can_sandbox():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(config.invocation_params.dir)
    again = [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)]
    os.execv(SANDBOX, [str(SANDBOX), *again])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[XSpec]) -> None:
    """Each worker is a Python that sandbox.sh starts."""
    if can_sandbox():
        for spec in specs:
            spec.python = shlex.join((str(SANDBOX), sys.executable))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        config.option.basetemp = None  # the controller's is outside: take $TMPDIR


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: tests wait more than they compute."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # not needed without workers

    config.option.loadscopereorder = False  # conftest.py has put the tests in order
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = unit_of_work
    return scheduler

"""What every test relies on: namespaces of its own, and proof that nothing is left in them.

The whole run lives in private network and mount namespaces (sandboxes.py), so tests use the real
paths (/run/netns, /var/lib/netplug, /etc/cni/net.d). Tests below tests/netns and tests/engines get
the marker of their folder, and each of them must leave the sandbox as it found it.
"""

from __future__ import annotations

import gc
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
import sandboxes
from hypothesis import HealthCheck, settings
from residue import Snapshot, take_snapshot
from sandboxes import SUITES, in_sandbox, is_worker, suite_of

from netplug.kernel import namespaces

T = TypeVar("T")
HERE = Path(__file__).parent
SETTLE = 3.0  # seconds; the kernel ends namespaces, and with them their links, in the background
# How long an example takes says nothing where other tests want the same processor.
settings.register_profile(
    "suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
_numbers = count(1)
_named: set[str] = set()  # residue that a test was already blamed for


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.register(sandboxes)
    parser.addoption("--long", action="store_true", help="run the tests marked `long` as well")
    parser.addoption(
        "--through",
        choices=("native", "python", "one-process"),
        help="how tests below tests/netns call the plugin, instead of in this process",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests by their folder, puts them in order, leaves out the long tests.

    The fast suites come first; among workers last, where they fill up what the slow ones leave.
    """
    for item in items:
        if (suite := suite_of(item.nodeid)) in ("netns", "engines"):
            item.add_marker(suite)
            if not in_sandbox():
                item.add_marker(pytest.mark.skip(reason="namespaces cannot be had here"))
    items.sort(key=lambda item: SUITES.index(suite_of(item.nodeid)), reverse=is_worker(config))
    if not config.getoption("--long") and "long" not in config.getoption("-m"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The time of each suite."""
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[suite_of(report.nodeid)] += report.duration  # type: ignore[assignment]
                tests[suite_of(report.nodeid)] += report.when == "call"
    terminalreporter.section("time of each suite")
    for suite in filter(seconds.get, SUITES):
        terminalreporter.line(f"{suite:10}{tests[suite]:6} tests {seconds[suite]:8.1f} s")


class Host:
    """A network namespace with a name, lo up, and the commands that run inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self._parts: list[Host] = []
        self._processes: list[subprocess.Popen[str]] = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip link set lo up")

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, called by a thread inside this namespace."""
        return namespaces.in_namespace(self.fd, work)

    def run(self, command: str, check: bool = True) -> str:
        """The stdout of a shell command in this namespace; a failure shows both streams."""
        done = self.call(
            lambda: subprocess.run(
                command, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
        )
        if check and done.returncode:
            pytest.fail(f"{self.name}$ {command}\n{done.stdout}{done.stderr}exit {done.returncode}")
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """A shell command that goes on in this namespace until the test ends."""
        process = self.call(
            lambda: subprocess.Popen(
                command,
                shell=True,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        )
        self._processes.append(process)
        return process

    def container(self, name: str) -> Host:
        """Another namespace that lives as long as this one; its name is made unique."""
        part = Host(f"{name}-{self.name}")
        self._parts.append(part)
        return part

    def close(self) -> None:
        for process in self._processes:
            _end(process)
        for part in reversed(self._parts):
            part.close()
        os.close(self.fd)
        if os.path.exists(self.path):  # a test may have ended it already
            subprocess.run(["ip", "netns", "del", self.name], check=True)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.fixture
def make_host() -> Iterator[Callable[[str], Host]]:
    """Makes simulated hosts, for tests that need more than one."""
    if not in_sandbox():
        pytest.skip("namespaces cannot be had here")
    hosts: list[Host] = []

    def make(name: str = "host") -> Host:
        hosts.append(Host(f"{name}{next(_numbers)}"))
        return hosts[-1]

    yield make
    for host in reversed(hosts):
        host.close()


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    """A simulated host: a fresh network namespace with lo up."""
    return make_host("host")


def _leftovers(before: Snapshot, *, patience: float = SETTLE) -> list[str]:
    """What is there now and was not before, once the kernel had time to clean up."""
    deadline = time.monotonic() + patience
    while left := before.added(take_snapshot()):
        if time.monotonic() > deadline:
            break
        gc.collect()  # a descriptor of an unreachable object is no leak
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def _no_residue(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test on the kernel that leaves something in the sandbox, and names it."""
    if not in_sandbox() or not request.node.path.is_relative_to(HERE / "netns"):
        yield
        return
    before = take_snapshot()
    yield
    if left := _leftovers(before):
        _named.update(left)
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def _no_residue_of_the_suite() -> Iterator[None]:
    if not in_sandbox():
        yield
        return
    before = take_snapshot()
    yield
    if left := [thing for thing in _leftovers(before) if thing not in _named]:
        pytest.fail("the suite left behind:\n  " + "\n  ".join(left), pytrace=False)

"""Callers who add, ask and delete at once; also while agents and name servers are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import wait_for
from attaching import differing, dump
from cni_exec import state_rows
from dns_client import ask, data, rcode
from dns_world import GATEWAY, Names, running
from dnslib import DNSRecord

if TYPE_CHECKING:
    from conftest import Host

CALLERS = 4
LOST = (ConnectionError, FileNotFoundError, AssertionError)  # of a call whose agent was killed
PATIENCE = 30.0


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    with running(tmp_path) as names:
        yield names


def together(works: list[Callable[[], None]]) -> None:
    """All at once; raises the first failure."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@dataclass(slots=True)
class Caller:
    """Somebody with one container, whose name another container asks for."""

    names: Names
    host: Host
    container: Host
    witness: Host
    name: str
    rounds: int = 0

    def ask(self) -> DNSRecord:
        return ask(self.witness, GATEWAY, f"{self.name}.lan.internal")

    def add(self) -> str:
        """The address that the result names."""
        result = self.names.add(self.host, self.container, self.name)
        return str(result["ips"][0]["address"]).partition("/")[0]

    def hammer(self, rounds: int) -> None:
        """The same name every time, the address is another one: nothing old may be told."""
        for _ in range(rounds):
            address = self.add()
            assert data(self.ask()) == [address]
            self.names.delete(self.host, self.container)
            assert rcode(self.ask()) == "NXDOMAIN"
            self.rounds += 1

    # while others kill

    def live(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                address = self.add()
            except LOST:  # who knows what was done
                self.delete_surely()
                continue
            assert data(self.ask_patiently()) == [address]
            self.delete_surely()
            assert rcode(self.ask_patiently()) == "NXDOMAIN"
            self.rounds += 1

    def delete_surely(self) -> None:
        """As an engine does: again until it is said to be done."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.names.delete(self.host, self.container)
                return
            except LOST:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def ask_patiently(self) -> DNSRecord:
        """The first answer that comes; there is none where the name server has just been killed."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask()
            except (ConnectionRefusedError, AssertionError):
                assert time.monotonic() < deadline, "answers did not resume"
                time.sleep(0.02)


def make_callers(names: Names, host: Host) -> list[Caller]:
    witness = host.container("witness")
    names.add(host, witness, "witness")
    return [
        Caller(names, host, host.container(f"c{number}"), witness, f"c{number}")
        for number in range(CALLERS)
    ]


@pytest.mark.parametrize("rounds", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_a_name_is_visible_at_once_and_gone_at_once(names: Names, host: Host, rounds: int) -> None:
    callers = make_callers(names, host)
    together([lambda caller=caller: caller.hammer(rounds) for caller in callers])  # type: ignore[misc]
    names.delete(host, callers[0].witness)


def kill_again_and_again(names: Names, choice: random.Random, over: threading.Event) -> list[str]:
    """Who was killed."""
    killed = []
    while not over.wait(choice.uniform(0.1, 1.0)):
        whom = choice.choice(("agent", "name server", "both"))
        if whom != "agent" and (pid := names.status().get("pid")):
            os.kill(pid, signal.SIGKILL)
        if whom != "name server":
            names.station.kill()
            over.wait(choice.choice((0, 0.2)))
            names.station.start()
        killed.append(whom)
    return killed


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [5, pytest.param(300, marks=pytest.mark.long)])
def test_a_storm_of_kills(names: Names, host: Host, seconds: float) -> None:
    before = dump(host)
    callers = make_callers(names, host)
    over, killed = threading.Event(), list[str]()

    def live() -> None:
        try:
            together([lambda caller=caller: caller.live(seconds) for caller in callers])  # type: ignore[misc]
        finally:
            over.set()

    together(
        [live, lambda: killed.extend(kill_again_and_again(names, random.Random(seconds), over))]
    )
    assert killed and all(caller.rounds for caller in callers), (killed, callers)
    wait_for(lambda: names.status().get("attachments") == 1, "the name server")
    assert data(callers[0].ask_patiently()) == []
    fd_folder = f"/proc/{names.status()['pid']}/fd"
    callers[0].delete_surely()
    names.delete(host, callers[0].witness)
    wait_for(lambda: names.status().get("attachments") == 0, "the end of the last name")
    # its own files; connections of the agent's threads; no place, no host's namespace
    wait_for(lambda: len(os.listdir(fd_folder)) < 24, "closed descriptors")
    assert not host.run("ss -Hlnptu sport = 53").strip()
    assert not differing(before, dump(host)) and not state_rows(host)
    names.station.stop()
    assert not names.status()

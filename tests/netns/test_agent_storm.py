"""Callers who do anything while the agent is killed again and again: nothing leaks, nothing twice.

Each caller keeps what it was told. An answer of 0 is final: a second ADD must fail, and after a
DEL an ADD must not. Only code 11 leaves open what was done; an engine then calls DEL.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import Station, wait_for
from attaching import Site, differing, dump
from cni_exec import NOBODY, Json, Pod, Runtime, state_rows

from netplug.agent.build import Settings, make_launcher
from netplug.errors import UnsupportedError
from netplug.install import install_plugin

if TYPE_CHECKING:
    from conftest import Host

CALLERS = 8
LOST, CONFLICT, CHECK_FAILED = 11, 102, 104
LIFE = (0.3, 2.5)  # seconds of an agent


def conflist(name: str, number: int) -> Json:
    plugin = {
        "type": "netplug",
        "bridge": f"br{number}",
        "isDefaultGateway": number == 1,
        "isGateway": True,
        "ipMasq": True,
        "capabilities": {"portMappings": True, "bandwidth": True},
        "ipam": {
            "type": "netplug",
            "ranges": [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd00:{number}::/64"}]],
        },
    }
    return {"cniVersion": "1.1.0", "name": name, "plugins": [plugin]}


NETWORKS = (conflist("lan", 1), conflist("dmz", 2))


@dataclass(slots=True)
class Caller:
    """An engine's thread with one container, one interface of it on each network."""

    runtimes: list[Runtime]
    pods: list[Pod]
    everyone: list[tuple[str, str]]
    choice: random.Random
    results: dict[int, Json | None] = field(default_factory=dict)  # by network; None: unknown
    calls: int = 0
    lost: int = 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.act(self.choice.randrange(len(NETWORKS)))
        for number in range(len(NETWORKS)):
            while number in self.results and self.results[number] is None:
                self.delete(number)

    def act(self, number: int) -> None:
        if number in self.results and self.results[number] is None:
            self.delete(number)
            return
        match self.choice.choice(("add", "add", "del", "check", "gc")):
            case "add":
                self.add(number)
            case "del":
                self.delete(number)
            case "check":
                self.check(number)
            case _:
                self.collect(number)

    def call(self, verb: str, number: int, **more: Any) -> tuple[int, Json]:
        runtime = self.choice.choice(self.runtimes)
        network, pod = NETWORKS[number], NOBODY if verb == "GC" else self.pods[number]
        result = self.results.get(number) if verb in ("CHECK", "DEL") else None
        request = runtime.request(network, network["plugins"][0], pod, result)
        answer = runtime.call(verb, {**request, **more}, pod)
        self.calls += 1
        self.lost += answer.code == LOST
        return answer.code, answer.document

    def add(self, number: int) -> None:
        code, result = self.call("ADD", number)
        if number in self.results:
            assert code in (CONFLICT, LOST), result
        elif code == LOST:
            self.results[number] = None
        else:
            assert code == 0, result
            self.results[number] = result

    def delete(self, number: int) -> None:
        code, error = self.call("DEL", number)
        assert code in (0, LOST), error
        if code == 0:
            self.results.pop(number, None)
        elif number in self.results:
            self.results[number] = None

    def check(self, number: int) -> None:
        if not (result := self.results.get(number)):
            result = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
            code, error = self.call("CHECK", number, prevResult=result)
            assert code in (CHECK_FAILED, LOST), error
        else:
            code, error = self.call("CHECK", number)
            assert code in (0, LOST), error

    def collect(self, number: int) -> None:
        """With the list of all that may live, or without any: neither may remove the living."""
        listed = [
            {"containerID": container, "ifname": ifname} for container, ifname in self.everyone
        ]
        more = {"cni.dev/valid-attachments": listed} if self.choice.random() < 0.5 else {}
        code, error = self.call("GC", number, **more)
        assert code in (0, LOST), error


def kill_again_and_again(station: Station, choice: random.Random, over: threading.Event) -> int:
    """How often the agent was killed."""
    kills = 0
    while not over.wait(choice.uniform(*LIFE)):
        station.kill()
        kills += 1
        over.wait(choice.choice((0, 0, 0.2)))
        station.start()
    return kills


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s" / "agent.sock")
    station.start()
    yield station
    station.end()


def runtimes_of(host: Host, station: Station, folder: Path) -> list[Runtime]:
    """Native and Python launcher, as far as they can be made here."""
    settings = Settings(socket=str(station.socket))
    made = []
    for kind in ("native", "python"):
        with suppress(UnsupportedError):
            install_plugin(folder / kind, make_launcher(settings, kind))
            made.append(Runtime(host, folder / kind, execute=True, cache=folder / "cache"))
    return made


def storm(host: Host, station: Station, folder: Path, seconds: float, seed: int) -> None:
    before = dump(host)
    runtimes = runtimes_of(host, station, folder)
    containers = [host.container(f"c{number}") for number in range(CALLERS)]
    everyone = [(f"c{n}", f"eth{i}") for n in range(CALLERS) for i in range(len(NETWORKS))]
    callers = [
        Caller(
            runtimes,
            [Pod(f"c{n}", container.path, f"eth{i}") for i in range(len(NETWORKS))],
            everyone,
            random.Random(f"{seed}/{n}"),
        )
        for n, container in enumerate(containers)
    ]
    failures: list[BaseException] = []
    over = threading.Event()

    def run(caller: Caller) -> None:
        try:
            caller.run(time.monotonic() + seconds)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()

    def wait_for_callers() -> None:
        for thread in threads:
            thread.join()
        over.set()

    ender = threading.Thread(target=wait_for_callers)
    ender.start()
    kills = kill_again_and_again(station, random.Random(seed), over)
    ender.join()
    print(
        f"{sum(c.calls for c in callers)} calls, {sum(c.lost for c in callers)} lost, {kills} kills"
    )
    assert not failures, failures[0]
    assert kills
    demand_whole(host, callers)
    clean_up(host, station, callers, before)


def demand_whole(host: Host, callers: list[Caller]) -> None:
    """What was answered is what is there: every attachment whole, every address once."""
    site = Site(host)
    told = [
        (NETWORKS[number]["name"], ip["address"])
        for caller in callers
        for number, result in caller.results.items()
        if result is not None
        for ip in result["ips"]
    ]
    assert len(told) == len({*told})
    leases = [row[3:5] for row in site.rows()["leases"]]
    assert len(leases) == len({*leases}) == len(told)
    living = [(number, caller) for caller in callers for number in caller.results]
    assert len(site.rows()["records"]) == len(living)
    for number, caller in living:
        assert caller.call("CHECK", number)[0] == 0


def clean_up(host: Host, station: Station, callers: list[Caller], before: Json) -> None:
    """Half by DEL, half by GC: the host is as it was, the agent holds what a fresh one would."""
    for caller in callers[::2]:
        for number in tuple(caller.results):
            caller.delete(number)
    for number in range(len(NETWORKS)):
        assert callers[0].call("GC", number, **{"cni.dev/valid-attachments": []})[0] == 0
    assert not differing(before, dump(host))
    assert not state_rows(host)
    for caller in callers:
        for name in {pod.netns for pod in caller.pods}:
            links = json.loads(host.run(f"nsenter --net={name} ip -j link"))
            assert [link["ifname"] for link in links] == ["lo"]
    wait_for(lambda: len(station.descriptors()) < 80)
    station.stop()
    left = {path.name for path in station.folder.iterdir()}
    assert left <= {"state.db", "state.db-wal", "state.db-shm", "lock"}


def test_a_storm(host: Host, station: Station, tmp_path: Path) -> None:
    storm(host, station, tmp_path, 12, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_storm_of_ten_minutes(host: Host, station: Station, tmp_path: Path) -> None:
    storm(host, station, tmp_path, 600, seed=2)

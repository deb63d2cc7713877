"""One process alone, from its bundle, on a simulated host."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cni_exec import Pod, state_rows

from netplug.agent import build
from netplug.alone.make import ensure_bundle

if TYPE_CHECKING:
    from conftest import Host

NETWORK = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "bridge": "br0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}
# What one ADD may import besides netplug and what is built into Python or starts with it.
# A line more costs every call 0.2 to 20 ms: is there no lighter way?
LIBRARY = {
    *("_ctypes", "_heapq", "_json", "_queue", "_sha2", "_sha256", "_socket"),
    *("_sqlite3", "_struct", "_weakrefset", "collections", "collections.abc", "contextlib"),
    *("ctypes", "ctypes._endian", "errno", "fcntl", "functools", "heapq"),
    *("importlib", "importlib._abc", "importlib.util", "ipaddress", "itertools", "keyword"),
    *("math", "operator", "queue", "reprlib", "struct"),
    *("threading", "types", "warnings"),
}
SLOW = {
    "datetime",
    "pydantic",
    "typer",
    "iptc",
    "pyroute2",
    "re",
    "enum",
    "inspect",
    "typing",
    "pathlib",
}


def call(host: Host, verb: str, pod: Pod, network: dict[str, Any], *flags: str) -> tuple[str, str]:
    """stdout and stderr of the program that launchers become without an agent."""
    done = host.call(
        lambda: subprocess.run(
            [sys.executable, "-IS", *flags, "-c", build.Settings().code, "netplug"],
            input=json.dumps(network),
            env=pod.environ(verb, "/nonexistent"),
            capture_output=True,
            text=True,
            check=False,
        )
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture(autouse=True)
def bundle() -> None:
    assert ensure_bundle(build.PATHS) == ""


def imported(log: str) -> set[str]:
    lines = [line for line in log.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def test_the_import_list_of_an_add_does_not_grow(host: Host) -> None:
    bare = subprocess.run(
        [sys.executable, "-IS", "-X", "importtime", "-c", "import os"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = (Pod(name, host.container(name).path) for name in ("c1", "c2"))
    call(host, "ADD", first, NETWORK)  # this configuration is new: pydantic checks it
    _, log = call(host, "ADD", second, NETWORK, "-X", "importtime")
    found = {name for name in imported(log) if name.partition(".")[0] != "netplug"}
    more = found - imported(bare.stderr) - set(sys.builtin_module_names) - LIBRARY - {"__future__"}
    assert not more & SLOW
    assert not more
    _, log = call(host, "DEL", second, NETWORK, "-X", "importtime")
    assert not imported(log) & SLOW
    call(host, "DEL", first, NETWORK)
    assert not state_rows(host)


def test_a_configuration_seen_first_starts_over_with_the_same_answer(host: Host) -> None:
    pods = [Pod(name, host.container(name).path) for name in ("c1", "c2")]
    answers = [json.loads(call(host, "ADD", pod, NETWORK)[0]) for pod in pods]
    for answer, address in zip(answers, ("10.1.0.2/24", "10.1.0.3/24"), strict=True):
        assert [ip["address"] for ip in answer["ips"]] == [address]
    assert answers[0].keys() == answers[1].keys()
    for pod in pods:
        call(host, "DEL", pod, NETWORK)
    assert not state_rows(host)


@pytest.mark.parametrize(
    "keys",
    [
        {"driver": "macvlan", "master": "dev0", "hostAccess": True},
        {"driver": "ptp", "ipMasq": True},
        {"driver": "host-device", "device": "dev0"},
    ],
    ids=lambda keys: str(keys["driver"]),
)
def test_every_driver_works_in_one_process(host: Host, keys: dict[str, Any]) -> None:
    """The second time from the bundle, for options that were found right before."""
    host.run("ip link add dev0 type veth && ip link set dev0 up")
    network = {key: NETWORK[key] for key in ("cniVersion", "name", "type", "ipam")} | keys
    pod = Pod("web", host.container("web").path)
    for _ in range(2):
        answer = json.loads(call(host, "ADD", pod, network)[0])
        assert answer["interfaces"][-1]["name"] == "eth0"
        call(host, "CHECK", pod, {**network, "prevResult": answer})
        call(host, "DEL", pod, network)
    assert not state_rows(host)
    assert "dev0" in host.run("ip link")

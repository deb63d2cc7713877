"""DEL succeeds and leaves nothing, whatever became of the container, the links or the state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attaching import differing, dump
from cni_exec import Json, Pod, Runtime, dual_stack_network, pairwise, state_rows

from netplug.host import default_state_folder
from netplug.model import Attachment

if TYPE_CHECKING:
    from conftest import Host

NETWORK = dual_stack_network(macspoofchk=True)
WISHES = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000,
                  "egressBurst": 400_000},
}  # fmt: skip
HOST_END = Attachment("lan", "web", "eth0").host_name
GARBAGE: Json = {"interfaces": 5, "ips": "10.1.0.2", "cniVersion": "nonsense"}

FACTORS = {
    "netns": ("ok", "missing", "empty", "file", "reused"),
    "link": ("there", "gone", "renamed inside", "renamed outside", "moved"),
    "previous": ("yes", "no", "garbage"),
    "wishes": (True, False),  # runtimeConfig
    "bridge": (True, False),
}


@pytest.fixture
def runtime(host: Host, tmp_path: Path) -> Runtime:
    return Runtime(host, tmp_path, cache=tmp_path / "cache")


@pytest.fixture
def spawn(host: Host) -> Iterator[Callable[[], str]]:
    """Makes network namespaces; their paths. Whatever is at those paths goes at the end."""
    paths: list[str] = []

    def make() -> str:
        paths.append(f"/run/netns/{host.name}-{len(paths)}")
        subprocess.run(["ip", "netns", "add", os.path.basename(paths[-1])], check=True)
        return paths[-1]

    yield make
    for path in paths:
        vacate(path)


def vacate(path: str) -> None:
    subprocess.run(["umount", "-l", path], capture_output=True, check=False)
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def changed_place(kind: str, path: str, other: str) -> Iterator[str]:
    """What CNI_NETNS says and what is there. Through a descriptor the namespace lives on."""
    held = os.open(path, os.O_RDONLY)
    try:
        if kind in ("missing", "file", "reused"):
            vacate(path)
        if kind in ("file", "reused"):
            Path(path).touch()
        if kind == "reused":
            subprocess.run(["mount", "--bind", other, path], check=True)
        yield "" if kind == "empty" else path
    finally:
        os.close(held)


def change_link(host: Host, path: str, other: str, kind: str) -> None:
    inside = f"nsenter --net={path} ip link set eth0"
    if kind == "gone":
        host.run(f"ip link delete {HOST_END}")
    elif kind == "renamed inside":
        host.run(f"{inside} down && {inside} name other0")
    elif kind == "renamed outside":
        host.run(f"ip link set {HOST_END} down && ip link set {HOST_END} name other0")
    elif kind == "moved":
        host.run(f"{inside} netns {os.path.basename(other)} name moved0")


def links(host: Host) -> list[str]:
    return [name for _, name in host.call(socket.if_nameindex)]


def delete_request(runtime: Runtime, result: Json, previous: str, pod: Pod) -> Json:
    plugin = NETWORK["plugins"][0]
    told = {"yes": result, "no": None, "garbage": GARBAGE}[previous]
    return runtime.request(NETWORK, plugin, pod, told)


def test_delete_whatever_happened(runtime: Runtime, spawn: Callable[[], str]) -> None:
    walk_cases(runtime, spawn, pairwise(FACTORS))


@pytest.mark.long
def test_delete_whatever_happened_in_every_combination(
    runtime: Runtime, spawn: Callable[[], str]
) -> None:
    everything = [dict(zip(FACTORS, row, strict=True)) for row in product(*FACTORS.values())]
    walk_cases(runtime, spawn, everything)


def walk_cases(runtime: Runtime, spawn: Callable[[], str], cases: list[Json]) -> None:
    """Three calls of DEL in each case; a bystander's interface of the same name is left alone."""
    host, other = runtime.host, spawn()
    host.run(f"nsenter --net={other} ip link add eth0 type bridge")
    before = dump(host)
    for case in cases:
        path = spawn()
        result = runtime.add(NETWORK, Pod("web", path, wishes=WISHES))
        change_link(host, path, other, case["link"])
        if not case["bridge"]:
            host.run("ip link delete br0")
        with changed_place(case["netns"], path, other) as named:
            pod = Pod("web", named, wishes=WISHES if case["wishes"] else {})
            request = delete_request(runtime, result, case["previous"], pod)
            for _ in range(3):
                answer = runtime.call("DEL", request, pod)
                assert (answer.code, answer.stdout) == (0, ""), (case, answer)
                assert links(host) == ["lo"], case
                assert not state_rows(host), case
        vacate(path)
        remaining = host.run(f"nsenter --net={other} ip -o link")
        assert "eth0" in remaining, case
        assert "moved0" not in remaining, case
    assert not differing(before, dump(host))


def test_a_delete_without_any_add(runtime: Runtime) -> None:
    plugin = NETWORK["plugins"][0]
    odd = ("/", "/dev/null", "/etc/passwd", "/proc/1/ns/nothing", "/proc/self/ns/uts", "x" * 5000)
    for netns in ("", "/run/netns/never", "relative/path", *odd):
        request = runtime.request(NETWORK, plugin, Pod("web"))
        assert runtime.call("DEL", request, Pod("web", netns)).code == 0, netns
    assert links(runtime.host) == ["lo"]


def test_a_delete_with_a_configuration_gone_bad(runtime: Runtime) -> None:
    host, before = runtime.host, dump(runtime.host)
    bad: list[Json] = [
        {"bridge": 5, "mtu": "x", "ipam": {"type": "netplug", "ranges": "x"}},
        {"ipam": 5, "sysctl": [], "dns": 7, "args": "x", "runtimeConfig": 5},
        {"driver": "nonsense", "isGatway": True},
    ]
    for number, keys in enumerate(bad):
        container = host.container(f"c{number}")
        runtime.add(NETWORK, Pod("web", container.path, wishes=WISHES))
        request = {"cniVersion": "1.1.0", "name": "lan", "type": "netplug", **keys}
        pod = Pod("web", container.path, args="nonsense;==")
        assert runtime.call("DEL", request, pod).code == 0
        assert not differing(before, dump(host))


def test_a_delete_tells_what_containerd_would_take_for_success_in_other_words(
    runtime: Runtime, tmp_path: Path
) -> None:
    """go-cni swallows errors with `not found` in them, and would not try again."""
    request = {"cniVersion": "1.1.0", "name": "lan", "type": "netplug", "ipam": {"type": "absent"}}
    answer = runtime.call("DEL", request, Pod("web"))
    assert answer.code
    assert "not found" not in answer.stdout
    assert "no such file" not in answer.stdout


# --- a damaged state


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 512] = os.urandom(512)
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(os.urandom(8192)),
    "text": lambda path: path.write_text("not a database\n"),
    "cut": cut,
    "scribbled": scribble,
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def state() -> Iterator[Path]:
    """The real state file, its log folded into it; afterwards as new."""
    path = default_state_folder() / "state.db"
    yield path
    for part in path.parent.glob("state.db*"):
        part.unlink()


def fold_log(path: Path) -> None:
    for part in ("-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)


@pytest.mark.in_process  # an agent ends where the log is taken away under it
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_blocks_neither_delete_nor_add(
    runtime: Runtime, state: Path, damage: str
) -> None:
    host = runtime.host
    web, db = host.container("web"), host.container("db")
    pod = Pod("web", web.path, wishes=WISHES)
    runtime.add(NETWORK, pod)
    fold_log(state)
    DAMAGE[damage](state)
    runtime.delete(NETWORK, pod)
    assert HOST_END not in links(host)
    assert "8080" not in host.run("nft list ruleset")
    runtime.delete(NETWORK, pod)
    DAMAGE[damage](state)
    second = Pod("db", db.path, wishes=WISHES)
    runtime.add(NETWORK, second)
    runtime.check(NETWORK, second)
    runtime.delete(NETWORK, second)
    assert not state_rows(host)


@pytest.mark.in_process
def test_a_damaged_state_is_kept_aside(runtime: Runtime, state: Path) -> None:
    """Its owner may want to look into it; the log says where it is."""
    state.write_text("not a database\n")
    request = runtime.request(NETWORK, NETWORK["plugins"][0], Pod("web"))
    answer = runtime.call("DEL", request, Pod("web"))
    (kept,) = state.parent.glob("state.db.damaged-*")
    assert kept.read_text() == "not a database\n"
    assert str(kept) in answer.log


def test_a_damaged_cache_is_no_hindrance(runtime: Runtime, tmp_path: Path) -> None:
    """Its reader is libcni, which then calls without prevResult."""
    host = runtime.host
    pod = Pod("web", host.container("web").path, wishes=WISHES)
    runtime.add(NETWORK, pod)
    (cached,) = (tmp_path / "cache").iterdir()
    cached.unlink()
    assert json.dumps(runtime.cached(NETWORK, pod)) == "null"
    runtime.delete(NETWORK, pod)
    assert links(host) == ["lo"]

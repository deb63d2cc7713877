"""What ADD, CHECK, GC and STATUS promise beyond the happy path, through the CNI interface."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attaching import Site, differing, dump, make_network, state_rows_of
from cni_exec import NOBODY, Answer, Json, Pod, Runtime, serve_in, state_rows

from netplug.host import default_state_folder
from netplug.model import Attachment

if TYPE_CHECKING:
    from conftest import Host

CHECK_FAILED, CONFLICT, UNAVAILABLE, WRONG_NETNS = 104, 102, 50, 8


def conflist(name: str = "lan", **keys: Any) -> Json:
    plugin = {
        "type": "netplug",
        "bridge": "br0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "capabilities": {"portMappings": True, "bandwidth": True},
        "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
    }
    return {"cniVersion": "1.1.0", "name": name, "plugins": [{**plugin, **keys}]}


LAN = conflist()
WISHES = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
}


@pytest.fixture
def runtime(host: Host, tmp_path: Path) -> Runtime:
    return Runtime(host, tmp_path, cache=tmp_path / "cache")


def ask(
    runtime: Runtime,
    command: str,
    network: Json,
    pod: Pod = NOBODY,
    *,
    previous: Json | None = None,
) -> Answer:
    """One verb of the network's one plugin, whatever it answers."""
    request = runtime.request(network, network["plugins"][0], pod, previous)
    return runtime.call(command, request, pod)


# --- ADD


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_plugins_own_namespace_is_refused_before_any_work(
    runtime: Runtime, command: str
) -> None:
    host, before = runtime.host, dump(runtime.host)
    answer = ask(runtime, command, LAN, Pod("web", host.path))
    assert answer.code == WRONG_NETNS
    assert not differing(before, dump(host))
    assert not state_rows(host)


def test_the_override_lets_the_own_namespace_through(runtime: Runtime) -> None:
    """Some put a machine's own interface on a bridge of it."""
    host = runtime.host
    pod = Pod("web", host.path, ifname="own0")
    environ = {**pod.environ("ADD", "/nowhere"), "CNI_NETNS_OVERRIDE": "True"}
    request = {**LAN["plugins"][0], "cniVersion": "1.1.0", "name": "lan", "isDefaultGateway": False}
    stdin = json.dumps(request).encode()
    before = dump(host)
    assert serve_in(host, environ, stdin).code == 0
    assert "own0" in host.run("ip -o link")
    assert serve_in(host, {**environ, "CNI_COMMAND": "DEL"}, stdin).code == 0
    assert not differing(before, dump(host))


def test_a_second_add_is_an_error_that_changes_nothing(runtime: Runtime) -> None:
    host = runtime.host
    web = host.container("web")
    pod = Pod("web", web.path, wishes=WISHES)
    runtime.add(LAN, pod)
    before, inside, rows = dump(host), dump(web), state_rows_of(Site(host))
    for previous in (None, runtime.cached(LAN, pod)):
        answer = ask(runtime, "ADD", LAN, pod, previous=previous)
        assert answer.code == CONFLICT
        assert "web" in answer.document["msg"]
    assert not differing([before, inside], [dump(host), dump(web)])
    assert state_rows_of(Site(host)) == rows
    runtime.check(LAN, pod)
    runtime.delete(LAN, pod)


def test_one_container_twice_on_one_network(runtime: Runtime) -> None:
    host = runtime.host
    web, before = host.container("web"), dump(host)
    pods = [Pod("web", web.path, ifname=ifname) for ifname in ("eth0", "eth1")]
    plain = conflist(isDefaultGateway=False, isGateway=True)
    given = {runtime.add(plain, pod)["ips"][0]["address"] for pod in pods}
    assert len(given) == 2
    runtime.delete(plain, pods[0])
    runtime.check(plain, pods[1])
    runtime.delete(plain, pods[1])
    assert not differing(before, dump(host))


def test_an_interface_that_is_there_already_stays(runtime: Runtime) -> None:
    host = runtime.host
    web, before = host.container("web"), dump(host)
    web.run("ip link add eth0 type bridge")
    pod = Pod("web", web.path)
    answer = ask(runtime, "ADD", LAN, pod)
    assert answer.code == CONFLICT
    assert "already exists" in answer.stdout
    assert ask(runtime, "DEL", LAN, pod).code == 0
    assert "eth0" in web.run("ip -o link")
    assert not differing(before, dump(host))
    assert not state_rows(host)


# --- CHECK

Break = Callable[["Host", "Host"], object]
HOST_END = Attachment("lan", "web", "eth0").host_name
BROKEN: dict[str, Break] = {
    "container link gone": lambda host, web: web.run("ip link delete eth0"),
    "container link down": lambda host, web: web.run("ip link set eth0 down"),
    "container link renamed": lambda host, web: web.run(
        "ip link set eth0 down && ip link set eth0 name moved0 && ip link set moved0 up"
    ),
    "wrong MAC": lambda host, web: web.run("ip link set eth0 address 02:00:00:00:00:99"),
    "MTU shrunk": lambda host, web: web.run("ip link set eth0 mtu 1300"),
    "container address gone": lambda host, web: web.run("ip addr flush dev eth0"),
    "default route gone": lambda host, web: web.run("ip route delete default"),
    "host end detached": lambda host, web: host.run(f"ip link set {HOST_END} nomaster"),
    "host end down": lambda host, web: host.run(f"ip link set {HOST_END} down"),
    "on another bridge": lambda host, web: host.run(
        f"ip link add br1 type bridge && ip link set {HOST_END} master br1"
    ),
    "bridge down": lambda host, web: host.run("ip link set br0 down"),
    "gateway address gone": lambda host, web: host.run("ip addr flush dev br0"),
    "forwarding off": lambda host, web: host.run("sysctl -qw net.ipv4.ip_forward=0"),
    "rules flushed": lambda host, web: host.run("nft flush ruleset"),
    "shaping gone": lambda host, web: host.run(f"tc qdisc del dev {HOST_END} root"),
    "hairpin flipped": lambda host, web: host.run(
        f"bridge link set dev {HOST_END} hairpin off isolated on"
    ),
    "namespace gone": lambda host, web: subprocess.run(
        ["ip", "netns", "delete", web.name], check=True
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_check_sees(runtime: Runtime, broken: str) -> None:
    host = runtime.host
    web = host.container("web")
    network = conflist(hairpinMode=True)
    pod = Pod("web", web.path, wishes=WISHES)
    previous = runtime.add(network, pod)
    runtime.check(network, pod)
    BROKEN[broken](host, web)
    answer = ask(runtime, "CHECK", network, pod, previous=previous)
    assert answer.code == CHECK_FAILED, answer
    assert answer.document["details"]
    runtime.delete(network, pod)
    assert not state_rows(host)


TOLERATED: dict[str, Break] = {
    "promiscuous": lambda host, web: web.run("ip link set eth0 promisc on"),
    "another address": lambda host, web: web.run("ip addr add 192.0.2.9/24 dev eth0"),
    "another route": lambda host, web: web.run("ip route add 198.51.100.0/24 via 10.1.0.1"),
    "a route in another table": lambda host, web: web.run(
        "ip route add default via 10.1.0.1 table 100"
    ),
    "a rule of somebody": lambda host, web: host.run(
        "nft 'add table inet mine; add chain inet mine c { type filter hook forward priority 0; }'"
    ),
    "another port": lambda host, web: host.run("ip link add br9 type bridge"),
    "an address of the admin": lambda host, web: host.run("ip addr add 192.0.2.1/24 dev br0"),
    "promiscuous bridge": lambda host, web: host.run("ip link set br0 promisc on"),
}  # fmt: skip


def test_check_lets_pass_what_is_somebody_elses(runtime: Runtime) -> None:
    host = runtime.host
    web = host.container("web")
    pod = Pod("web", web.path, wishes=WISHES)
    runtime.add(LAN, pod)
    for change in TOLERATED.values():
        change(host, web)
        runtime.check(LAN, pod)
    other = Pod("db", host.container("db").path)
    runtime.add(LAN, other)
    runtime.check(LAN, pod)
    runtime.delete(LAN, other)
    runtime.check(LAN, pod)
    runtime.delete(LAN, pod)


def test_check_takes_the_words_of_prev_result(runtime: Runtime) -> None:
    """A later plugin changed MAC, MTU, addresses and routes, and told so; a sandbox may be ""."""
    host = runtime.host
    web = host.container("web")
    pod = Pod("web", web.path)
    result = runtime.add(LAN, pod)
    web.run("ip link set eth0 address 02:00:00:00:00:42 mtu 1300")
    web.run("ip addr flush dev eth0 && ip addr add 10.1.0.77/24 dev eth0")
    told = json.loads(json.dumps(result))
    inner = next(i for i in told["interfaces"] if i["name"] == "eth0")
    inner |= {"mac": "02:00:00:00:00:42", "mtu": 1300}
    told["ips"][0]["address"] = "10.1.0.77/24"
    told["routes"] = []
    assert ask(runtime, "CHECK", LAN, pod, previous=result).code == CHECK_FAILED
    assert ask(runtime, "CHECK", LAN, pod, previous=told).code in (0, CHECK_FAILED)
    web.run("ip route add default via 10.1.0.1")
    assert ask(runtime, "CHECK", LAN, pod, previous=told).code == 0
    inner["sandbox"] = ""
    assert ask(runtime, "CHECK", LAN, pod, previous=told).code == 0
    runtime.delete(LAN, pod)


def test_check_changes_nothing(runtime: Runtime) -> None:
    host = runtime.host
    web = host.container("web")
    pod = Pod("web", web.path, wishes=WISHES)
    result = runtime.add(LAN, pod)
    for rules in ("kept", "flushed"):
        if rules == "flushed":
            host.run("nft flush ruleset")
        before, inside, rows = dump(host), dump(web), state_rows_of(Site(host))
        ask(runtime, "CHECK", LAN, pod, previous=result)
        assert not differing([before, inside], [dump(host), dump(web)])
        assert state_rows_of(Site(host)) == rows
    runtime.delete(LAN, pod)


def test_check_of_a_layer_2_network(runtime: Runtime) -> None:
    plugin = {"type": "netplug", "bridge": "br0", "ipam": {}}
    network = {"cniVersion": "0.4.0", "name": "flat", "plugins": [plugin]}
    pod = Pod("web", runtime.host.container("web").path)
    runtime.add(network, pod)
    runtime.check(network, pod)
    runtime.delete(network, pod)


# --- GC

VALID = "cni.dev/valid-attachments"
BEFORE_1_1 = "cni.dev/attachments"


def collect(runtime: Runtime, *names: str, ifname: str = "eth0", key: str = VALID) -> None:
    """GC of lan with a list of the living."""
    living = [{"containerID": name, "ifname": ifname} for name in names]
    request = {**runtime.request(LAN, LAN["plugins"][0], NOBODY), key: living}
    assert runtime.call("GC", request, NOBODY).code == 0


@pytest.fixture
def crowd(runtime: Runtime) -> dict[str, Pod]:
    """Three containers on lan, one on another network, all alive."""
    pods = {name: Pod(name, runtime.host.container(name).path) for name in ("a", "b", "c")}
    for pod in pods.values():
        runtime.add(LAN, pod)
    return pods


def wait_until(done: Callable[[], bool]) -> None:
    """The kernel ends a namespace in the background."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def owners(host: Host) -> list[str]:
    with Site(host).engine() as engine:
        return [record.attachment.container for record in engine.records()]


def test_gc_keeps_what_is_listed(runtime: Runtime, crowd: dict[str, Pod]) -> None:
    host = runtime.host
    elsewhere = conflist("wan", bridge="br1", ipam={"type": "netplug", "subnet": "10.2.0.0/24"})
    other = Pod("x", host.container("x").path)
    runtime.add(elsewhere, other)
    collect(runtime, "a", "c")
    assert owners(host) == ["a", "c", "x"]
    runtime.check(LAN, crowd["a"])
    collect(runtime, "c", "c", "unknown", key=BEFORE_1_1)
    assert owners(host) == ["c", "x"]
    collect(runtime, "c", ifname="eth1")
    assert owners(host) == ["x"]
    runtime.check(elsewhere, other)
    runtime.delete(elsewhere, other)
    assert not state_rows(host)


def test_gc_without_a_list_takes_only_the_dead(runtime: Runtime, crowd: dict[str, Pod]) -> None:
    host = runtime.host
    dead = Pod("dead", f"/run/netns/{host.name}-dead")
    subprocess.run(["ip", "netns", "add", os.path.basename(dead.netns)], check=True)
    runtime.add(LAN, dead)
    host.run(f"ip link delete {Attachment('lan', 'b', 'eth0').host_name}")  # b itself lives on
    subprocess.run(["ip", "netns", "delete", os.path.basename(dead.netns)], check=True)
    wait_until(lambda: Attachment("lan", "dead", "eth0").host_name not in host.run("ip -o link"))
    assert ask(runtime, "GC", LAN).code == 0
    assert owners(host) == ["a", "b", "c"]
    collect(runtime)
    assert not owners(host)
    assert not state_rows(host)


def test_gc_keeps_what_was_connected_by_hand(runtime: Runtime, crowd: dict[str, Pod]) -> None:
    """No engine lists attachments of `netplug connect`; only proof of death removes them."""
    site, host = Site(runtime.host), runtime.host
    shell = host.container("shell")
    network = make_network(isDefaultGateway=True, ipMasq=True)
    site.add(network, shell, "shell", via="cli")
    collect(runtime)
    assert owners(host) == ["shell"]
    host.run(f"ip link delete {Attachment('lan', 'shell', 'eth0').host_name}")
    collect(runtime)
    assert owners(host) == ["shell"]  # its namespace lives
    site.delete(site.attachment(network, shell, "shell"))


def test_gc_finds_by_their_marks_what_no_record_knows(
    runtime: Runtime, crowd: dict[str, Pod]
) -> None:
    host = runtime.host
    for part in default_state_folder().glob("state.db*"):
        part.unlink()
    collect(runtime, "a")
    links = host.run("ip -o link")
    assert Attachment("lan", "a", "eth0").host_name in links
    assert Attachment("lan", "b", "eth0").host_name not in links
    for pod in crowd.values():
        runtime.delete(LAN, pod)
    assert "veth" not in host.run("ip -o link")


def test_libcni_gc_of_the_cached(runtime: Runtime, crowd: dict[str, Pod]) -> None:
    runtime.gc(LAN, [crowd["b"]])
    assert owners(runtime.host) == ["b"]
    runtime.gc(LAN, None)
    assert not owners(runtime.host)
    assert not state_rows(runtime.host)


# --- STATUS


def test_status_of_a_fresh_host_and_of_one_in_use(runtime: Runtime, crowd: dict[str, Pod]) -> None:
    assert ask(runtime, "STATUS", conflist("fresh", bridge="br7")).code == 0
    assert ask(runtime, "STATUS", LAN).code == 0
    runtime.gc(LAN, [])


def test_status_of_a_wrong_link_under_the_bridges_name(runtime: Runtime) -> None:
    runtime.host.run("ip link add br0 type veth peer name other0")
    answer = ask(runtime, "STATUS", LAN)
    assert answer.code == UNAVAILABLE
    assert "br0" in answer.document["msg"]


def test_status_of_an_exhausted_pool(runtime: Runtime) -> None:
    host = runtime.host
    tiny = conflist(ipam={"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/30"}]]})
    pod = Pod("web", host.container("web").path)
    assert ask(runtime, "STATUS", tiny).code == 0
    runtime.add(tiny, pod)
    answer = ask(runtime, "STATUS", tiny)
    assert answer.code == UNAVAILABLE
    assert "10.1.0.2" in answer.document["details"] or "10.1.0.0/30" in answer.stdout
    runtime.delete(tiny, pod)
    assert ask(runtime, "STATUS", tiny).code == 0


def test_status_as_the_ipam_of_a_foreign_main_plugin(runtime: Runtime) -> None:
    ipam = {"type": "netplug-ipam", "subnet": "10.1.0.0/30"}
    config = {"cniVersion": "1.1.0", "name": "lan", "type": "bridge", "ipam": ipam}
    pod = Pod("web", runtime.host.container("web").path)

    def say(command: str) -> int:
        environ = pod.environ(command, "/nowhere")
        return serve_in(runtime.host, environ, json.dumps(config).encode(), "netplug-ipam").code

    assert [say("STATUS"), say("ADD"), say("STATUS")] == [0, 0, UNAVAILABLE]
    assert [say("DEL"), say("STATUS")] == [0, 0]


@pytest.fixture
def read_only_state() -> Iterator[None]:
    folder = default_state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "sandbox", folder], check=True)
    yield
    subprocess.run(["umount", folder], check=True)


def test_status_of_a_state_that_cannot_be_written(runtime: Runtime, read_only_state: None) -> None:
    answer = ask(runtime, "STATUS", LAN)
    assert answer.code == UNAVAILABLE
    assert str(default_state_folder()) in answer.stdout


def test_a_full_disk_is_no_defect_of_ours(runtime: Runtime) -> None:
    folder = default_state_folder()
    pod = Pod("web", runtime.host.container("web").path)
    before = dump(runtime.host)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "full", folder], check=True)
    try:
        assert ask(runtime, "STATUS", LAN).code == 0
        with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        answer = ask(runtime, "ADD", LAN, pod)
        assert answer.code == 5
        assert str(folder) in answer.stdout
        assert not differing(before, dump(runtime.host))
        (folder / "filler").unlink()
        runtime.add(LAN, pod)
        runtime.delete(LAN, pod)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # an agent may still look at it


@pytest.mark.in_process
def test_status_of_a_firewall_that_cannot_be_used(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netplug import host as hosts

    monkeypatch.setattr(hosts, "nft_problem", lambda fd: "the kernel has no nf_tables")
    answer = ask(runtime, "STATUS", conflist(firewall="nft"))
    assert answer.code == UNAVAILABLE
    assert "nf_tables" in answer.stdout


def test_status_of_a_foreign_ipam(runtime: Runtime, tmp_path: Path) -> None:
    """Its refusal is ours, with its code; where it is missing no ADD can succeed."""
    network = conflist(ipam={"type": "picky"})
    assert ask(runtime, "STATUS", network).code == UNAVAILABLE
    plugin = tmp_path / "picky"
    plugin.write_text('#!/bin/sh\necho \'{"code": 51, "msg": "daemon down"}\'\nexit 1\n')
    plugin.chmod(0o755)
    answer = ask(runtime, "STATUS", network)
    assert answer.code == 51
    assert "daemon down" in answer.stdout


def test_status_with_a_bad_configuration_is_a_bad_configuration(runtime: Runtime) -> None:
    assert ask(runtime, "STATUS", conflist(mtu="1500")).code == 7

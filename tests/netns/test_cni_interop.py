"""Among others' software: libcni's cache, foreign IPAM plugins, our IPAM under foreign mains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attaching import differing, dump
from cni_exec import (
    CACHE,
    NOBODY,
    Json,
    PluginFailed,
    Pod,
    Runtime,
    reference_plugins,
    serve_in,
    state_rows,
)

from netplug.cni.cache import cnitool_container

if TYPE_CHECKING:
    from conftest import Host

DELEGATE_FAILED = 106


# --- `netplug connect` and cnitool


@pytest.fixture
def command(host: Host) -> Iterator[Any]:
    """The command line on the host, with the machine's usual folders (those of the sandbox)."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NETPLUG_ST")}

    def run(*words: str) -> str:
        program = Path(sys.executable).parent / "netplug"
        done = host.call(
            lambda: subprocess.run(
                [program, *words], capture_output=True, text=True, check=False, env=environ
            )
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    for folder in (Path("/etc/cni/net.d"), CACHE):
        for path in folder.glob("*"):
            path.unlink()
        if folder.exists():
            folder.rmdir()


def read_conflist(name: str) -> Json:
    for path in Path("/etc/cni/net.d").glob("*.conflist"):
        network: Json = json.loads(path.read_text())
        if network["name"] == name:
            return network
    raise AssertionError(f"no conflist of {name}")


@pytest.fixture
def libcni(host: Host, tmp_path: Path) -> Runtime:
    return Runtime(host, tmp_path)


def test_cnitool_deletes_what_connect_added(host: Host, libcni: Runtime, command: Any) -> None:
    web, before = host.container("web"), dump(host)
    command("network", "create", "lan", "--subnet", "10.1.0.0/24")
    command("connect", web.name, "lan", "-p", "8080:80", "--ingress", "10M", "--name", "shop")
    (cached,) = CACHE.iterdir()
    container = json.loads(cached.read_text())["containerId"]
    network, pod = libcni.recall("lan", container, "eth0")
    assert network == read_conflist("lan")
    assert pod.netns == web.path
    assert pod.wishes["portMappings"]
    libcni.check(network, pod)
    libcni.delete(network, pod)
    assert json.loads(command("ps", "--json")) == []
    assert not differing(before, dump(host))
    assert not state_rows(host)


def test_disconnect_removes_what_cnitool_added(host: Host, libcni: Runtime, command: Any) -> None:
    web, before = host.container("web"), dump(host)
    command("network", "create", "lan", "--subnet", "10.1.0.0/24")
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod = Pod(cnitool_container(web.path), web.path, wishes={"portMappings": ports})
    network = read_conflist("lan")
    libcni.add(network, pod)
    (shown,) = json.loads(command("ps", "--json"))
    assert shown["attachment"]["container"] == pod.container
    command("disconnect", web.path, "lan")
    assert not list(CACHE.iterdir())
    assert not differing(before, dump(host))
    libcni.delete(network, pod)  # an engine that has not heard of it
    assert not state_rows(host)


def test_connect_refuses_what_cnitool_added_already(
    host: Host, libcni: Runtime, command: Any
) -> None:
    web = host.container("web")
    command("network", "create", "lan", "--subnet", "10.1.0.0/24")
    pod = Pod(cnitool_container(web.path), web.path)
    network = read_conflist("lan")
    libcni.add(network, pod)
    with pytest.raises(AssertionError, match="already"):
        command("connect", web.path, "lan", "--ifname", "eth0")
    libcni.check(network, pod)
    libcni.delete(network, pod)


# --- foreign IPAM plugins under our main

SCRIPT = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>{folder}/calls
cat >{folder}/stdin.$CNI_COMMAND
[ ! -e {folder}/fail.$CNI_COMMAND ] || {{ cat {folder}/fail.$CNI_COMMAND; exit 1; }}
[ "$CNI_COMMAND" != ADD ] || cat {folder}/result
"""


class ScriptedIpam:
    """A shell script as IPAM plugin: it answers what it is told, and notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = folder / "scripted"
        script.write_text(SCRIPT.format(folder=folder))
        script.chmod(0o755)
        self.answer({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24"}]})

    def answer(self, result: object) -> None:
        text = result if isinstance(result, str) else json.dumps(result)
        (self.folder / "result").write_text(text)

    def fail(self, command: str, error: object) -> None:
        (self.folder / f"fail.{command}").write_text(json.dumps(error))

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def stdin(self, command: str) -> Json:
        return dict(json.loads((self.folder / f"stdin.{command}").read_text()))


@pytest.fixture
def scripted(tmp_path: Path) -> ScriptedIpam:
    return ScriptedIpam(tmp_path)


@pytest.fixture
def runtime(host: Host, tmp_path: Path) -> Runtime:
    return Runtime(host, tmp_path, cache=tmp_path / "cache")


def conflist(ipam: Json, version: str = "1.1.0", **keys: Any) -> Json:
    plugin = {"type": "netplug", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True}
    capabilities = {"portMappings": True}
    plugins = [{**plugin, "capabilities": capabilities, "ipam": ipam, **keys}]
    return {"cniVersion": version, "name": "lan", "plugins": plugins}


WISHES = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_shell_script_gives_the_addresses(
    runtime: Runtime, scripted: ScriptedIpam, version: str
) -> None:
    """In any shape that the version has; without cniVersion it is taken for the config's."""
    host = runtime.host
    web, before = host.container("web"), dump(host)
    if version < "0.3":
        scripted.answer({"ip4": {"ip": "10.1.0.9/24"}, "ip6": {"ip": "fd00:1::9/64"}})
    else:
        scripted.answer({"ips": [{"address": "10.1.0.9/24", "version": "4"},
                                 {"address": "fd00:1::9/64", "gateway": "fd00:1::1"}]})  # fmt: skip
    network = conflist({"type": "scripted", "extra": {"Key": 1}}, version)
    pod = Pod("web", web.path, wishes=WISHES, args="IgnoreUnknown=1;K8S_POD_NAME=shop")
    runtime.add(network, pod)
    addresses = web.run("ip -o addr show dev eth0")
    assert "10.1.0.9/24" in addresses
    assert "fd00:1::9/64" in addresses
    assert scripted.stdin("ADD")["ipam"] == {"type": "scripted", "extra": {"Key": 1}}
    web.run("ping -c 1 -W 2 10.1.0.1 && ping -c 1 -W 2 fd00:1::1")
    runtime.check(network, pod)
    runtime.delete(network, pod)
    runtime.delete(network, pod)
    asked = ["ADD web eth0", "CHECK web eth0", "DEL web eth0", "DEL web eth0"]
    assert scripted.calls == [call for call in asked if version >= "0.4" or "CHECK" not in call]
    assert not differing(before, dump(host))
    assert not state_rows(host)


BAD_ANSWERS: dict[str, object] = {
    "nothing": "",
    "no JSON": "10.1.0.9/24",
    "no addresses": {"cniVersion": "1.1.0", "ips": []},
    "not an address": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9"}]},
    "another family of versions": {"cniVersion": "9.0.0", "ips": [{"address": "10.1.0.9/24"}]},
    "not an object": [],
    "a route that nobody can install": {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.9/24"}],
        "routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.1"}],
    },
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_bad_answer_is_undone(runtime: Runtime, scripted: ScriptedIpam, answer: str) -> None:
    host = runtime.host
    web, before = host.container("web"), dump(host)
    scripted.answer(BAD_ANSWERS[answer])
    network, pod = conflist({"type": "scripted"}), Pod("web", web.path, wishes=WISHES)
    with pytest.raises(PluginFailed) as failed:
        runtime.add(network, pod)
    assert failed.value.answer.code in (DELEGATE_FAILED, 105)
    assert scripted.calls == ["ADD web eth0", "DEL web eth0"]
    assert not differing(before, dump(host))
    assert not state_rows(host)
    assert "eth0" not in web.run("ip -o link")
    scripted.answer({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/24"}]})
    runtime.add(network, pod)
    runtime.delete(network, pod)
    assert not differing(before, dump(host))


def test_its_error_keeps_code_and_words(runtime: Runtime, scripted: ScriptedIpam) -> None:
    scripted.fail("ADD", {"code": 11, "msg": "pool is momentarily empty"})
    pod = Pod("web", runtime.host.container("web").path)
    with pytest.raises(PluginFailed) as failed:
        runtime.add(conflist({"type": "scripted"}), pod)
    assert failed.value.answer.code == 11
    assert "momentarily empty" in failed.value.answer.stdout
    assert not state_rows(runtime.host)


def test_a_failing_release_is_told_and_made_good_later(
    runtime: Runtime, scripted: ScriptedIpam
) -> None:
    """The link goes at once; the record stays until the address is really given back."""
    host = runtime.host
    network, pod = conflist({"type": "scripted"}), Pod("web", host.container("web").path)
    before = dump(host)
    runtime.add(network, pod)
    scripted.fail("DEL", {"code": 999, "msg": "daemon down"})
    with pytest.raises(PluginFailed, match="daemon down"):
        runtime.delete(network, pod)
    assert not differing(before, dump(host))
    (scripted.folder / "fail.DEL").unlink()
    runtime.delete(network, pod)
    assert not state_rows(host)


def test_status_and_gc_reach_it(runtime: Runtime, scripted: ScriptedIpam) -> None:
    host = runtime.host
    network = conflist({"type": "scripted"})
    pods = [Pod(name, host.container(name).path) for name in ("a", "b")]
    for number, pod in enumerate(pods):
        scripted.answer({"cniVersion": "1.1.0", "ips": [{"address": f"10.1.0.{9 + number}/24"}]})
        runtime.add(network, pod)
    plugin = network["plugins"][0]
    valid = [{"containerID": "a", "ifname": "eth0"}]
    request = {**runtime.request(network, plugin, NOBODY), "cni.dev/valid-attachments": valid}
    assert runtime.call("STATUS", request, NOBODY).code == 0
    assert runtime.call("GC", request, NOBODY).code == 0
    # DEL of the dead one, since hardly any IPAM plugin serves GC; then GC as the spec says
    assert scripted.calls[-3:] == ["STATUS  ", "DEL b eth0", "GC  "]
    assert scripted.stdin("GC")["cni.dev/valid-attachments"] == valid
    assert scripted.stdin("DEL")["ipam"] == {"type": "scripted"}
    runtime.delete(network, pods[0])
    assert not state_rows(host)


def test_the_static_plugin(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "static").symlink_to(reference_plugins() / "static")
    host = runtime.host
    web, before = host.container("web"), dump(host)
    addresses = [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::5/64"}]
    ipam = {"type": "static", "addresses": addresses, "routes": [{"dst": "192.0.2.0/24"}]}
    network, pod = conflist(ipam, "1.0.0"), Pod("web", web.path, wishes=WISHES)
    result = runtime.add(network, pod)
    assert [ip["address"] for ip in result["ips"]] == ["10.1.0.5/24", "fd00:1::5/64"]
    assert "192.0.2.0/24 via 10.1.0.1" in web.run("ip route")
    web.run("ping -c 1 -W 2 10.1.0.1")
    runtime.check(network, pod)
    runtime.delete(network, pod)
    runtime.delete(network, pod)
    assert not differing(before, dump(host))
    assert not state_rows(host)


# --- our IPAM, called by others


def test_we_answer_as_ipam_by_name_or_by_type(runtime: Runtime) -> None:
    """A foreign main executes its ipam.type with its own configuration on stdin."""
    host = runtime.host
    pod = Pod("web", host.container("web").path)
    for program, kind in (("netplug-ipam", "netplug-ipam"), ("netplug", "netplug")):
        ipam = {"type": kind, "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
        config = {"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "ipam": ipam}
        stdin = json.dumps(config).encode()
        answer = serve_in(host, pod.environ("ADD", "/nowhere"), stdin, program)
        assert answer.code == 0
        result = answer.document
        assert "interfaces" not in result
        assert result["ips"][0]["address"].startswith("10.1.0.")
        assert result["ips"][0]["gateway"] == "10.1.0.1"
        assert result["routes"] == [{"dst": "0.0.0.0/0"}]
        again = serve_in(host, pod.environ("ADD", "/nowhere"), stdin, program)
        assert again.code
        prev = json.dumps({**config, "prevResult": result}).encode()
        assert serve_in(host, pod.environ("CHECK", "/nowhere"), prev, program).code == 0
        for _ in range(2):
            assert serve_in(host, pod.environ("DEL", "/nowhere"), stdin, program).code == 0
        assert serve_in(host, pod.environ("CHECK", "/nowhere"), prev, program).code == 104
        assert not state_rows(host)
    assert "veth" not in host.run("ip -o link")


def test_ipam_for_a_main_that_gives_no_namespace(runtime: Runtime) -> None:
    """Some delegate before the namespace exists: the path need not open."""
    config = {
        "cniVersion": "1.1.0",
        "name": "lan",
        "type": "macvlan",
        "ipam": {"type": "netplug-ipam", "subnet": "10.1.0.0/24"},
    }
    stdin, pod = json.dumps(config).encode(), Pod("web", "/run/netns/later")
    answer = serve_in(runtime.host, pod.environ("ADD", "/x"), stdin, "netplug-ipam")
    assert answer.code == 0
    gc = {**config, "cni.dev/valid-attachments": [{"containerID": "web", "ifname": "eth0"}]}
    environ = NOBODY.environ("GC", "/x")
    assert serve_in(runtime.host, environ, json.dumps(gc).encode(), "netplug-ipam").code == 0
    assert state_rows(runtime.host)["leases"] == 1
    gc["cni.dev/valid-attachments"] = []
    assert serve_in(runtime.host, environ, json.dumps(gc).encode(), "netplug-ipam").code == 0
    assert not state_rows(runtime.host)

"""Launchers on simulated hosts: whose namespaces they pass, and the work without an agent."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cni_exec import Pod, execute_in, state_rows
from launching import KINDS, ScriptedAgent, Talk, Workshop

from netplug.agent.protocol import BEGIN, render_answer, render_refusal

if TYPE_CHECKING:
    from conftest import Host

NETWORK = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "driver": "bridge",
    "bridge": "np0",
    "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
}


@pytest.fixture(params=KINDS[:2])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Workshop, Path]:
    if request.param == "native" and not shutil.which("cc"):
        pytest.skip("no C compiler")
    workshop = Workshop(tmp_path)
    return workshop, workshop.make(request.param, interpreter=sys.executable)


def identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def test_each_host_passes_its_own_namespaces(
    make_host: Callable[[str], Host], launcher: tuple[Workshop, Path]
) -> None:
    workshop, program = launcher
    hosts = [make_host("a"), make_host("b")]

    def script(talk: Talk) -> None:
        talk.read()
        talk.send(BEGIN)
        talk.wait_for_go()
        talk.send(render_answer(0, b"{}", b""))

    with ScriptedAgent(workshop.socket, script) as agent:
        for host in hosts:
            pod = Pod("c1", host.container("c").path)
            answer = execute_in(host, program, pod.environ("ADD", "/opt/cni/bin"), b"{}")
            assert not answer.code
            *own, sandbox = agent.talks[-1].namespaces
            assert own == [identity(host.path)] + [
                identity(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")
            ]
            assert sandbox == identity(pod.netns)


@pytest.mark.parametrize("agent", ["none", "refuses", "dies"])
def test_the_work_is_done_without_an_agent(
    host: Host, launcher: tuple[Workshop, Path], agent: str
) -> None:
    workshop, program = launcher
    pod = Pod("c1", host.container("c").path)

    def script(talk: Talk) -> None:
        talk.read()
        if agent == "refuses":
            talk.send(render_refusal("not mine"))

    def call(command: str, netns: str) -> dict[str, object]:
        environ = Pod("c1", netns).environ(command, "/opt/cni/bin")
        answer = execute_in(host, program, environ, json.dumps(NETWORK).encode())
        assert not answer.code, answer
        return answer.document

    def work() -> None:
        assert call("ADD", pod.netns)["ips"]
        assert "10.9.0.2/24" in host.run(f"nsenter --net={pod.netns} ip addr show eth0")
        call("DEL", pod.netns)
        call("DEL", "")
        assert not state_rows(host)

    if agent == "none":
        work()
        return
    with ScriptedAgent(workshop.socket, script) as scripted:
        work()
        assert len(scripted.talks) == 3 and not scripted.went

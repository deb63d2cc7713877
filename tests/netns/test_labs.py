"""Labs as their users have them: the commands, without root, on the real kernel."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.errors import KernelRefused, PermissionRefused
from netplug.fixtures import parse_topology
from netplug.kernel.sandbox import end_sandbox, run_in_sandbox, start_sandbox
from netplug.labs.format import Lab, LabFile
from netplug.labs.library import find_lab, shipped
from netplug.labs.running import start
from netplug.labs.session import end_session, sessions, sweep
from netplug.labs.template import write_template
from netplug.labs.verifying import verify

NETPLUG = str(Path(sys.executable).with_name("netplug"))
NOBODY = 65534


@pytest.fixture(params=["user", pytest.param("own", marks=pytest.mark.long)])
def labs(request: pytest.FixtureRequest) -> Iterator[Labs]:
    """netplug lab as a user without any right, or as who runs the tests, who may be root; every
    lab ends with the test."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    found = Labs(folder, user=NOBODY if request.param == "user" else 0)
    if request.param == "user" and (os.geteuid() or not found.may_read()):
        found = Labs(folder, user=0)  # nobody else can be had: a clone that is closed to others
    yield found
    found.run("stop", "--all", check=False)
    shutil.rmtree(folder)
    shutil.rmtree(f"/tmp/netplug-labs-{NOBODY}", ignore_errors=True)


class Labs:
    def __init__(self, folder: Path, *, user: int) -> None:
        self.folder = folder
        self._user = user
        folder.chmod(0o777)
        self._environ = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        }

    @property
    def prefix(self) -> list[str]:
        who = [f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups"]
        return ["setpriv", *who] if self._user else []

    def may_read(self) -> bool:
        words = [*self.prefix, NETPLUG, "--version"]
        return not subprocess.run(words, capture_output=True, cwd="/").returncode

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, NETPLUG, "lab", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self._environ,
            cwd=self.folder,
        )
        if check and done.returncode:
            pytest.fail(f"netplug lab {' '.join(words)}\n{done.stdout}{done.stderr}")
        return done


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_shipped_lab_is_proven(path: Path) -> None:
    proof = verify(path, rounds=1)
    assert not proof.problems, "\n".join(proof.problems)


@pytest.mark.long
@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_shipped_lab_is_proven_twice_and_in_a_variant(path: Path) -> None:
    proof = verify(path, seed=12345)
    assert not proof.problems, "\n".join(proof.problems)


@pytest.mark.parametrize("labs", ["user", "own"], indirect=True)
def test_the_way_of_a_student(labs: Labs) -> None:
    said = labs.run("start", "veth-cable", "--student", "ana")
    assert "A cable between two namespaces" in said.stdout and "2 nodes in" in said.stderr
    assert labs.run("start", "veth-cable", check=False).returncode == 5, "it runs already"

    first = labs.run("check", check=False)
    assert first.returncode == 6 and "no link" not in first.stderr
    assert "expected: link to-blue in red" in first.stdout
    rungs = [labs.run("hint").stdout for _ in range(4)]
    assert [text[5:6] for text in rungs] == ["1", "2", "3", "3"]
    assert "type veth" in rungs[2]

    labs.run("exec", "host", "sh", "-c", rungs[2].partition("\n# in host\n")[2])
    steps = json.loads(labs.run("check", "--json", check=False).stdout)
    assert [step["status"] for step in steps] == ["done", "now", "later"]
    labs.run("reset", "address")
    mac = labs.run("exec", "blue", "cat", "/sys/class/net/to-red/address").stdout
    done = labs.run("check", "--answer", f"mac={mac}")
    assert "Every step is done" in done.stdout

    labs.run("exec", "blue", "ip", "link", "set", "to-red", "down")
    broken = labs.run("check", check=False)
    assert broken.returncode == 6 and "this worked, and broke again" in broken.stdout
    shown = labs.run("show", "--json")
    assert {node["name"] for node in json.loads(shown.stdout)["nodes"]} >= {"red", "blue", "host"}

    assert labs.run("exec", "red", "sh", "-c", "exit 7", check=False).returncode == 7
    assert labs.run("exec", "green", "true", check=False).returncode == 4
    assert "is gone" in labs.run("stop").stdout
    assert labs.run("check", check=False).returncode == 4


def test_inside_its_shell_the_same_commands_work(labs: Labs) -> None:
    labs.run("start", "one-namespace")
    labs.run("exec", "host", "ip", "netns", "add", "red")
    assert "ok  make" in labs.run("check", check=False).stdout, "what one shell made, all see"
    script = "netplug lab check; netplug lab hint; netplug lab stop"
    done = labs.run("exec", "host", "sh", "-c", script, check=False)
    assert "ok  make" in done.stdout and "Hint 1 of 3" in done.stdout
    assert "cannot be stopped from inside" in done.stderr


def test_a_break_and_fix_lab_is_mended(labs: Labs) -> None:
    labs.run("start", "broken-links", "--seed", "0")
    failed = labs.run("check", check=False)
    assert failed.returncode == 6
    assert "look at:" in labs.run("hint").stdout
    labs.run("exec", "wire", "ip", "link", "set", "red-eth0", "up")
    labs.run("exec", "gate", "sysctl", "-w", "net.ipv4.ip_forward=1")
    assert "Every step is done" in labs.run("check").stdout


def test_results_go_to_the_teacher(labs: Labs) -> None:
    labs.run("grade", "--new-key", "key")
    labs.run("start", "one-namespace", "--student", "ana")
    labs.run("reset", "loopback")
    labs.run("check", "--result", "ana.json", "--key", "key", check=False)
    table = labs.run("grade", "ana.json", "--key", "key", "--csv", "out.csv", "--json")
    (row,) = json.loads(table.stdout)
    assert (row["student"], row["passed"], row["signature"]) == ("ana", 2, "good")
    assert "ana" in (labs.folder / "out.csv").read_text()
    text = (labs.folder / "ana.json").read_text().replace('"passed": false', '"passed": true')
    (labs.folder / "ana.json").write_text(text)
    assert labs.run("grade", "ana.json", "--key", "key", check=False).returncode == 6


def test_any_topology_file_starts(labs: Labs) -> None:
    (labs.folder / "my.yaml").write_text(
        "hosts: {a: [10.0.0.1/24], b: [10.0.0.2/24]}\nswitches: {s: [a, b]}\n"
    )
    labs.run("start", "my.yaml")
    assert "1 received" in labs.run("exec", "a", "ping", "-c", "1", "10.0.0.2").stdout
    svg = labs.run("show", "--svg", "-").stdout
    assert svg.startswith("<svg") and "10.0.0.2/24" in svg
    clab = labs.run("export", "my.yaml").stdout
    (labs.folder / "other.clab.yml").write_text(clab)
    labs.run("start", "other.clab.yml")
    assert labs.run("check", check=False).returncode == 4, "two run, and none is named"
    labs.run("stop", "my")
    done = labs.run("exec", "b", "ping", "-c", "1", "10.0.0.1")
    assert "1 received" in done.stdout


def test_a_lab_that_brings_code_asks_first(labs: Labs) -> None:
    labs.run("new", "mine")
    folder = labs.folder / "mine"
    text = (folder / "lab.yaml").read_text() + "      - python: {call: 'own.py:look'}\n"
    (folder / "lab.yaml").write_text(text.replace("    hint:", "    hint: x\n    #", 1))
    (folder / "own.py").write_text("def look(world):\n    return True, 'e', 'f', 'm'\n")
    lines = (folder / "lab.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("    hint", "    #"))]
    (folder / "lab.yaml").write_text("\n".join(lines) + "\n")
    refused = labs.run("start", "mine", check=False)
    assert refused.returncode == 2 and "own.py:look" in refused.stderr, refused.stderr
    labs.run("start", "mine", "--yes")
    labs.run("reset", "cable")
    assert "Every step is done" in labs.run("check").stdout


MINI = """\
title: t
topology: {hosts: {m: [192.0.2.1/24], a: [], b: []}, switches: {s: [m]}}
steps:
  - {id: mend, task: t, hint: h, check: [%s]}
faults: {of: [%s]}
"""


@pytest.mark.parametrize(
    ("setup", "check", "fault"),
    [
        (
            "for n in a b; do ip link add link eth0 name eth1 netns $n type macvlan mode bridge\n"
            "ip -n $n link set eth1 up; done\n"
            "ip -n a address add 192.0.2.8/24 dev eth1; ip -n b address add 192.0.2.9/24 dev eth1",
            "{reach: {from: a, to: b}}",
            "{macvlan_private: {node: a, dev: eth1}}",
        ),
        (
            "ip link add br0 type bridge; ip link add p type veth peer name eth0 netns a\n"
            "ip link set p master br0 up; ip link set br0 up; ip -n a link set eth0 up\n"
            "bridge link set dev p hairpin on",
            "{port: {node: m, bridge: br0, links: [p], hairpin: true}}",
            "{no_hairpin: {node: m, bridge: br0, dev: p}}",
        ),
        (
            "ip link add p type veth peer name eth0 netns a; ip link set p up\n"
            "ip -n a link set eth0 up; ip address add 10.0.0.1/24 dev p\n"
            "ip -n a address add 10.0.0.2/24 dev eth0",
            "{reach: {from: m, to: 10.0.0.2, lands: a, proto: tcp, port: 80, data: 60000}}",
            "{slow: {node: m, dev: p}}",
        ),
        (
            "ip link add br0 type bridge; ip link set br0 up; ip address add 10.0.0.1/24 dev br0\n"
            "ip link add p type veth peer name eth0 netns a; ip link set p master br0 up\n"
            "ip -n a link set eth0 up; ip -n a address add 10.0.0.2/24 dev eth0",
            "{counter: {node: m, dev: p, of: received, from: m, to: 10.0.0.2, count: 20,"
            " at_least: 20}}, {counter: {node: m, dev: p, of: received, from: m, to: 10.0.0.2,"
            " at_least: 20, exists: false}}",
            "{not_enslaved: {node: m, dev: p, bridge: br0}}",
        ),
    ],
    ids=["macvlan_private", "no_hairpin", "slow", "counter"],
)
def test_faults_and_checks_of_small_labs(
    tmp_path: Path, setup: str, check: str, fault: str
) -> None:
    (tmp_path / "lab.yaml").write_text(MINI % (check, fault))
    (tmp_path / "text.md").write_text("why\n\n## mend: m\ndo\n### What happened\nso\n")
    (tmp_path / "solution.sh").write_text(f"## setup in m\n{setup}\n")
    proof = verify(tmp_path, rounds=1)
    assert not proof.problems, proof.problems


def test_a_lab_that_proves_nothing_is_refused(tmp_path: Path) -> None:
    write_template(str(tmp_path / "x"))
    path = tmp_path / "x" / "solution.sh"
    path.write_text(path.read_text().replace("ip -n blue link set to-red up", "true"))
    (problem, *_) = verify(tmp_path / "x", rounds=1).problems
    assert "the solution does not pass cable" in problem
    path.write_text("## cable\nfalse\n")
    assert "step cable in host fails" in verify(tmp_path / "x", rounds=1).problems[0]


def bare(name: str) -> Lab:
    keys = LabFile(title=name)
    return Lab(
        name, keys, parse_topology({"hosts": {"a": None}}, name=name), folder=None, values={}
    )


def test_a_killed_lab_leaves_nothing() -> None:
    session = start(bare("killed"), Path("x"))
    os.kill(session.pid, signal.SIGKILL)
    end_session(session)
    assert not session.running and not sessions()
    sweep()
    assert not session.folder.exists()


def test_a_start_that_fails_or_is_killed_leaves_nothing(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def refuse(_: object) -> None:
        raise PermissionRefused("no", "why", "hint")

    with pytest.raises(PermissionRefused) as raised:
        start_sandbox(refuse, lambda pid: None)
    assert raised.value.hint == "hint"

    def die(pid: int) -> None:  # as SIGKILL would, between the sandbox and its record
        pid_file.write_text(str(pid))
        os._exit(9)

    if (child := os.fork()) == 0:
        start_sandbox(lambda _: None, die)
    os.waitpid(child, 0)
    holder = int(pid_file.read_text())
    try:
        descriptor = os.pidfd_open(holder)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 10)[0], "it waits for somebody who is dead"
    finally:
        os.close(descriptor)


def test_work_inside_comes_back_with_its_result_or_error() -> None:
    pid = start_sandbox(lambda _: None, lambda _: None)
    try:
        assert run_in_sandbox(pid, os.getpid) != os.getpid()
        with pytest.raises(KernelRefused, match="ZeroDivisionError"):
            run_in_sandbox(pid, lambda: 1 // 0)
    finally:
        end_sandbox(pid)
    with pytest.raises(KernelRefused, match="cannot be entered"):
        run_in_sandbox(pid, os.getpid)


def test_find_lab_takes_paths(tmp_path: Path) -> None:
    write_template(str(tmp_path / "x"))
    assert find_lab(str(tmp_path / "x")) == tmp_path / "x"

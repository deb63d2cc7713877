"""The launchers against agents that answer, refuse, lie, hang and die, at every byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launching import CALL, KINDS, PATIENCE, Said, Script, ScriptedAgent, Talk, Workshop, alone, run

from netplug.agent import build, protocol
from netplug.agent.protocol import render_answer, render_refusal
from netplug.errors import UnsupportedError

ANSWER = render_answer(3, b"out", b"err")
LIMIT = protocol.PAYLOAD_LIMIT
ANSWERED = Said(b"out", 3, b"err")
LOST = Said(bytes(build.compute_values(build.Settings())["LOST"]), 1)  # type: ignore[arg-type]
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("launchers")
    yield Workshop(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=KINDS)
def make(workshop: Workshop, request: pytest.FixtureRequest) -> Make:
    """Makes launchers of one kind."""
    if request.param != "python" and not shutil.which("cc"):
        pytest.skip("no C compiler")

    def make(**options: str | int) -> Path:
        try:
            return workshop.make(request.param, **options)  # type: ignore[arg-type]
        except UnsupportedError as error:
            if request.param != "sanitized":
                raise
            pytest.skip(f"no sanitizers: {error.why}")

    return make


@pytest.fixture(scope="session")
def launcher(make: Make) -> Path:
    """One that gives up on nobody before the test does."""
    return make()


def begin(talk: Talk, then: bytes = ANSWER) -> None:
    """What an agent does that takes the call."""
    talk.read()
    talk.send(protocol.BEGIN)
    if talk.wait_for_go():
        talk.send(then)


def refuse(talk: Talk) -> None:
    talk.read()
    talk.send(render_refusal("not mine"))


# --- the request


def test_the_agent_gets_the_whole_call(workshop: Workshop, launcher: Path) -> None:
    extra = {"CNI_ARGS": "A=\udcffB", "TRACEPARENT": "00-1", "TRACESTATE": "", "BAGGAGE": "b"}
    unsaid = {"PATH": "/bin", "TRACE": "1", "CNI": "1", "TRACEPARENTS": "1", "PROGRAM": "x"}
    with ScriptedAgent(workshop.socket, begin) as agent:
        assert run(launcher, {**CALL, **extra, **unsaid}, b'{"name":\0}') == ANSWERED
    [talk] = agent.talks
    assert talk.call == protocol.Call("netplug", {**CALL, **extra}, b'{"name":\0}', True)
    assert talk.namespaces == [identity(name) for name in ("net", "mnt", "user", "net")]
    assert talk.after == protocol.GO


def identity(namespace: str) -> tuple[int, int]:
    found = os.stat(f"/proc/self/ns/{namespace}")
    return found.st_dev, found.st_ino


@pytest.mark.parametrize(
    ("netns", "gone"),
    [("", False), (None, False), ("/nowhere/at/all", True), ("/dev/null/below", True)],
)
def test_no_sandbox_is_told(
    workshop: Workshop, launcher: Path, netns: str | None, gone: bool
) -> None:
    environ = {name: value for name, value in CALL.items() if name != "CNI_NETNS"}
    environ |= {} if netns is None else {"CNI_NETNS": netns}
    with ScriptedAgent(workshop.socket, begin) as agent:
        assert run(launcher, environ) == ANSWERED
    [talk] = agent.talks
    assert talk.call == protocol.Call("netplug", environ, b"{}", sandbox_gone=gone)


def test_a_sandbox_that_cannot_be_opened_is_not_called_gone(
    workshop: Workshop, launcher: Path, tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with ScriptedAgent(workshop.socket, begin) as agent:
        assert run(launcher, {**CALL, "CNI_NETNS": str(loop)}) == alone()
    assert not agent.talks


def test_a_pipe_for_a_sandbox_does_not_block(
    workshop: Workshop, launcher: Path, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with ScriptedAgent(workshop.socket, begin):
        assert run(launcher, {**CALL, "CNI_NETNS": str(pipe)}) == ANSWERED


def test_the_name_of_the_program(workshop: Workshop, launcher: Path, tmp_path: Path) -> None:
    (link := tmp_path / "netplug-ipam").symlink_to(launcher)
    with ScriptedAgent(workshop.socket, begin) as agent:
        assert run(link) == ANSWERED
    assert agent.talks[0].call is not None and agent.talks[0].call.program == "netplug-ipam"
    assert run(link) == alone(program="netplug-ipam")


def test_much_stdin_and_much_stdout(workshop: Workshop, launcher: Path) -> None:
    stdin = os.urandom(8 << 20)
    answer = render_answer(0, stdin, b"err" * 9999)

    with ScriptedAgent(workshop.socket, lambda talk: begin(talk, answer)) as agent:
        assert run(launcher, stdin=stdin) == Said(stdin, 0, b"err" * 9999)
    assert agent.talks[0].call is not None and agent.talks[0].call.stdin == stdin


def test_more_stdin_than_the_agent_takes(workshop: Workshop, launcher: Path) -> None:
    stdin = os.urandom(1 << 16) * 320  # 20 MiB
    with ScriptedAgent(workshop.socket, begin) as agent:
        assert run(launcher, stdin=stdin) == alone(stdin)
    assert not agent.talks


# --- answers


@pytest.mark.parametrize(
    "answer",
    [Said(b"", 0), Said(b"{}", 1), Said(b"", 255, b"log\n"), Said(b"\0\xff", 0, b"\0")],
)
def test_answers_are_printed_as_they_are(workshop: Workshop, launcher: Path, answer: Said) -> None:
    frame = render_answer(answer.status, answer.stdout, answer.stderr)
    with ScriptedAgent(workshop.socket, lambda talk: begin(talk, frame)):
        assert run(launcher) == answer


def test_an_answer_in_single_bytes(workshop: Workshop, launcher: Path) -> None:
    def script(talk: Talk) -> None:
        begin(talk, b"")
        for byte in ANSWER:
            talk.send(bytes([byte]))

    with ScriptedAgent(workshop.socket, script):
        assert run(launcher) == ANSWERED


@pytest.mark.parametrize("size", range(len(ANSWER)))
def test_an_answer_that_ends_early(workshop: Workshop, launcher: Path, size: int) -> None:
    with ScriptedAgent(workshop.socket, lambda talk: begin(talk, ANSWER[:size])) as agent:
        assert run(launcher) == LOST
    assert agent.went == len(agent.talks) == 1


@pytest.mark.parametrize(
    "answer",
    [
        render_refusal("too late"),
        protocol.BEGIN * 20,
        b"R\0" + LIMIT.to_bytes(4, "little") + bytes(4),
        b"R\0" + b"\xff" * 8,
        b"B" + ANSWER[1:],
        b"R\0" + LIMIT.to_bytes(4, "little") * 2 + bytes(2 * LIMIT),
    ],
    ids=["refusal", "begin", "cut", "huge", "wrong-kind", "too-large"],
)
def test_an_answer_that_is_none(workshop: Workshop, launcher: Path, answer: bytes) -> None:
    with ScriptedAgent(workshop.socket, lambda talk: begin(talk, answer)) as agent:
        assert run(launcher) == LOST
    assert agent.went == len(agent.talks) == 1


def test_the_error_of_a_lost_call_says_what_to_do() -> None:
    error = json.loads(LOST.stdout)
    assert error["code"] == 11
    assert "DEL" in error["details"] and "try again" in error["details"]


# --- no agent, or one that does not take the call


@pytest.mark.parametrize(
    "first", [render_refusal("not mine"), b"", b"N", b"G", b"R", ANSWER, b"\0", b"HTTP/1.1 400"]
)
def test_without_begin_the_launcher_falls_back(
    workshop: Workshop, launcher: Path, first: bytes
) -> None:
    def script(talk: Talk) -> None:
        talk.read()
        talk.send(first)

    with ScriptedAgent(workshop.socket, script) as agent:
        assert run(launcher) == alone()
    assert len(agent.talks) == 1 and not agent.went


@pytest.mark.parametrize("size", [0, 1, 8, 9, 100, 100_000])
def test_an_agent_that_ends_before_it_has_read(
    workshop: Workshop, launcher: Path, size: int
) -> None:
    def script(talk: Talk) -> None:
        if size:
            talk.connection.recv(size)
        talk.connection.close()

    stdin = b"x" * 1_000_000  # more than the socket holds
    with ScriptedAgent(workshop.socket, script) as agent:
        assert run(launcher, stdin=stdin) == alone(stdin)
    assert len(agent.talks) == 1 and not agent.went


def test_an_agent_that_cannot_hear_go(workshop: Workshop, launcher: Path) -> None:
    """It has not begun: the byte never left."""

    def script(talk: Talk) -> None:
        talk.read()
        talk.connection.shutdown(socket.SHUT_RD)
        talk.send(protocol.BEGIN)

    with ScriptedAgent(workshop.socket, script) as agent:
        assert run(launcher) == alone()
    assert not agent.went


def test_an_agent_that_ends_once_it_was_told_to_go(workshop: Workshop, launcher: Path) -> None:
    """It may end before it reads the byte: the launcher cannot know, and must not do it again."""

    def script(talk: Talk) -> None:
        talk.read()
        talk.send(protocol.BEGIN)
        talk.connection.recv(1, socket.MSG_PEEK)
        talk.connection.close()

    with ScriptedAgent(workshop.socket, script):
        assert run(launcher) == LOST


def test_no_agent(workshop: Workshop, launcher: Path) -> None:
    assert run(launcher) == alone()


def test_a_socket_that_nobody_listens_on(workshop: Workshop, launcher: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(workshop.socket))
    try:
        assert run(launcher) == alone()
    finally:
        workshop.socket.unlink()


def test_an_agent_whose_queue_is_full(workshop: Workshop, launcher: Path) -> None:
    waiting = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workshop.socket))
        listener.listen(0)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(workshop.socket))
        except BlockingIOError:
            assert run(launcher) == alone()
        finally:
            workshop.socket.unlink()
            for connection in waiting:
                connection.close()


@pytest.mark.parametrize("size", [2, 8 << 20])
def test_a_hung_agent(workshop: Workshop, make: Make, size: int) -> None:
    """Small requests fit into the socket, large ones hang while they are sent."""
    hasty = make(answer_ms=200)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workshop.socket))
        listener.listen()
        try:
            assert run(hasty, stdin=b"x" * size) == alone(b"x" * size)
        finally:
            workshop.socket.unlink()


@pytest.mark.parametrize("size", [0, 1, len(ANSWER) - 1])
def test_an_agent_that_hangs_in_its_work(workshop: Workshop, make: Make, size: int) -> None:
    hasty = make(work_ms=200)
    over = threading.Event()

    def script(talk: Talk) -> None:
        begin(talk, ANSWER[:size])
        over.wait(PATIENCE)

    with ScriptedAgent(workshop.socket, script) as agent:
        assert run(hasty) == LOST
        over.set()
    assert agent.went == 1


def test_an_agent_that_answers_for_ever(workshop: Workshop, make: Make) -> None:
    """The bound is one for the whole answer, not one for each byte."""

    def script(talk: Talk) -> None:
        begin(talk, b"R\0" + LIMIT.to_bytes(4, "little") + bytes(4))
        while True:  # until the launcher is gone
            time.sleep(0.02)
            talk.send(b"x")

    with ScriptedAgent(workshop.socket, script):
        assert run(make(work_ms=200)) == LOST


def test_a_killed_launcher_has_begun_nothing(workshop: Workshop, launcher: Path) -> None:
    asked, killed = threading.Event(), threading.Event()

    def script(talk: Talk) -> None:
        talk.read()
        asked.set()
        killed.wait(PATIENCE)
        begin_again(talk)

    def begin_again(talk: Talk) -> None:
        talk.send(protocol.BEGIN)
        talk.wait_for_go()

    with ScriptedAgent(workshop.socket, script) as agent:
        process = subprocess.Popen([launcher], env=CALL, stdin=subprocess.DEVNULL)
        assert asked.wait(PATIENCE)
        process.kill()
        process.wait()
        killed.set()
    assert len(agent.talks) == 1 and not agent.went


def test_stop_and_continue(workshop: Workshop, launcher: Path) -> None:
    """A frozen launcher goes on where it was; its waiting may end with EINTR (signal(7))."""
    process: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def script(talk: Talk) -> None:
        talk.read()
        started.wait(PATIENCE)
        for answer in (protocol.BEGIN, ANSWER):
            process[0].send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process[0].pid, os.WSTOPPED | os.WNOWAIT)
            process[0].send_signal(signal.SIGCONT)
            talk.send(answer)
            if answer == protocol.BEGIN:
                talk.wait_for_go()

    with ScriptedAgent(workshop.socket, script) as agent:
        process.append(
            subprocess.Popen([launcher], env=CALL, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1)
        )
        started.set()
        assert process[0].communicate(timeout=PATIENCE) == (b"out", b"err")
    assert agent.went == 1


# --- descriptors


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(workshop: Workshop, launcher: Path, closed: str) -> None:
    command = ["/bin/sh", "-c", f'exec "$0" {closed}', str(launcher)]
    no_stdin, no_stdout = "<" in closed, " >" in f" {closed}"
    with ScriptedAgent(workshop.socket, begin) as agent:
        said = run(command)
    if no_stdin:  # the one-process plugin says what is wrong
        assert said.status != 3 and not agent.talks
        return
    assert said.status == (1 if no_stdout else 3)
    assert said.stdout == (b"" if no_stdout else b"out")
    assert said.stderr == (b"" if "2" in closed else b"err")
    assert agent.talks[0].namespaces == [identity(name) for name in ("net", "mnt", "user", "net")]


def test_pipes_that_do_not_block(workshop: Workshop, launcher: Path) -> None:
    text = os.urandom(1 << 20)
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    os.set_blocking(stdin, False)
    os.set_blocking(stdout, False)
    answering = threading.Event()

    def script(talk: Talk) -> None:
        answering.set()
        begin(talk, render_answer(0, text, b""))

    with ScriptedAgent(workshop.socket, script) as agent, open(drain, "rb") as output:
        process = subprocess.Popen([launcher], env=CALL, stdin=stdin, stdout=stdout)
        os.close(stdin)
        os.close(stdout)
        for part in (b"{", b"}"):
            os.write(feed, part)
        os.close(feed)
        assert answering.wait(PATIENCE)
        assert output.read() == text
        assert process.wait(PATIENCE) == 0
    assert agent.talks[0].call is not None and agent.talks[0].call.stdin == b"{}"


def test_a_reader_that_is_gone(workshop: Workshop, launcher: Path) -> None:
    """SIGPIPE would end the launcher without a word of why."""
    drain, stdout = os.pipe()
    os.close(drain)
    with ScriptedAgent(workshop.socket, begin) as agent:
        process = subprocess.Popen(
            [launcher], env=CALL, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout
        )
        os.close(stdout)
        assert process.wait(PATIENCE) == 1
    assert agent.went == 1


def test_the_one_process_plugin_finds_what_the_caller_left(workshop: Workshop, make: Make) -> None:
    """Environment, descriptors, folder: as if the launcher had not been there."""
    spy = workshop.interpreter(
        "spy", "#!/bin/sh\ncat /proc/$$/environ; pwd; cd /proc/$$/fd; echo *; cat\n"
    )
    environ = {**CALL, "LC_ALL": "C", "X": "1", "EMPTY": ""}
    for closed in ("", "2>&-"):
        shell = ["/bin/sh", "-c", f'exec "$0" {closed}']
        with ScriptedAgent(workshop.socket, refuse):
            through = run([*shell, str(make(interpreter=spy))], environ)
        assert through == run([*shell, spy], environ)


def test_a_vanished_interpreter(workshop: Workshop, make: Make) -> None:
    said = run(make(interpreter="/nowhere/python\"\\'"))
    error = json.loads(said.stdout)
    assert said.status == 1 and error["code"] == 5
    assert "/nowhere/python\"\\'" in error["details"] and "netplug install" in error["details"]


# --- answers without an agent


def test_version_and_about_are_those_of_the_plugin(
    workshop: Workshop, launcher: Path, tmp_path: Path
) -> None:
    one_process = [sys.executable, "-IS", "-c", build.Settings().code, "netplug-bridge"]
    (link := tmp_path / "netplug-bridge").symlink_to(launcher)
    with ScriptedAgent(workshop.socket, begin) as agent:
        for environ in ({"CNI_COMMAND": "VERSION"}, {}, {"CNI_COMMAND": ""}):
            assert run(link, environ) == run(one_process, environ)
    assert not agent.talks


def test_version_reads_no_stdin(launcher: Path) -> None:
    stdin, feed = os.pipe()
    with open(feed, "wb"), open(stdin, "rb") as never:
        done = subprocess.run(
            [launcher],
            env={"CNI_COMMAND": "VERSION"},
            stdin=never,
            capture_output=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0 and json.loads(done.stdout)["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
def test_a_version_that_cannot_be_printed(launcher: Path, stdout: str) -> None:
    command = ["/bin/sh", "-c", f'exec "$0" {stdout}', str(launcher)]
    said = run(command, {"CNI_COMMAND": "VERSION"})
    assert said == Said(b"", 1)


def test_an_incomplete_environment_does_not_wait_for_stdin(workshop: Workshop, make: Make) -> None:
    deaf = workshop.interpreter("deaf", "#!/bin/sh\necho missing; exit 1\n")
    stdin, feed = os.pipe()
    with open(feed, "wb"), open(stdin, "rb") as never:
        done = subprocess.run(
            [make(interpreter=deaf)],
            env={"CNI_COMMAND": "ADD"},
            stdin=never,
            capture_output=True,
            timeout=PATIENCE,
        )
    assert done.stdout == b"missing\n"


# --- any answer at all

FRAMES = st.builds(
    render_answer, st.integers(0, 255), st.binary(max_size=40), st.binary(max_size=40)
)
BROKEN = st.builds(
    lambda frame, at, byte: frame[:at] + byte + frame[at + 1 :],
    FRAMES,
    st.integers(0, 12),
    st.binary(max_size=1),
)


def expected(first: bytes, second: bytes) -> Said:
    """What a launcher must say to an agent that says `first`, hears go, says `second`."""
    if first[:1] != protocol.BEGIN:
        return alone()
    answer = first[1:] + second
    out, err = (int.from_bytes(answer[at : at + 4], "little") for at in (2, 6))
    if answer[:1] != b"R" or len(answer) < 10 + out + err:
        return LOST
    return Said(answer[10 : 10 + out], answer[1], answer[10 + out : 10 + out + err])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=st.one_of(st.binary(max_size=3), st.just(b"B"), st.builds(b"B".__add__, FRAMES)),
    second=st.one_of(FRAMES, BROKEN, st.binary(max_size=30)),
)
def test_any_answer(workshop: Workshop, launcher: Path, first: bytes, second: bytes) -> None:
    def script(talk: Talk) -> None:
        talk.read()
        talk.send(first)
        if talk.wait_for_go():
            talk.send(second)

    # an agent that sends nothing and waits would be a hung one
    opening: Script = script if first else lambda talk: None
    with ScriptedAgent(workshop.socket, opening) as agent:
        assert run(launcher) == expected(first, second)
    assert len(agent.talks) == 1
    assert agent.went == (first[:1] == protocol.BEGIN)

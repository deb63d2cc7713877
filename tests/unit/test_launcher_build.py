"""Making and installing launchers, and the framing that they share with the agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import Workshop, alone, run
from typer.testing import CliRunner

from netplug.agent import build, protocol
from netplug.agent.build import Settings, make_launcher
from netplug.cli.app import app
from netplug.errors import Conflict, DecodeError, InputError, UnsupportedError
from netplug.install import install_plugin, plugin_names

VERSION = {"CNI_COMMAND": "VERSION"}


def test_the_native_launcher_is_small() -> None:
    source = Path(build.__file__).with_name("launcher.c").read_text()
    assert len(source.splitlines()) < 200


def test_the_python_launcher_imports_what_is_written_in_c(tmp_path: Path) -> None:
    """What it imports is what it costs."""
    program = Workshop(tmp_path).make("python")
    command = [sys.executable, "-ISE", "-X", "importtime", str(program)]
    bare = [sys.executable, "-ISE", "-X", "importtime", "-c", "pass"]
    extra = imported(command) - imported(bare)
    assert extra <= {"marshal", "posix", "time", "_socket"}


def imported(command: list[str]) -> set[str]:
    done = subprocess.run(command, env=VERSION, capture_output=True, text=True, check=True)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def test_another_python_compiles_the_text_again(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    program = workshop.make("python")
    text = program.read_text()
    assert f"== {sys.hexversion} else" in text
    other = text.replace(f"== {sys.hexversion} else", "== 0 else")
    program.write_text(other)
    assert run(program) == alone()


def test_auto_is_native_where_a_compiler_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = make_launcher(Settings())
    assert found.kind.startswith("Python") and "no C compiler" in found.kind
    with pytest.raises(UnsupportedError, match="no C compiler"):
        make_launcher(Settings(), "native")


def test_a_compiler_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/bin/false")
    with pytest.raises(UnsupportedError, match="/bin/false makes no launcher"):
        make_launcher(Settings(), "native")
    monkeypatch.setattr("shutil.which", lambda _: "/bin/true")  # says yes, and makes nothing
    assert make_launcher(Settings()).kind.startswith("Python")


@pytest.mark.parametrize("kind", ["auto", "native", "python"])
def test_a_socket_that_the_kernel_cannot_take(kind: str) -> None:
    with pytest.raises(InputError, match="too long for a socket"):
        make_launcher(Settings(socket="/" + "x" * 107), kind)


@pytest.mark.parametrize("kind", ["python", "one-process"])
def test_an_interpreter_that_a_script_cannot_name(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("sys.executable", "/a b/python")
    with pytest.raises(InputError, match="first line"):
        make_launcher(Settings(), kind)


@pytest.mark.parametrize("kind", ["auto", "python", "one-process"])
def test_every_name_is_installed(tmp_path: Path, kind: str) -> None:
    written = install_plugin(tmp_path, make_launcher(Settings(), kind))
    assert written == [str(tmp_path / name) for name in plugin_names()]
    for path in map(Path, written):
        said = run(path, {})
        assert said.stderr.startswith(f"CNI {path.name} plugin v".encode()) and not said.status


def test_dnsname_is_installed_when_asked_for(tmp_path: Path) -> None:
    """podman 4 writes it into every network that it creates, once it is there."""
    assert str(tmp_path / "dnsname") in install_plugin(tmp_path, dnsname=True)
    assert (tmp_path / "dnsname").readlink() == Path("netplug")


def test_somebody_elses_dnsname_stays(tmp_path: Path) -> None:
    (tmp_path / "dnsname").write_text("podman's own")
    with pytest.raises(Conflict, match="is in the way"):
        install_plugin(tmp_path, dnsname=True)
    assert [path.name for path in tmp_path.iterdir()] == ["dnsname"]  # nothing half done


def test_a_running_plugin_is_replaced(tmp_path: Path) -> None:
    install_plugin(tmp_path, make_launcher(Settings(), "python"))
    old = (tmp_path / "netplug").stat().st_ino
    install_plugin(tmp_path, make_launcher(Settings(), "one-process"))
    assert (tmp_path / "netplug").stat().st_ino != old
    assert {path.name for path in tmp_path.iterdir()} == set(plugin_names())


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["install", "--bin-dir", str(tmp_path), "--python", "--json"])
    assert not done.exit_code and "the plugin is: Python" in done.stderr
    assert json.loads(done.stdout)["write"] == [str(tmp_path / name) for name in plugin_names()]
    assert run(tmp_path / "netplug", VERSION).stdout.startswith(b'{"cniVersion"')
    both = CliRunner().invoke(app, ["install", "--python", "--no-agent", "--dry-run"])
    assert both.exit_code and "exclude each other" in str(both.exception)


# --- framing


def payload(flags: int = 0, *variables: bytes, stdin: bytes = b"") -> bytes:
    return bytes([flags]) + b"".join(v + b"\0" for v in variables) + b"\0" + stdin


def test_a_payload_is_read_as_a_process_reads_its_environment() -> None:
    text = payload(1, b"PROGRAM=np", b"CNI_ARGS=a=b", b"CNI_ARGS=later", b"CNI_X=\xff", stdin=b"\0")
    assert protocol.parse_payload(text) == protocol.Call(
        "np", {"CNI_ARGS": "a=b", "CNI_X": "\udcff"}, b"\0", has_sandbox=True
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\0",
        payload(),
        payload(3, b"PROGRAM=np"),
        payload(8, b"PROGRAM=np"),
        payload(0, b"PROGRAM="),
        payload(0, b"PROGRAM=np", b"CNI_X"),
        payload(0, b"PROGRAM=np", b"LD_PRELOAD=/x"),
        payload(0, b"PROGRAM=np")[:-1],
        payload(0, b"PROGRAM=np")[:-2],
    ],
)
def test_a_broken_payload(broken: bytes) -> None:
    with pytest.raises(DecodeError):
        protocol.parse_payload(broken)


@given(st.binary(max_size=60))
def test_any_payload_is_a_call_or_an_error(text: bytes) -> None:
    try:
        call = protocol.parse_payload(text)
    except DecodeError:
        return
    assert call.program and text.endswith(call.stdin)


def test_headers() -> None:
    limit = protocol.PAYLOAD_LIMIT
    assert protocol.parse_header(b"NPA1" + limit.to_bytes(4, "little")) == limit
    for header in (b"NPA2\0\0\0\0", b"NPA1" + (limit + 1).to_bytes(4, "little")):
        with pytest.raises(DecodeError):
            protocol.parse_header(header)


def test_an_answer_that_no_launcher_would_take() -> None:
    with pytest.raises(DecodeError):
        protocol.render_answer(0, b"x" * protocol.PAYLOAD_LIMIT, b"x")

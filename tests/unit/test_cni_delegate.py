"""Foreign plugins: small shell scripts stand for them."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from netplug.cni.delegate import Delegate, find_plugin
from netplug.cni.protocol import Request
from netplug.errors import DelegateError
from netplug.model import ResultAddress

RESULT = '{"ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.1"}]}'


def plugin(folder: Path, script: str, *, name: str = "foreign", timeout: float = 20) -> Delegate:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    request = Request(
        "ADD",
        "c1",
        "/run/netns/c1",
        "eth0",
        args={"IP": "10.1.0.5", "A": "b"},
        path=("/nonexistent", str(folder)),
        version="1.0.0",
        stdin=b'{"name":"lan"}',
    )
    return Delegate(request, name, timeout)


def failure(delegate: Delegate, command: str = "ADD") -> DelegateError:
    with pytest.raises(DelegateError) as caught:
        delegate.run(command)
    return caught.value


def test_it_gets_our_stdin_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-1")
    monkeypatch.setenv("CNI_COMMAND", "ADD")
    delegate = plugin(tmp_path, f"env > {tmp_path}/env; cat > {tmp_path}/stdin")
    assert delegate.run("DEL") is None
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert seen["CNI_COMMAND"] == "DEL"
    assert seen["CNI_CONTAINERID"] == "c1"
    assert seen["CNI_NETNS"] == "/run/netns/c1"
    assert seen["CNI_IFNAME"] == "eth0"
    assert seen["CNI_ARGS"] == "IP=10.1.0.5;A=b"
    assert seen["CNI_PATH"] == f"/nonexistent:{tmp_path}"
    assert seen["TRACEPARENT"] == "00-1"
    assert (tmp_path / "stdin").read_text() == '{"name":"lan"}'


def test_its_result_is_in_the_requests_version_unless_it_says_so(tmp_path: Path) -> None:
    expected = (ResultAddress(ip_interface("10.1.0.5/24"), ip_address("10.1.0.1")),)
    assert plugin(tmp_path, f"echo '{RESULT}'").add().ips == expected
    old = '{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.5/24","gateway":"10.1.0.1"}}'
    assert plugin(tmp_path, f"echo '{old}'").add().ips == expected


@pytest.mark.parametrize("output", ["", "null", "{}", '{"cniVersion":"1.0.0"}'])
def test_a_result_without_addresses(tmp_path: Path, output: str) -> None:
    delegate = plugin(tmp_path, f"echo '{output}'")
    with pytest.raises(DelegateError, match="IPAM plugin returned missing IP config"):
        delegate.add()


def test_output_of_other_verbs_does_not_matter(tmp_path: Path) -> None:
    assert plugin(tmp_path, "echo junk").run("DEL") is None


def test_a_typed_error_keeps_its_code(tmp_path: Path) -> None:
    error = failure(
        plugin(tmp_path, """echo '{"code":11,"msg":"later","details":"full"}'; exit 1"""), "CHECK"
    )
    assert error.cni_code == 11
    assert error.what == 'plugin "foreign" failed (check)'
    assert error.why == "later; full"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 2", "exit status 2 and no message"),
        ("kill -9 $$", "signal 9 and no message"),
        ("echo oops; exit 1", 'it printed no CNI error but "oops"'),
        ("""echo '{"code":"x","msg":5}'; exit 1""", ""),
    ],
)
def test_other_failures(tmp_path: Path, script: str, why: str) -> None:
    error = failure(plugin(tmp_path, script))
    assert error.cni_code == 106
    assert error.why == why


@pytest.mark.parametrize("output", ["junk", '{"ips":5}', '{"cniVersion":"9.0.0"}', "[]"])
def test_what_is_no_result(tmp_path: Path, output: str) -> None:
    assert failure(plugin(tmp_path, f"echo '{output}'")).what == "foreign printed no CNI result"


def test_a_plugin_that_does_not_read_its_stdin(tmp_path: Path) -> None:
    delegate = plugin(tmp_path, "exec <&-; exit 0")
    large = Request("DEL", path=delegate.request.path, stdin=b" " * 2**20)
    assert Delegate(large, "foreign").run("DEL") is None


def test_a_plugin_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as alive:
        delegate = plugin(tmp_path, f"sleep 1000 > {fifo} & wait", timeout=0.5)
        assert failure(delegate).what.endswith("did not finish")
        os.set_blocking(alive.fileno(), True)
        assert alive.read() == b""  # ends once no process holds the other side


def test_a_plugin_that_cannot_be_executed(tmp_path: Path) -> None:
    delegate = plugin(tmp_path, "")
    os.chmod(tmp_path / "foreign", 0o644)  # libcni finds it too: the mode is not looked at
    assert "Permission denied" in failure(delegate).why


@pytest.mark.parametrize("name", ["", "../x", "/bin/sh", "a\0b"])
def test_names_that_are_paths(name: str) -> None:
    with pytest.raises(DelegateError, match="is wrong"):
        find_plugin(name, ("/bin",))


def test_the_first_regular_file_wins(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "x").mkdir()
    (tmp_path / "real").write_text("")
    (tmp_path / "b" / "x").symlink_to(tmp_path / "real")
    (tmp_path / "c" / "x").write_text("")
    path = [str(tmp_path / folder) for folder in ("a", "b", "c")]
    assert find_plugin("x", path) == f"{tmp_path}/b/x"
    with pytest.raises(DelegateError, match='failed to find plugin "y" in path'):
        find_plugin("y", path)

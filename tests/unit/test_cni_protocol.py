"""Requests: what is read, in which order it is checked, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from netplug.cni.protocol import Request, parse_args, parse_request
from netplug.cni.result import render_error
from netplug.errors import InputError, NetplugError, RequestError

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
CONFIG = {"cniVersion": "1.1.0", "name": "lan", "type": "netplug"}


def stdin(**changes: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({**CONFIG, **changes}).encode()


def unread() -> bytes:
    raise AssertionError("stdin was read")


def test_a_whole_request() -> None:
    read = stdin(MTU=5, DNS={"Search": ["a"]}, RuntimeConfig={"PortMappings": [{"HostPort": 80}]})
    request = parse_request(ENV, read)
    assert request == Request(
        command="ADD",
        container="c1",
        netns="/run/netns/c1",
        ifname="eth0",
        args={"IgnoreUnknown": "1", "K8S_POD_NAME": "web"},
        path=("/opt/cni/bin", "/usr/lib/cni"),
        config={
            **CONFIG,
            "MTU": 5,  # a driver's key: its own schema folds it
            "dns": {"search": ["a"]},
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]},
        },
        version="1.1.0",
        stdin=read(),
    )


@pytest.mark.parametrize("environ", [{}, {"CNI_COMMAND": ""}, {**ENV, "CNI_COMMAND": ""}])
def test_no_command_asks_for_the_about_text(environ: dict[str, str]) -> None:
    assert parse_request(environ, unread) == Request("")


def test_version_never_reads_stdin() -> None:
    assert parse_request({"CNI_COMMAND": "VERSION"}, unread) == Request("VERSION")


@pytest.mark.parametrize("change", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"])
def test_the_environment_comes_before_stdin(change: str) -> None:
    with pytest.raises(RequestError):
        parse_request({**ENV, change: ""}, unread)


def test_all_missing_variables_in_one_message() -> None:
    with pytest.raises(RequestError) as caught:
        parse_request({"CNI_COMMAND": "ADD"}, unread)
    assert caught.value.what == (
        "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
    )


def test_a_bad_value_hides_what_is_missing() -> None:
    with pytest.raises(RequestError, match="invalid characters in CNI_CONTAINERID"):
        parse_request({"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "/"}, unread)


def test_stdin_that_cannot_be_read() -> None:
    def broken() -> bytes:
        raise OSError(9, "Bad file descriptor")

    with pytest.raises(InputError) as caught:
        parse_request(ENV, broken)
    assert caught.value.cni_code == 5


@pytest.mark.parametrize(
    ("command", "config", "message"),
    [
        ("NOPE", {}, "unknown CNI_COMMAND: NOPE"),
        ("NOPE", {"name": ""}, "missing network name"),
        ("NOPE", {"name": "a/b"}, "invalid characters in network name"),
        ("NOPE", {"cniVersion": 5}, "cniVersion is no string"),
        ("ADD", {"cniVersion": "1.0"}, "incompatible CNI versions"),
        ("CHECK", {"cniVersion": "0.3.1"}, "config version does not allow CHECK"),
        ("GC", {"cniVersion": "1.0.0"}, "config version does not allow GC"),
        ("STATUS", {"cniVersion": "1.0.0"}, "config version does not allow STATUS"),
        ("CHECK", {}, "missing prevResult"),
    ],
)
def test_precedence(command: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(NetplugError) as caught:
        parse_request({**ENV, "CNI_COMMAND": command}, stdin(**config))
    assert caught.value.what == message


def test_a_wrong_prev_result_hinders_add_but_not_del() -> None:
    read = stdin(prevResult={"ips": [{"address": "x"}]})
    with pytest.raises(NetplugError, match=r"prevResult.ips\[0\].address"):
        parse_request(ENV, read)
    assert parse_request({**ENV, "CNI_COMMAND": "DEL"}, read).prev_result is None


def test_del_without_a_namespace() -> None:
    assert parse_request({**ENV, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}, stdin()).netns == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("TRUE", True), ("0", False), ("", False), ("yes", False)],
)
def test_netns_override(value: str, expected: bool) -> None:
    request = parse_request({**ENV, "CNI_NETNS_OVERRIDE": value}, stdin())
    assert request.netns_override is expected


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_valid_attachments(key: str) -> None:
    environ = {"CNI_COMMAND": "GC", "CNI_PATH": "/x"}
    listed = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]
    request = parse_request(environ, stdin(**{key: listed}))
    assert request.valid_attachments == (("a", "eth0"), ("b", "eth1"))


def test_an_absent_list_is_no_empty_list() -> None:
    environ = {"CNI_COMMAND": "GC", "CNI_PATH": "/x"}
    assert parse_request(environ, stdin()).valid_attachments is None
    both = stdin(**{"cni.dev/valid-attachments": []})
    assert parse_request(environ, both).valid_attachments == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("IP=10.1.0.5;MAC=x", {"IP": "10.1.0.5", "MAC": "x"}),
        ("K8S_POD_NAME=a;K8S_POD_NAME=b", {"K8S_POD_NAME": "b"}),
        ("IgnoreUnknown=True;Foo=1", {"IgnoreUnknown": "True", "Foo": "1"}),
        ("GATEWAY=", {"GATEWAY": ""}),
    ],
)
def test_args(text: str, expected: dict[str, str]) -> None:
    assert parse_args(text, strict=True) == expected


@pytest.mark.parametrize("text", ["a", ";", "IP=1;", "a=b=c", "Foo=1", "ip=1", "IgnoreUnknown=2"])
def test_args_that_only_add_refuses(text: str) -> None:
    with pytest.raises(RequestError, match="CNI_ARGS"):
        parse_args(text, strict=True)
    parse_args(text, strict=False)


def test_the_value_that_was_refused_is_in_the_details() -> None:
    with pytest.raises(RequestError) as caught:
        parse_request({**ENV, "CNI_CONTAINERID": "a/b"}, unread)
    assert '"a/b"' in render_error(caught.value, "1.1.0")["details"]

"""What a caller asks for: CNI_ARGS, args.cni and runtimeConfig, and who wins."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from netplug.cni.network import parse_attachment
from netplug.cni.protocol import Request
from netplug.errors import ConfigError
from netplug.model import Attachment, Bandwidth, Dns, Network, Port

LAN = Network("lan", "bridge", None)


def attachment(
    config: dict[str, Any] | None = None,
    args: dict[str, str] | None = None,
    *,
    command: str = "ADD",
) -> Attachment:
    request = Request(
        command,
        "c1",
        "/run/netns/c1",
        "eth0",
        args=args or {},
        config={"name": "lan", **(config or {})},
    )
    return parse_attachment(request, LAN)


def runtime(**values: Any) -> Attachment:
    return attachment({"runtimeConfig": values})


def test_nothing_asked_for() -> None:
    assert attachment() == Attachment("lan", "c1", "eth0", "/run/netns/c1")


ARGS = "02:00:00:00:00:01"
CNI = "02-00-00-00-00-02"
RUNTIME = "0200.0000.0003"


@pytest.mark.parametrize(
    ("args", "cni", "run", "expected"),
    [
        (ARGS, CNI, RUNTIME, "02:00:00:00:00:03"),
        (ARGS, CNI, "", "02:00:00:00:00:02"),
        (ARGS, "", "", "02:00:00:00:00:01"),
        ("", CNI, "", "02:00:00:00:00:02"),
        ("", "", "", None),
    ],
)
def test_the_last_mac_wins(args: str, cni: str, run: str, expected: str | None) -> None:
    config = {"args": {"cni": {"mac": cni}}, "runtimeConfig": {"mac": run}}
    assert attachment(config, {"MAC": args}).mac == expected


def test_addresses_accumulate_each_once() -> None:
    config = {
        "args": {"cni": {"ips": ["10.1.0.6/24", "10.1.0.5/24"]}},
        "runtimeConfig": {"ips": ["fd00::5", "10.1.0.6", "10.1.0.7"]},
    }
    assert attachment(config, {"IP": "10.1.0.5"}).addresses == (
        ip_interface("10.1.0.5/24"),  # the prefix came later, the place was the first
        ip_interface("10.1.0.6/24"),
        ip_address("fd00::5"),
        ip_address("10.1.0.7"),
    )


def test_args_with_several_addresses() -> None:
    found = attachment(args={"IP": "10.1.0.5/16, fd00::5"}).addresses
    assert found == (ip_interface("10.1.0.5/16"), ip_address("fd00::5"))


def test_mtu_of_args() -> None:
    assert attachment({"args": {"cni": {"mtu": 1400}}}).mtu == 1400
    assert attachment({"args": {"cni": {"mtu": 0}}}).mtu is None
    with pytest.raises(ConfigError, match=r"args\.cni\.mtu is wrong: 20 is not between"):
        attachment({"args": {"cni": {"mtu": 20}}})


def test_ports() -> None:
    found = runtime(
        portMappings=[
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 53, "protocol": "Udp", "hostIP": "127.0.0.1"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"},
            {"hostPort": 80, "containerPort": 80, "hostIP": "::ffff:10.0.0.1"},
            {"hostPort": 0, "containerPort": 443, "protocol": "x"},
        ]
    ).ports
    assert found == (
        Port(8080, 80),
        Port(53, 53, "udp", ip_address("127.0.0.1")),
        Port(53, 53, "udp", ip_address("0.0.0.0")),
        Port(80, 80, "tcp", ip_address("10.0.0.1")),
    )


def test_a_host_port_that_is_mapped_twice() -> None:
    entries = [{"hostPort": 80, "containerPort": port} for port in (80, 81)]
    with pytest.raises(ConfigError, match="maps host port 80/tcp a second time"):
        runtime(portMappings=entries)


def test_bandwidth_of_the_caller() -> None:
    limits = {"ingressRate": 10**6, "ingressBurst": 10**5, "egressRate": 5, "egressBurst": 0}
    assert runtime(bandwidth=limits).bandwidth == Bandwidth(10**6, 10**5, 5, 0)


def test_the_configurations_bandwidth_beats_the_callers() -> None:
    config = {"egressRate": 7, "runtimeConfig": {"bandwidth": {"ingressRate": 9}}}
    assert attachment(config).bandwidth == Bandwidth(egress_rate=7)


def test_the_longest_burst_there_is() -> None:
    wanted = {"ingressRate": 1, "ingressBurst": 2**63, "egressRate": 1, "egressBurst": 2**32 - 1}
    found = runtime(bandwidth=wanted).bandwidth
    assert found.ingress_burst == (2**32 - 1) * 8  # tbf holds 32 bits of bytes
    assert found.egress_burst == 2**32 - 1


def test_a_burst_alone_limits_nothing() -> None:
    with pytest.raises(ConfigError, match="burst without egressRate"):
        runtime(bandwidth={"egressBurst": 5})


@pytest.mark.parametrize(
    "aliases", [["web", "www", "web", ""], {"lan": ["web", "www"], "other": ["x"]}]
)
def test_aliases_in_both_shapes(aliases: object) -> None:
    assert runtime(aliases=aliases).aliases == ("web", "www")


def test_aliases_of_another_network() -> None:
    assert runtime(aliases={"other": ["x"]}).aliases == ()


def test_dns_of_the_caller_has_other_names() -> None:
    found = runtime(dns={"servers": ["10.1.0.1"], "searches": ["lan"], "options": ["ndots:2"]}).dns
    assert found == Dns(nameservers=("10.1.0.1",), search=("lan",), options=("ndots:2",))


def test_the_containers_name() -> None:
    assert attachment(args={"K8S_POD_NAME": "web"}).name == "web"


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_only_add_refuses(command: str) -> None:
    config = {
        "runtimeConfig": {"portMappings": 5, "mac": "x", "ips": [5], "dns": 5, "aliases": ["a"]},
        "args": 5,
        "ingressRate": "x",
    }
    found = attachment(config, {"IP": "x", "MAC": "y"}, command=command)
    assert found == Attachment("lan", "c1", "eth0", "/run/netns/c1", aliases=("a",))
    with pytest.raises(ConfigError):
        attachment(config)

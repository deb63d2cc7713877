"""Malformed and hostile requests: the right code, a message that helps, never another exception.

The whole way from environment and stdin to values is walked, as for a real call: the
request, the network, the attachment. What the kernel would say is tested elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.cni.network import parse_attachment
from netplug.cni.protocol import VERBS, parse_request
from netplug.cni.result import check_convertible, render_error, render_result
from netplug.cni.schema import ATTACHMENT, BANDWIDTH, DNS, IPAM, RANGE, REQUEST, RESULT, ROUTE
from netplug.cni.schema import RUNTIME as RUNTIME_KEYS
from netplug.cni.versions import SUPPORTED
from netplug.config import driver_name, parse_network
from netplug.errors import ConfigError, NetplugError


@dataclass(frozen=True, slots=True)
class Trunk:
    id: int | None = None
    min_id: int | None = field(default=None, metadata={"json": "minID"})
    max_id: int | None = field(default=None, metadata={"json": "maxID"})


@dataclass(frozen=True, slots=True)
class Options:
    bridge: str = "cni0"
    is_gateway: bool = False
    ip_masq: bool = False
    ip_masq_backend: Literal["", "iptables", "nftables"] = ""
    mtu: int | Literal["auto"] = 0
    vlan: int = 0
    vlan_trunk: tuple[Trunk, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.vlan <= 4094:
            raise ConfigError("vlan is wrong", "it must be within 0..4094", "correct vlan")


ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "ipam": {"type": "netplug", "subnet": "10.1.0.0/24"},
}
PREV: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/c1"}],
    "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0}],
}


def walk(environ: Mapping[str, str], stdin: bytes) -> None:
    """What a call does before it touches the kernel."""
    request = parse_request(environ, lambda: stdin)
    if request.command in ("", "VERSION"):
        return
    driver_name(request.config)
    network, _ = parse_network(request.config, Options)
    parse_attachment(request, network)
    if request.command == "ADD":
        check_convertible(request.version, network.ipam is not None)
    if request.prev_result is not None and (request.prev_result.ips or request.version >= "0.3"):
        json.dumps(render_result(request.prev_result, request.version))


def code_of(environ: Mapping[str, str], stdin: bytes) -> int:
    """0, or the code of the error object, which must be printable, short and helpful."""
    failure: NetplugError | None = None
    try:
        walk(environ, stdin)
    except NetplugError as error:
        failure = error
    if failure is None:
        return 0
    document = render_error(failure, "1.1.0", verb=environ.get("CNI_COMMAND", ""))
    assert document["msg"], failure
    assert document.get("details"), failure
    text = json.dumps(document)
    assert len(text) < 10_000
    assert "Traceback" not in text
    assert "pydantic" not in text
    code: int = document["code"]
    return code


def env(**changes: str | None) -> dict[str, str]:
    named = {f"CNI_{key}": value for key, value in changes.items()}
    return {key: value for key, value in {**ENV, **named}.items() if value is not None}


def config(**changes: Any) -> bytes:
    """A good configuration with keys changed; `...` removes one. `__` in a name is a dash."""
    merged = {**CONFIG, **changes}
    return json.dumps({key: item for key, item in merged.items() if item is not ...}).encode()


GOOD = config()
LONG = "x" * 70_000

ENVIRONMENT = [
    # one variable missing or empty, for each verb that needs it
    *[(env(COMMAND=verb, CONTAINERID=None), GOOD, 4) for verb in ("ADD", "DEL", "CHECK")],
    *[(env(COMMAND=verb, CONTAINERID=""), GOOD, 4) for verb in ("ADD", "DEL", "CHECK")],
    *[(env(COMMAND=verb, NETNS=None), GOOD, 4) for verb in ("ADD", "CHECK")],
    *[(env(COMMAND=verb, NETNS=""), GOOD, 4) for verb in ("ADD", "CHECK")],
    *[(env(COMMAND=verb, IFNAME=None), GOOD, 4) for verb in ("ADD", "DEL", "CHECK")],
    *[(env(COMMAND=verb, IFNAME=""), GOOD, 4) for verb in ("ADD", "DEL", "CHECK")],
    *[(env(COMMAND=v, PATH=None), GOOD, 4) for v in ("ADD", "DEL", "CHECK", "GC", "STATUS")],
    *[(env(COMMAND=v, PATH=""), GOOD, 4) for v in ("ADD", "DEL", "CHECK", "GC", "STATUS")],
    # not needed, so not looked at
    (env(COMMAND="DEL", NETNS=None), GOOD, 0),
    (env(COMMAND="DEL", NETNS=""), GOOD, 0),
    (env(COMMAND="GC", CONTAINERID=None, NETNS=None, IFNAME=None), GOOD, 0),
    (env(COMMAND="GC", CONTAINERID="/bad", NETNS="", IFNAME="way too long a name"), GOOD, 0),
    (env(COMMAND="STATUS", CONTAINERID="", NETNS="", IFNAME="", ARGS=""), GOOD, 0),
    (env(COMMAND="STATUS", CONTAINERID="-", IFNAME="/"), GOOD, 0),
    ({"CNI_COMMAND": "VERSION"}, b"garbage", 0),
    ({"CNI_COMMAND": "VERSION", "CNI_IFNAME": "/"}, b"", 0),
    ({}, b"garbage", 0),
    ({"CNI_COMMAND": ""}, b"", 0),
    # verbs
    (env(COMMAND="add"), GOOD, 4),
    (env(COMMAND="ADD "), GOOD, 4),
    (env(COMMAND="UPDATE"), GOOD, 4),
    (env(COMMAND=LONG), GOOD, 4),
    (env(COMMAND="\udcff"), GOOD, 4),
    (env(COMMAND="UPDATE"), b"{", 6),
    (env(COMMAND="UPDATE"), config(name=...), 7),
    # container IDs
    *[(env(CONTAINERID=value), GOOD, 4) for value in (
        "-a", ".a", "_a", "a/b", "../x", "a b", "a\n", "\na", "a;b", "a$(id)", "é", "\u0430", "a:b",
        "a\0b", "\udcff", "\uff11", "a,b", "*", LONG + "/",
    )],
    *[(env(CONTAINERID=value), GOOD, 0) for value in ("a", "0", "A.b-c_d", "a..", "f" * 64, LONG)],
    # interface names
    *[(env(IFNAME=value), GOOD, 4) for value in (
        ".", "..", "a/b", "/", "a:b", "a b", "a\tb", "a\n", "\u00a0x", "a\u2003b", "a" * 16,
        "é" * 8, "a\0", LONG, "eth0 ", "\u3000",
    )],
    *[(env(IFNAME=value), GOOD, 0) for value in ("e", "a" * 15, "é" * 7, "...", "eth0.5", "-x")],
    # an earlier bad value hides what is missing later, a missing name does not hide a bad value
    (env(CONTAINERID="/", PATH=None), GOOD, 4),
    (env(CONTAINERID=None, IFNAME="/"), GOOD, 4),
    (env(NETNS="/run/netns/a\0b"), GOOD, 4),
    (env(COMMAND="DEL", NETNS="\0"), GOOD, 4),
    # environment before stdin
    (env(CONTAINERID=None), b"garbage", 4),
    (env(IFNAME="/"), b"garbage", 4),
    # CNI_ARGS
    *[(env(ARGS=value), GOOD, 4) for value in (
        "a", "a=b=c", "IP=1;", ";", "IP", "=", "FOO=bar", "ip=10.1.0.5", "mac=x",
        "IgnoreUnknown=yes", "IgnoreUnknown=2;A=b", "IgnoreUnknown=0;A=b", "IgnoreUnknown=;A=b",
        "IgnoreUnknown=1;a", f"{LONG}=1", "\udcff=1", "a=b;;c=d",
    )],
    *[(env(ARGS=value), GOOD, 7) for value in (
        "IP=10.1.0.300", "IP=x", "IP=10.1.0.5/33", "IP=10.1.0.5/255.255.255.0", "MAC=x",
        "MAC=00:00:00:00:00:00", "MAC=01:00:5e:00:00:01", "MAC=02:00:00:00:00", "MAC=02",
        "IP=10.1.0.5,x", "IP=010.1.0.5", "IP=fe80::1%eth0", f"MAC={LONG}",
        "MAC=02:00:00:00:00:00:00:01",
    )],
    *[(env(ARGS=value), GOOD, 0) for value in (
        "IP=10.1.0.5", "IP=10.1.0.5/24", "IP=10.1.0.5,fd00::5", "MAC=02-00-00-00-00-01",
        "MAC=0200.0000.0001", "GATEWAY=10.1.0.1", "IgnoreUnknown=1;FOO=bar",
        "IgnoreUnknown=TRUE;=", "IgnoreUnknown=true;K8S_POD_NAME=web;K8S_POD_UID=1",
        "K8S_POD_NAME=web", "IP=;MAC=", "IP=::ffff:10.1.0.5", "K8S_POD_NAME=a;K8S_POD_NAME=b",
    )],
    *[(env(COMMAND=verb, ARGS=args), config(prevResult=PREV), 0)
      for verb in ("DEL", "CHECK", "GC") for args in ("a", ";;", "FOO=1", "IP=x;MAC=y")],
]  # fmt: skip

DOCUMENTS = [
    *[(ENV, text, 6) for text in (
        b"", b" ", b"{", b"}", b"[]", b"5", b'"x"', b"true", b"{} {}", b"{}x", b"nul", b"NaN",
        b'{"name":"lan",}', b"{'name':'lan'}", b'{"name":NaN}', b'{"a":1e999,"name":"lan"}',
        b'{"a":Infinity,"name":"lan"}', b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\0",
        b'{"name":"lan\x01"}', b'{"name":"\\x"}', b'{"name":"lan"', b"[" * 100_000,
        b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"// no\n{}", b"name: lan",
        b'{"name":"lan","x":' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"name":"lan","prevResult":{"ips":' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"name":"lan","ipam":' + b'{"a":' * 400 + b"1" + b"}" * 401,
        b'{"name":5}', b'{"name":["lan"]}', b'{"name":{}}', b'{"name":true}',
        b'{"name":"lan","cniVersion":1.0}', b'{"name":"lan","cniVersion":["1.0.0"]}',
    )],
    *[(ENV, text, 7) for text in (
        b"null", b"{}", b'{"name":""}', b'{"name":null}', b'{"Name":""}', b'{"name":"a/b"}',
        b'{"name":"../x"}', b'{"name":"-x"}', b'{"name":"a b"}', b'{"name":"lan\\n"}',
        b'{"name":"\\u0000"}', b'{"name":"\\ud800"}', b'{"name":"\xff"}', b'{"name":"\xc3\xa9"}',
        b'{"NAME":"/"}', b'{"name":"ok","NAME":"/"}',
    )],
    (ENV, b'{"NAME":"/","name":"lan","CNIVERSION":"1.0.0"}', 0),
    (ENV, b'{"cniVersion":"x","cniVersion":"1.0.0","name":"lan"}', 0),
    (ENV, b'{"cniVersion":"1.0.0","name":"lan","mtu":null,"dns":null,"ipam":null}', 0),
    (ENV, b'\n\t {"cniVersion":"1.0.0","name":"lan"}\n', 0),
    (ENV, b'{"cniVersion":"1.0.0","name":"lan","x":"\\ud800\xff"}', 0),
]  # fmt: skip

VERSIONS = [
    *[(env(COMMAND=verb), config(cniVersion=version), 1)
      for verb in ("ADD", "DEL")
      for version in ("1.0", "2.0.0", "0.0.1", "banana", "1.1.0 ", "v1.0.0", "1.1.0.0", "-1")],
    (ENV, config(cniVersion=LONG), 1),
    *[(env(COMMAND="CHECK"), config(cniVersion=version), 1)
      for version in (..., "", "0.1.0", "0.2.0", "0.3.1", "0.3", "0", "2.0.0", "1.0", "1")],
    *[(env(COMMAND=verb), config(cniVersion=version), 1)
      for verb in ("GC", "STATUS") for version in (..., "0.4.0", "1.0.0", "1.0", "1.1", "9.9.9")],
    *[(env(COMMAND=verb), config(cniVersion=version), 6)
      for verb in ("CHECK", "GC", "STATUS")
      for version in ("banana", "1.x", "1.1.0.0", "1..0", "v1.1.0", "1.1.0\n", "1" * 30)],
    *[(ENV, config(cniVersion=version), 0) for version in (..., "", None, *SUPPORTED)],
    # a layer 2 network has no words in 0.1 and 0.2
    *[(ENV, config(cniVersion=version, ipam=...), 1) for version in (..., "", "0.1.0", "0.2.0")],
    *[(ENV, config(cniVersion=version, ipam=...), 0) for version in ("0.3.0", "0.4.0", "1.1.0")],
]  # fmt: skip

KEYS = [
    # the driver's own keys, strictly
    *[(ENV, config(**{key: value}), 7) for key, value in (
        ("mtu", "1500"), ("mtu", 1500.0), ("mtu", True), ("mtu", []), ("mtu", "Auto"),
        ("isGateway", "true"), ("isGateway", 1), ("isGateway", {}), ("bridge", 5),
        ("bridge", ["cni0"]), ("vlan", "5"), ("vlan", 5000), ("vlan", -1), ("vlan", 10**30),
        ("vlanTrunk", {}), ("vlanTrunk", [5]), ("vlanTrunk", [{"id": "5"}]),
        ("vlanTrunk", [{"minID": 1.5}]), ("vlanTrunk", "1-5"), ("vlanTrunk", [None]),
        ("sysctl", []), ("sysctl", {"net.core.somaxconn": 5}), ("sysctl", {"a": {}}),
        ("ipMasqBackend", "pf"), ("ipMasqBackend", 1),
        # misspelt
        ("isGatway", True), ("ipMask", True), ("mtuu", 1500), ("vlans", 1),
    )],
    (ENV, config(vlanTrunk=[{"minId": 1, "maxIDs": 2}]), 7),
    (ENV, config(MTU=1500, ISGATEWAY=True, VlanTrunk=[{"ID": 5}, {"MINID": 1, "maxid": 3}]), 0),
    (ENV, config(mtu="auto", snat=True, backend="x", nerdctlID="1", **{"cni.dev/x": 1}), 0),
    # keys of every network
    *[(ENV, config(**{key: value}), 7) for key, value in (
        ("type", 5), ("driver", 5), ("driver", {}), ("ipam", 5), ("ipam", "host-local"),
        ("ipam", []), ("ipam", [{"type": "netplug"}]), ("ipam", {"type": 5}),
        ("ipam", {"type": "netplug", "subnet": "10.1.0.0"}),
        ("ipam", {"type": "netplug", "subnet": "10.1.0.1/24"}),
        ("ipam", {"type": "netplug", "subnet": "10.1.0.0/33"}),
        ("ipam", {"type": "netplug", "ranges": {}}),
        ("ipam", {"type": "netplug", "ranges": [{"subnet": "10.1.0.0/24"}]}),
        ("ipam", {"type": "netplug", "ranges": [[{}]]}),
        ("ipam", {"type": "netplug", "subnet": "10.1.0.0/24", "routes": [{"dst": "x"}]}),
        ("dns", 5), ("dns", []), ("dns", {"nameservers": "1.1.1.1"}), ("dns", {"domain": 5}),
        ("dns", {"nameservers": ["example.org"]}), ("dns", {"nameservers": [1]}),
        ("dns", {"search": "x"}), ("dns", {"options": [{}]}),
        ("firewall", "ipfw"), ("firewall", True),
        ("args", 5), ("args", {"cni": 5}), ("args", {"cni": {"mac": 5}}),
        ("args", {"cni": {"mac": "x"}}), ("args", {"cni": {"ips": "10.1.0.5"}}),
        ("args", {"cni": {"ips": [5]}}), ("args", {"cni": {"ips": ["10.1.0.5/x"]}}),
        ("args", {"cni": {"mtu": 1}}), ("args", {"cni": {"mtu": "1500"}}),
        ("args", {"cni": {"sysctl": {"a": 1}}}), ("args", {"cni": {"sysctl": []}}),
        ("ingressRate", "1"), ("ingressRate", -1), ("egressBurst", 5), ("egressRate", 1.5),
        ("ingressRate", 2**64),
    )],
    (ENV, config(type="netplug-macvlan", driver="bridge"), 7),
    (ENV, config(firewall="nft", ipMasqBackend="iptables"), 7),
    (ENV, config(firewall="nft", ipMasqBackend="nftables"), 0),
    (ENV, GOOD[:-1] + b',"sysctl":{"a":"1","a":"2"}}', 7),
    (ENV, GOOD[:-1] + b',"args":{"cni":{"sysctl":{"a":"1","a":"2"}}}}', 7),
    (ENV, config(disableCheck="maybe", capabilities=5, args={"podman_labels": {}}), 0),
    *[(ENV, config(ipam=ipam), 0) for ipam in ({}, {"type": ""}, {"type": "host-local", "x": 5})],
]  # fmt: skip

WRONG_RUNTIMES: list[Any] = [
    5, [], "x", {"portMappings": 5}, {"portMappings": {}}, {"portMappings": [5]},
    {"portMappings": [{"hostPort": "80", "containerPort": 80}]},
    {"portMappings": [{"hostPort": 80}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 0}]},
    {"portMappings": [{"hostPort": 70000, "containerPort": 80}]},
    {"portMappings": [{"hostPort": -1, "containerPort": 80}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 65536}]},
    {"portMappings": [{"hostPort": 8.5, "containerPort": 80}]},
    {"portMappings": [{"hostPort": True, "containerPort": 80}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp; reboot"}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": 6}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "fe80::1%eth0"}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "10.0.0.1/8"}]},
    {"portMappings": [{"hostPort": 80, "containerPort": p} for p in (80, 81)]},
    {"ips": "10.1.0.5"}, {"ips": [["10.1.0.5"]]}, {"ips": [""]}, {"ips": ["x"]},
    {"ips": ["10.1.0.5/64"]}, {"mac": 5}, {"mac": "00-11"}, {"mac": "zz:00:00:00:00:00"},
    {"mac": "02:00:00:00:00:0\uff11"}, {"bandwidth": 5}, {"bandwidth": {"ingressRate": "1M"}},
    {"bandwidth": {"ingressBurst": 5}}, {"bandwidth": {"egressRate": -5}},
    {"dns": 5}, {"dns": {"servers": "1.1.1.1"}}, {"dns": {"servers": ["x"]}},
    {"dns": {"searches": [5]}}, {"aliases": 5}, {"aliases": [5]}, {"aliases": {"lan": 5}},
    {"aliases": {"lan": [{}]}}, {"aliases": "web"}, {"ipRanges": 5}, {"ipRanges": [5]},
    {"ipRanges": [{}]}, {"ipRanges": [[{"subnet": "x"}]]}, {"ipRanges": [[5]]},
]  # fmt: skip

GOOD_RUNTIMES: list[Any] = [
    {}, None, {"portMappings": None, "ips": None, "mac": "", "aliases": None, "dns": None},
    {"portMappings": []}, {"PORTMAPPINGS": [{"HOSTPORT": 80, "ContainerPort": 80}]},
    {"portMappings": [{"hostPort": 0, "containerPort": 0}]},
    {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "SCTP"}] * 2},
    {"bandwidth": {"ingressRate": 1, "ingressBurst": 2**64 - 1}},
    {"aliases": {"other": 5}}, {"deviceID": 5, "cgroupPath": [], "io.kubernetes.x": {}},
]  # fmt: skip

WRONG_BUT_REMOVABLE: list[Any] = [
    {"portMappings": 5},
    {"mac": "x"},
    {"aliases": 7},
    {"bandwidth": []},
    {"dns": "x"},
]

RUNTIME = [
    *[(ENV, config(runtimeConfig=value), 7) for value in (*WRONG_RUNTIMES, *WRONG_BUT_REMOVABLE)],
    *[(ENV, config(runtimeConfig=value), 0) for value in GOOD_RUNTIMES],
    # a clean-up must not fail on what ADD refuses
    *[(env(COMMAND="DEL"), config(runtimeConfig=value), 0) for value in WRONG_BUT_REMOVABLE],
]

ADDRESS = {"address": "10.1.0.5/24"}
PREV_RESULTS: list[tuple[Any, int]] = [
    (5, 7), ("x", 7), ([], 7), ({"cniVersion": 5}, 7), ({"cniVersion": "0.4.0"}, 1),
    ({"cniVersion": "9.0.0"}, 1), ({"interfaces": {}}, 7), ({"interfaces": [5]}, 7),
    ({"interfaces": [{"name": 5}]}, 7), ({"interfaces": [{"mtu": "x"}]}, 7),
    ({"interfaces": [{"sandbox": []}]}, 7), ({"ips": "10.1.0.5/24"}, 7),
    ({"ips": [{}]}, 7), ({"ips": [{"address": "10.1.0.5"}]}, 7), ({"ips": [None]}, 7),
    ({"ips": [{"address": "10.1.0.5/24", "gateway": "x"}]}, 7),
    ({"ips": [{**ADDRESS, "interface": "0"}]}, 7),
    ({"ips": [{**ADDRESS, "interface": 0.5}]}, 7),
    ({"routes": [{}]}, 7), ({"routes": [{"dst": "default"}]}, 7),
    ({"routes": [{"dst": "0.0.0.0/0", "gw": 5}]}, 7),
    ({"routes": [{"dst": "0.0.0.0/0", "mtu": -1}]}, 7),
    ({"routes": [{"dst": "0.0.0.0/0", "table": 2**32}]}, 7),
    ({"dns": []}, 7), ({"dns": {"search": "x"}}, 7), ({}, 0),
    ({"ips": [{**ADDRESS, "interface": 99}]}, 0),
    ({"ips": [{**ADDRESS, "interface": -1}]}, 0),
    ({"ips": json.loads("[" * 50 + "]" * 50)}, 7),
]  # fmt: skip

RESULTS = [
    (env(COMMAND="CHECK"), config(), 7),
    (env(COMMAND="CHECK"), config(prevResult=None), 7),
    (env(COMMAND="CHECK"), config(prevResult=PREV), 0),
    *[(env(COMMAND=verb), config(prevResult=value), code if verb in ("ADD", "CHECK") else 0)
      for verb in ("ADD", "CHECK", "DEL", "STATUS") for value, code in PREV_RESULTS],
]  # fmt: skip

GC = env(COMMAND="GC", CONTAINERID=None, NETNS=None, IFNAME=None)
WRONG_LISTS: list[Any] = [
    5, "x", {}, {"containerID": "a", "ifname": "b"}, [5], ["a"], [{}], [{"containerID": "a"}],
    [{"ifname": "eth0"}], [{"containerID": "", "ifname": "eth0"}],
    [{"containerID": "a", "ifname": 5}], [[]], [None],
]  # fmt: skip

GOOD_LISTS: list[Any] = [
    None, [], [{"containerID": "a", "ifname": "b"}], [{"ContainerId": "a", "IfName": "b"}],
]  # fmt: skip

LISTS = [
    *[(GC, config(**{key: value}), 7)
      for key in ("cni.dev/valid-attachments", "cni.dev/attachments", "CNI.dev/Valid-Attachments")
      for value in WRONG_LISTS],
    *[(GC, config(**{"cni.dev/valid-attachments": value}), 0) for value in GOOD_LISTS],
    (env(COMMAND="ADD"), config(**{"cni.dev/valid-attachments": 5}), 0),
]  # fmt: skip

CASES = [*ENVIRONMENT, *DOCUMENTS, *VERSIONS, *KEYS, *RUNTIME, *RESULTS, *LISTS]


def test_the_table_is_long_enough() -> None:
    assert sum(1 for _, _, code in CASES if code) >= 150


@pytest.mark.parametrize(("environ", "stdin", "code"), CASES, ids=range(len(CASES)))
def test_hostile_request(environ: dict[str, str], stdin: bytes, code: int) -> None:
    assert code_of(environ, stdin) == code


# --- fuzzing: whatever comes in, only errors of ours come out (code_of raises others)

KNOWN_KEYS = sorted(
    {*REQUEST, *IPAM, *RANGE, *ROUTE, *DNS, *RUNTIME_KEYS, *RESULT, *ATTACHMENT, *BANDWIDTH}
    | {"hostPort", "containerPort", "protocol", "hostIP", "address", "interface", "sandbox", "ip"}
    | {"servers", "searches", "cni", "mtu", "vlan", "vlanTrunk", "minID", "sysctl", "bridge"}
)
NAMES = st.sampled_from(KNOWN_KEYS)
KEYS_OR_NOISE = NAMES | NAMES.map(str.upper) | st.text()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(("10.1.0.5/24", "10.1.0.1", "fd00::/64", "02:00:00:00:00:01", "netplug", ""))
    | st.sampled_from(SUPPORTED)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS_OR_NOISE, inner, max_size=5),
    max_leaves=15,
)
VALUES = st.text(max_size=20) | st.sampled_from(("c1", "eth0", "/run/netns/x", "IP=10.1.0.5"))
VERB = st.sampled_from((*VERBS, "", "add"))


@given(st.dictionaries(st.sampled_from([*ENV, "CNI_NETNS_OVERRIDE"]), VALUES), VERB)
def test_any_environment(environ: dict[str, str], verb: str) -> None:
    code_of({**environ, "CNI_COMMAND": verb}, GOOD)
    code_of({**ENV, **environ, "CNI_COMMAND": verb}, GOOD)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(stdin: bytes) -> None:
    assert code_of(ENV, stdin) != 0


@given(st.dictionaries(KEYS_OR_NOISE, JSON, max_size=6), VERB)
def test_any_config(changes: dict[str, Any], verb: str) -> None:
    environ = env(COMMAND=verb)
    code_of(environ, json.dumps(changes).encode())
    code_of(environ, json.dumps({**CONFIG, **changes}).encode())


@given(st.dictionaries(KEYS_OR_NOISE, JSON, max_size=6), st.sampled_from(SUPPORTED), VERB)
def test_any_prev_result(value: dict[str, Any], version: str, verb: str) -> None:
    changes = {"prevResult": value, "cniVersion": version}
    code_of(env(COMMAND=verb), json.dumps({**CONFIG, **changes}).encode())


@given(st.dictionaries(KEYS_OR_NOISE, JSON, max_size=6))
def test_a_clean_up_goes_on_whatever_the_runtime_says(runtime: dict[str, Any]) -> None:
    request = parse_request(
        env(COMMAND="DEL", ARGS="junk"), lambda: config(runtimeConfig=runtime, prevResult=runtime)
    )
    network, _ = parse_network(CONFIG, Options)
    attachment = parse_attachment(request, network)
    assert attachment.owner == "lan/c1/eth0"

"""Configurations -> networks: strict values, forgiving spelling, helpful errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network
from typing import Any, Literal

import pytest

from netplug.config import driver_name, parse_identity, parse_network
from netplug.errors import ConfigError
from netplug.model import Dns


@dataclass(frozen=True, slots=True)
class Trunk:
    id: int | None = None
    min_id: int | None = field(default=None, metadata={"json": "minID"})


@dataclass(frozen=True, slots=True)
class Options:
    bridge: str = "cni0"
    is_gateway: bool = False
    mtu: int | Literal["auto"] = 0
    vlan: int = 0
    vlan_trunk: tuple[Trunk, ...] = ()
    ip_masq_backend: Literal["", "iptables", "nftables"] = ""
    router: IPv4Address | None = None
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vlan > 4094:
            raise ValueError("vlan must not be above 4094")


@dataclass(frozen=True, slots=True)
class Required:
    master: str


def network(options: type = Options, *, strict: bool = False, **keys: Any) -> Any:
    return parse_network({"name": "lan", **keys}, options, strict_unknown=strict)


def test_a_whole_network() -> None:
    found, warnings = network(
        cniVersion="1.0.0",
        type="netplug",
        bridge="br0",
        isGateway=True,
        mtu="auto",
        vlanTrunk=[{"id": 5}, {"minID": 7}],
        router="10.1.0.1",
        ipam={"type": "netplug", "subnet": "10.1.0.0/24"},
        dns={"nameservers": ["10.1.0.1"], "domain": "lan", "search": ["a"], "options": ["b"]},
        firewall="nftables",
        prevResult={},
        runtimeConfig={"ipRanges": [[{"subnet": "10.2.0.0/24"}]]},
    )
    assert warnings == []
    assert (found.name, found.driver, found.firewall) == ("lan", "bridge", "nft")
    assert found.options == Options(
        bridge="br0",
        is_gateway=True,
        mtu="auto",
        vlan_trunk=(Trunk(5), Trunk(None, 7)),
        router=IPv4Address("10.1.0.1"),
    )
    assert [one[0].subnet for one in found.ipam.range_sets] == [
        ip_network("10.2.0.0/24"),
        ip_network("10.1.0.0/24"),
    ]
    assert found.dns == Dns(("10.1.0.1",), "lan", ("a",), ("b",))
    assert not {"prevResult", "runtimeConfig"} & found.raw.keys()  # they belong to one call


def test_keys_in_any_case() -> None:
    found, warnings = network(
        ISGATEWAY=True, Mtu=1400, vlantrunk=[{"ID": 1}, {"MinId": 2}], IPAM={"TYPE": "x"}
    )
    assert warnings == []
    assert found.options == Options(
        is_gateway=True, mtu=1400, vlan_trunk=(Trunk(1), Trunk(None, 2))
    )
    assert found.ipam.type == "x"


@pytest.mark.parametrize(
    ("keys", "what", "why"),
    [
        ({"mtu": "1500"}, "mtu is wrong", '"1500" is not a whole number or "auto"'),
        ({"mtu": 1500.0}, "mtu is wrong", '1500.0 is not a whole number or "auto"'),
        ({"isGateway": 1}, "isGateway is wrong", "1 is not true or false"),
        ({"bridge": 5}, "bridge is wrong", "5 is not a string"),
        ({"vlanTrunk": [{"id": "5"}]}, "vlanTrunk[0].id is wrong", '"5" is not a whole number'),
        ({"VLANTRUNK": [{}, {"minid": []}]}, "vlanTrunk[1].minID is wrong", "[] is not a whole"),
        ({"vlanTrunk": [5]}, "vlanTrunk[0] is wrong", "5 is not an object with id, minID"),
        ({"sysctl": {"net.a": 1}}, "sysctl.net.a is wrong", "1 is not a string"),
        ({"router": "x"}, "router is wrong", '"x" is not an IP address'),
        ({"ipMasqBackend": "pf"}, "ipMasqBackend is wrong", '"pf" is not "" or "iptables" or'),
        ({"vlan": 5000}, "the configuration is wrong", "vlan must not be above 4094"),
        ({"dns": {"nameservers": ["x"]}}, "dns.nameservers[0] is wrong", '"x" cannot be read'),
        ({"ipam": []}, "ipam is wrong", "[] is a list, not an object"),
        ({"firewall": "pf"}, "firewall is wrong", "is none of auto, nft"),
    ],
)
def test_errors_name_key_value_and_rule(keys: dict[str, Any], what: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network(**keys)
    assert caught.value.what == what
    assert why in caught.value.why
    assert caught.value.hint


def test_a_number_in_quotes() -> None:
    with pytest.raises(ConfigError) as caught:
        network(mtu="1500")
    assert caught.value.hint == "remove the quotes"


def test_a_missing_key() -> None:
    with pytest.raises(ConfigError, match='"master" is missing: the driver needs a string'):
        network(Required)


def test_unknown_keys_are_warned_about() -> None:
    keys: dict[str, Any] = {"cni.dev/x": 1, "vlanTrunk": [{"id": 1, "zzz": 2}]}
    _, warnings = network(snat=True, brigdes=1, **keys)
    assert warnings == [
        'unknown key "snat" is ignored',
        'unknown key "brigdes" is ignored; did you mean "bridge"?',
        'unknown key "vlanTrunk[0].zzz" is ignored',
    ]


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        ({"isGatway": True}, 'did you mean "isGateway"?'),
        ({"mtuu": 1}, 'did you mean "mtu"?'),
        ({"VLANTRUNKS": []}, 'did you mean "vlanTrunk"?'),
        ({"vlanTrunk": [{"minIDs": 1}]}, 'did you mean "minID"?'),
    ],
)
def test_misspelt_options_are_errors(keys: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        network(**keys)
    assert caught.value.hint == advice


@pytest.mark.parametrize("keys", [{"snat": True}, {"ipam": {"type": "netplug", "sub": 1}}])
def test_strictly_every_unknown_key_is_an_error(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        network(strict=True, **{"ipam": {"subnet": "10.1.0.0/24"}, **keys})


def test_sysctls_of_args_win() -> None:
    found, _ = network(sysctl={"a": "1", "b": "2"}, args={"cni": {"sysctl": {"a": "9"}}})
    assert found.options.sysctl == {"a": "9", "b": "2"}


@pytest.mark.parametrize("ipam", [{}, {"type": ""}, None])
def test_layer_2(ipam: Any) -> None:
    found, _ = network(ipam=ipam)
    assert found.ipam is None


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "auto"),
        ({"firewall": "none"}, "none"),
        ({"ipMasqBackend": "iptables"}, "iptables"),
        ({"ipMasqBackend": ""}, "auto"),
        ({"firewall": "auto", "ipMasqBackend": "nftables"}, "nft"),
        ({"firewall": "nft", "ipMasqBackend": "nftables"}, "nft"),
    ],
)
def test_firewall(keys: dict[str, Any], expected: str) -> None:
    assert network(**keys)[0].firewall == expected


def test_firewall_said_twice() -> None:
    with pytest.raises(ConfigError, match="disagree"):
        network(firewall="iptables", ipMasqBackend="nftables")


@pytest.mark.parametrize("ipam", [5, [], {}, {"type": 5}, {"subnet": "x"}])
def test_a_removal_needs_no_more_than_the_name(ipam: Any) -> None:
    broken = {"name": "lan", "mtu": "x", "driver": 5, "dns": 5, "runtimeConfig": 5, "ipam": ipam}
    found = parse_identity(broken)
    assert (found.name, found.driver, found.ipam) == ("lan", "bridge", None)


def test_a_removal_must_know_a_foreign_ipam() -> None:
    found = parse_identity({"name": "lan", "driver": "macvlan", "ipam": {"type": "dhcp"}})
    assert found.driver == "macvlan"
    assert found.ipam is not None
    assert found.ipam.foreign


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "bridge"),
        ({"type": "netplug"}, "bridge"),
        ({"type": "netplug", "driver": "macvlan"}, "macvlan"),
        ({"type": "netplug-macvlan"}, "macvlan"),
        ({"type": "netplug-macvlan", "driver": "macvlan"}, "macvlan"),
        ({"type": "bridge", "driver": ""}, "bridge"),
        ({"type": "netplug-ipam"}, "bridge"),
    ],
)
def test_driver_name(config: dict[str, Any], expected: str) -> None:
    assert driver_name(config) == expected


def test_driver_and_type_disagree() -> None:
    with pytest.raises(ConfigError, match="disagree"):
        driver_name({"type": "netplug-host", "driver": "bridge"})

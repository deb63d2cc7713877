"""Results in every version of the spec, and the other documents of stdout."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from netplug.cni.result import (
    check_convertible,
    parse_prev_result,
    parse_result,
    render_about,
    render_error,
    render_result,
    render_version,
)
from netplug.cni.versions import SUPPORTED, family
from netplug.errors import (
    ConfigError,
    DelegateError,
    NetplugError,
    UnsupportedError,
    VersionError,
)
from netplug.model import Dns, Interface, Result, ResultAddress, Route

FULL = Result(
    interfaces=(
        Interface("cni0", "02:00:00:00:00:01", 1450),
        Interface("veth1", "02:00:00:00:00:02", 1450),
        Interface("eth0", "02:00:00:00:00:03", 1450, "/run/netns/c1"),
    ),
    ips=(
        ResultAddress(ip_interface("10.1.0.5/16"), ip_address("10.1.0.1"), 2),
        ResultAddress(ip_interface("fd00::5/64"), None, 2),
        ResultAddress(ip_interface("10.2.0.5/16"), None, 0),
    ),
    routes=(
        Route(ip_network("0.0.0.0/0")),
        Route(ip_network("::/0"), ip_address("fd00::1"), mtu=1400, advmss=1360),
        Route(ip_network("10.9.0.0/16"), priority=5, table=0, scope=0),
    ),
    dns=Dns(("10.1.0.1",), "lan", ("lan", "example"), ("ndots:2",)),
)
DNS = {
    "nameservers": ["10.1.0.1"],
    "domain": "lan",
    "search": ["lan", "example"],
    "options": ["ndots:2"],
}
PLAIN_ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "::/0", "gw": "fd00::1"},
    {"dst": "10.9.0.0/16"},
]
PLAIN_INTERFACES = [
    {"name": "cni0", "mac": "02:00:00:00:00:01"},
    {"name": "veth1", "mac": "02:00:00:00:00:02"},
    {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/c1"},
]
IPS = [
    {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
    {"address": "fd00::5/64", "interface": 2},
    {"address": "10.2.0.5/16", "interface": 0},
]
OLD = {
    "ip4": {
        "ip": "10.1.0.5/16",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16"}],
    },
    "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
    "dns": DNS,
}
MIDDLE = {
    "interfaces": PLAIN_INTERFACES,
    "ips": [{**ip, "version": version} for ip, version in zip(IPS, "464", strict=True)],
    "routes": PLAIN_ROUTES,
    "dns": DNS,
}
EXPECTED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("0.1.0", "0.2.0"), OLD),
    **dict.fromkeys(("0.3.0", "0.3.1", "0.4.0"), MIDDLE),
    "1.0.0": {"interfaces": PLAIN_INTERFACES, "ips": IPS, "routes": PLAIN_ROUTES, "dns": DNS},
    "1.1.0": {
        "interfaces": [{**interface, "mtu": 1450} for interface in PLAIN_INTERFACES],
        "ips": IPS,
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "::/0", "gw": "fd00::1", "mtu": 1400, "advmss": 1360},
            {"dst": "10.9.0.0/16", "priority": 5, "table": 0, "scope": 0},
        ],
        "dns": DNS,
    },
}


@pytest.mark.parametrize("version", SUPPORTED)
def test_exactly_the_fields_of_the_version(version: str) -> None:
    assert render_result(FULL, version) == {"cniVersion": version, **EXPECTED[version]}


@pytest.mark.parametrize("source", SUPPORTED)
@pytest.mark.parametrize("target", SUPPORTED)
def test_every_conversion(source: str, target: str) -> None:
    """Printing in a version, reading it and printing again loses what the older one lacks."""
    read = parse_result(render_result(FULL, source), target)
    again = render_result(read, target)
    older = SUPPORTED.index(target) <= SUPPORTED.index(source)
    if older or family(source) == family(target) != "1.x":
        assert again == render_result(FULL, target)
    elif family(source) == "0.1-0.2" != family(target):
        assert [ip["address"] for ip in again["ips"]] == ["10.1.0.5/16", "fd00::5/64"]
        assert [route["dst"] for route in again["routes"]] == ["0.0.0.0/0", "10.9.0.0/16", "::/0"]
        assert "interfaces" not in again
        assert all("interface" not in ip for ip in again["ips"])
    else:
        assert again["interfaces"] == PLAIN_INTERFACES
        assert again["routes"] == PLAIN_ROUTES


def test_1_1_survives_the_round_trip() -> None:
    assert parse_result(render_result(FULL, "1.1.0"), "1.1.0") == FULL


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.3.1", {"cniVersion": "0.3.1", "dns": {}}),
        ("0.4.0", {"cniVersion": "0.4.0", "dns": {}}),
        ("1.0.0", {"cniVersion": "1.0.0"}),
        ("1.1.0", {"cniVersion": "1.1.0"}),
    ],
)
def test_empty_lists_are_left_out(version: str, expected: dict[str, Any]) -> None:
    assert render_result(Result(), version) == expected


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_no_addresses_cannot_be_said_in_old_versions(version: str) -> None:
    with pytest.raises(VersionError, match="no valid IP addresses"):
        check_convertible(version, has_ips=False)
    check_convertible(version, has_ips=True)
    with pytest.raises(VersionError):
        render_result(Result(interfaces=FULL.interfaces), version)


@pytest.mark.parametrize("version", ["0.3.0", "1.0.0", "1.1.0"])
def test_no_addresses_are_fine_later(version: str) -> None:
    check_convertible(version, has_ips=False)


@pytest.mark.parametrize("config", SUPPORTED)
@pytest.mark.parametrize("own", [*SUPPORTED, None])
def test_prev_result_must_be_of_the_configs_family(config: str, own: str | None) -> None:
    value = render_result(FULL, own or config)
    if own is None:
        del value["cniVersion"]
    if own is None or family(own) == family(config):
        assert parse_prev_result(value, config).ips[0].address == FULL.ips[0].address
    else:
        with pytest.raises(VersionError, match="incompatible"):
            parse_prev_result(value, config)


def test_reading_is_case_blind_and_tolerant() -> None:
    result = parse_result(
        {
            "CNIVERSION": "1.0.0",
            "Interfaces": [{"Name": "eth0", "socketPath": "/x", "pciID": "1", "mac": None}],
            "IPs": [
                {"Address": "::ffff:10.0.0.1/120", "Gateway": "", "Interface": 7},
                {"address": "10.0.0.2/24", "interface": -1},
            ],
            "ROUTES": [{"DST": "10.1.2.3/8", "gw": "", "mtu": 0, "table": 0}],
            "dns": None,
            "more": {},
        },
        "1.1.0",
    )
    assert result == Result(
        interfaces=(Interface("eth0"),),
        ips=(
            ResultAddress(ip_interface("10.0.0.1/24")),
            ResultAddress(ip_interface("10.0.0.2/24")),
        ),
        routes=(Route(ip_network("10.0.0.0/8"), table=0),),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "result is wrong"),
        ({"ips": [{"address": "10.0.0.1"}]}, r"result.ips\[0\].address"),
        ({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "x"}]}, r"result.routes\[1\].dst"),
        ({"dns": {"nameservers": [1]}}, r"result.dns.nameservers\[0\]"),
        ({"interfaces": [{"mtu": "1500"}]}, r"result.interfaces\[0\].mtu"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": ""}}, "result.ip4.ip"),
    ],
)
def test_errors_name_the_path(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_result(value, "1.1.0")


# --- the other documents


def test_error_document() -> None:
    error = ConfigError("mtu is wrong", '"1500" is not a whole number', "remove the quotes")
    assert render_error(error, "1.0.0") == {
        "cniVersion": "1.0.0",
        "code": 7,
        "msg": "mtu is wrong",
        "details": '"1500" is not a whole number; remove the quotes',
    }


def test_no_details_where_there_are_none() -> None:
    assert "details" not in render_error(UnsupportedError("vlan 5"), "1.0.0")


def test_an_unknown_version_is_not_repeated() -> None:
    assert render_error(VersionError("x"), "9.9.9")["cniVersion"] == "1.1.0"


def test_a_defect_has_code_999_and_no_traceback() -> None:
    document = render_error(KeyError("name"), "1.1.0")
    assert document["code"] == 999
    assert document["msg"] == "internal error: KeyError"


def test_a_delegates_code_is_kept() -> None:
    assert render_error(DelegateError("x", delegate_code=11), "1.1.0")["code"] == 11
    assert render_error(DelegateError("x"), "1.1.0")["code"] == 106


def test_del_errors_avoid_the_words_that_go_cni_takes_for_success() -> None:
    error = NetplugError("table not found", "no such file or directory", "x not found")
    text = json.dumps(render_error(error, "1.1.0", verb="DEL"))
    assert "not found" not in text
    assert "no such file or directory" not in text
    assert "not found" in json.dumps(render_error(error, "1.1.0", verb="ADD"))


def test_long_texts_are_cut() -> None:
    document = render_error(NetplugError("x" * 10**6, "y" * 10**6), "1.1.0")
    assert len(json.dumps(document)) < 5000


def test_version_document() -> None:
    assert render_version() == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_about_text() -> None:
    first, second = render_about("netplug").splitlines()
    assert first.startswith("CNI netplug plugin v")
    assert second == "CNI protocol versions supported: " + ", ".join(SUPPORTED)

"""`ipam` objects -> range sets: defaults, rules, routes, and the arithmetic of pools."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.errors import ConfigError
from netplug.ipam import UnknownKey, parse_ipam, unknown_keys
from netplug.ipam.ranges import compute_pools, make_pool, make_range
from netplug.model import Dns, Ipam, Range, Route, StaticAddress


def only_range(**keys: Any) -> Range:
    ((found,),) = parse_ipam({"ranges": [[keys]]}).range_sets
    return found


@pytest.mark.parametrize(
    ("subnet", "start", "end", "gateway"),
    [
        ("10.1.0.0/16", "10.1.0.1", "10.1.255.254", "10.1.0.1"),
        ("10.1.0.0/30", "10.1.0.1", "10.1.0.2", "10.1.0.1"),
        ("10.1.0.4/31", "10.1.0.4", "10.1.0.5", "10.1.0.4"),
        ("10.1.0.7/32", "10.1.0.7", "10.1.0.7", None),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        ("fd00::4/127", "fd00::4", "fd00::5", "fd00::4"),
        ("fd00::7/128", "fd00::7", "fd00::7", None),
    ],
)
def test_defaults_are_those_of_host_local(
    subnet: str, start: str, end: str, gateway: str | None
) -> None:
    found = only_range(subnet=subnet)
    assert (str(found.start), str(found.end)) == (start, end)
    assert found.gateway == (ip_address(gateway) if gateway else None)


def test_network_and_broadcast_are_never_leased_even_when_named() -> None:
    found = only_range(subnet="10.1.0.0/24", rangeStart="10.1.0.0", rangeEnd="10.1.0.255")
    assert (str(found.start), str(found.end)) == ("10.1.0.1", "10.1.0.254")


def test_order_of_range_sets() -> None:
    """The runtime's first, then the single range of old configurations, then `ranges`."""
    ipam = parse_ipam(
        {"type": "netplug", "subnet": "10.2.0.0/24", "ranges": [[{"subnet": "10.3.0.0/24"}]]},
        ip_ranges=[[{"subnet": "10.1.0.0/24"}]],
    )
    assert [str(s[0].subnet) for s in ipam.range_sets] == [
        "10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24",
    ]  # fmt: skip


def test_null_and_empty_text_mean_absent() -> None:
    found = only_range(subnet="10.1.0.0/24", rangeStart=None, rangeEnd="", gateway="", exclude=None)
    assert found == make_range(found.subnet)
    assert parse_ipam({"ranges": None, "routes": None, "addresses": None, "dns": None}) == Ipam()


def test_ipv4_mapped_addresses_are_ipv4() -> None:
    found = only_range(subnet="10.1.0.0/24", gateway="::ffff:10.1.0.9")
    assert found.gateway == ip_address("10.1.0.9")


def test_a_foreign_type_keeps_its_keys_to_itself() -> None:
    assert parse_ipam({"type": "dhcp", "ranges": "nonsense"}) == Ipam(type="dhcp")


def test_routes_addresses_dns() -> None:
    ipam = parse_ipam(
        {
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "10.9.1.2/16", "gw": "10.1.0.9", "mtu": 1400, "advmss": 0, "priority": 5,
                 "table": 0, "scope": 253},
            ],
            "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"},
                          {"address": "fd00::5/64"}],
            "dns": {"nameservers": ["10.1.0.1"], "domain": "lan", "search": ["a", "b"],
                    "options": ["ndots:2"]},
        }
    )  # fmt: skip
    assert ipam.routes == (
        Route(ip_network("0.0.0.0/0")),
        Route(
            ip_network("10.9.0.0/16"),
            ip_address("10.1.0.9"),
            mtu=1400,
            priority=5,
            table=0,
            scope=253,
        ),
    )
    assert ipam.addresses == (
        StaticAddress(ip_interface("10.1.0.5/24"), ip_address("10.1.0.1")),
        StaticAddress(ip_interface("fd00::5/64")),
    )
    assert ipam.dns == Dns(("10.1.0.1",), "lan", ("a", "b"), ("ndots:2",))


SUBNET = "10.1.0.0/24"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("ranges[0][0].subnet '10.1.0.5/24'", {"subnet": "10.1.0.5/24"}, "write 10.1.0.0/24"),
    ("ranges[0][0].subnet '10.1.0.0'", {"subnet": "10.1.0.0"}, "prefix length is missing"),
    ("ranges[0][0].subnet '10.01.0.0/24'", {"subnet": "10.01.0.0/24"}, "no subnet"),
    ("ranges[0][0].subnet '5'", {"subnet": 5}, "must be text"),
    ("ranges[0][0].subnet is missing", {"gateway": "10.1.0.1"}, "lies in a subnet"),
    ("subnet '224.1.0.0/24'", {"subnet": "224.1.0.0/24"}, "multicast"),
    ("subnet '127.1.0.0/24'", {"subnet": "127.1.0.0/24"}, "loopback"),
    ("rangeStart '10.2.0.5'", {"subnet": SUBNET, "rangeStart": "10.2.0.5"}, "outside the subnet"),
    ("rangeEnd 'fd00::5'", {"subnet": SUBNET, "rangeEnd": "fd00::5"}, "outside the subnet"),
    ("rangeEnd 'x'", {"subnet": SUBNET, "rangeEnd": "x"}, "no IP address"),
    (
        "rangeEnd '10.1.0.5'",
        {"subnet": SUBNET, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.5"},
        "rangeStart must come first",
    ),
    ("rangeStart '10.1.0.255'", {"subnet": SUBNET, "rangeStart": "10.1.0.255"}, "no address"),
    ("gateway '10.1.0.255'", {"subnet": SUBNET, "gateway": "10.1.0.255"}, "broadcast"),
    ("gateway 'fd00::1'", {"subnet": SUBNET, "gateway": "fd00::1"}, "family"),
    ("gateway '0.0.0.0'", {"subnet": SUBNET, "gateway": "0.0.0.0"}, "unicast"),
    ("gateway 'fe80::1%eth0'", {"subnet": "fd00::/64", "gateway": "fe80::1%eth0"}, "zone"),
    ("exclude[1] '10.2.0.0/28'", {"subnet": SUBNET, "exclude": ["10.1.0.9", "10.2.0.0/28"]},
     "not inside the subnet"),
    ("exclude[0] '10.1.0.5/28'", {"subnet": SUBNET, "exclude": ["10.1.0.5/28"]}, "host bits"),
    ("exclude '10.1.0.9'", {"subnet": SUBNET, "exclude": "10.1.0.9"}, "must be a list"),
    ("ranges[0][0] 10.1.0.0/24", {"subnet": SUBNET, "exclude": [SUBNET]}, "leave no address"),
    ("ranges[0][0] 10.1.0.0/30",
     {"subnet": "10.1.0.0/30", "rangeEnd": "10.1.0.1"}, "leave no address"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "keys", "reason"), REFUSED)
def test_refused_ranges(what: str, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ipam({"ranges": [[keys]]})
    error = caught.value
    assert error.what.startswith("ipam.") and what in error.what
    assert reason in f"{error.why}; {error.hint}"


TWO_SETS: list[tuple[list[Any], str]] = [
    ([[{"subnet": SUBNET}, {"subnet": "fd00::/64"}]], "of one family"),
    ([[{"subnet": SUBNET}, {"subnet": SUBNET}]], "overlaps ipam.ranges[0][0]"),
    ([[{"subnet": SUBNET}], [{"subnet": "10.1.0.0/16"}]], "overlaps"),
    ([[{"subnet": "10.1.0.0/16"}], [{"subnet": SUBNET}]], "overlaps"),
    ([[{"subnet": SUBNET}], [{"subnet": "10.2.0.0/24", "gateway": "10.1.0.1"}]], "belongs to"),
    ([[]], "at least one range"),
    ([{"subnet": SUBNET}], "two pairs of brackets"),
    ([["10.1.0.0/24"]], "must be an object"),
]


@pytest.mark.parametrize(("ranges", "reason"), TWO_SETS)
def test_refused_range_sets(ranges: list[Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ipam({"ranges": ranges})
    assert reason in f"{caught.value}; {caught.value.hint}"


def test_two_ranges_of_one_subnet_that_do_not_meet() -> None:
    ipam = parse_ipam(
        {
            "ranges": [
                [
                    {"subnet": SUBNET, "rangeEnd": "10.1.0.9"},
                    {"subnet": SUBNET, "rangeStart": "10.1.0.20", "rangeEnd": "10.1.0.29"},
                ]
            ]
        }
    )
    (pool,) = compute_pools(ipam)
    assert pool.size == 8 + 10


@pytest.mark.parametrize(
    ("ipam", "reason"),
    [
        ({"routes": [{"gw": "10.1.0.1"}]}, "ipam.routes[0].dst is missing"),
        ({"routes": [{"dst": "10.0.0.0"}]}, "prefix length is missing"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "fd00::1"}]}, "not of the family"),
        ({"routes": [{"dst": "0.0.0.0/0", "mtu": "1500"}]}, "whole number"),
        ({"routes": [{"dst": "0.0.0.0/0", "mtu": True}]}, "whole number"),
        ({"routes": [{"dst": "0.0.0.0/0", "scope": 256}]}, "from 0 to 255"),
        ({"routes": ["0.0.0.0/0"]}, "must be an object"),
        ({"routes": {}}, "ipam.routes"),
        ({"addresses": [{}]}, "ipam.addresses[0].address is missing"),
        ({"addresses": [{"address": "10.1.0.5"}]}, "prefix length is missing"),
        ({"addresses": [{"address": "10.1.0.5/33"}]}, "prefix length is wrong"),
        ({"addresses": [{"address": "10.1.0.5/24"}] * 2}, "listed twice"),
        ({"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.5"}]}, "the address itself"),
        ({"addresses": [{"address": "10.1.0.5/24", "gateway": "fd00::1"}]}, "not of the family"),
        ({"dns": {"nameservers": ["lan"]}}, "ipam.dns.nameservers[0] 'lan'"),
        ({"dns": {"search": [""]}}, "ipam.dns.search[0]"),
        ({"dns": []}, "ipam.dns"),
        ({"type": 5}, "ipam.type"),
    ],
)
def test_refused_values(ipam: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ipam(ipam)
    assert reason in str(caught.value)


@pytest.mark.parametrize("ip_ranges", ["text", {"subnet": SUBNET}])
def test_refused_ranges_of_the_runtime(ip_ranges: Any) -> None:
    with pytest.raises(ConfigError, match=r"runtimeConfig\.ipRanges"):
        parse_ipam({}, ip_ranges=ip_ranges)


def test_unknown_keys_with_the_key_that_was_meant() -> None:
    found = unknown_keys(
        {
            "type": "netplug",
            "range_start": "10.1.0.5",
            "cni.dev/attribute": 1,
            "zzz": 1,
            "ranges": [[{"subnet": SUBNET, "excludes": []}]],
            "routes": [{"dest": "0.0.0.0/0"}],
            "dns": {"nameserver": []},
        }
    )
    assert found == (
        UnknownKey("ipam.range_start", "rangeStart"),
        UnknownKey("ipam.zzz", None),
        UnknownKey("ipam.routes[0].dest", "dst"),
        UnknownKey("ipam.ranges[0][0].excludes", "exclude"),
        UnknownKey("ipam.dns.nameserver", "nameservers"),
    )
    assert unknown_keys({"ranges": "nonsense", "routes": [3], "dns": 5}) == ()


offsets = st.integers(0, 255)


@given(
    bounds=st.tuples(offsets, offsets).map(sorted),
    excluded=st.lists(st.tuples(offsets, st.integers(28, 32)), max_size=5),
    gateway=offsets,
    after=st.none() | offsets,
)
def test_spans_are_the_range_without_excludes_and_gateway(
    bounds: list[int], excluded: list[tuple[int, int]], gateway: int, after: int | None
) -> None:
    base = int(ip_address("10.1.0.0"))
    exclude = tuple(ip_network((base + low, prefix), strict=False) for low, prefix in excluded)
    one = make_range(
        ip_network("10.1.0.0/24"),
        start=ip_address(base + bounds[0]),
        end=ip_address(base + bounds[1]),
        exclude=exclude,
    )
    keep = ip_address(base + gateway)
    pool = make_pool([one], [keep])
    expected = [
        number
        for number in range(int(one.start), int(one.end) + 1)
        if ip_address(number) != keep and not any(ip_address(number) in net for net in exclude)
    ]
    spelled = [n for first, last in pool.spans for n in range(first, last + 1)]
    assert spelled == expected
    assert pool.size == len(expected)
    assert all((ip_address(n) in pool) == (n in expected) for n in range(base, base + 256))
    if after is None or base + after in expected:
        rest = [n for a, b in pool.after(after and base + after) for n in range(a, b + 1)]
        assert rest == [n for n in expected if not after or n > base + after]

"""Go's JSON and address dialects."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from netplug.cni.golang import Object, fold, parse_cidr, parse_ip, parse_mac, parse_object
from netplug.errors import DecodeError

SCHEMA = {"mtu": None, "isGateway": None, "dns": {"search": None}, "list": {"id": None}}


def folded(text: str) -> object:
    return fold(parse_object(text.encode()), SCHEMA)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"MTU":5}', {"mtu": 5}),
        ('{"ISgateway":true}', {"isGateway": True}),
        ('{"i\u017fGateway":true}', {"isGateway": True}),  # Go folds by Unicode: long s
        ('{"mtu":1,"MTU":2}', {"mtu": 2}),
        ('{"MTU":2,"mtu":1}', {"mtu": 1}),
        ('{"mtu":1,"MTU":2,"mtu":3}', {"mtu": 3}),
        ('{"mtu":1,"MTU":null}', {"mtu": 1}),
        ('{"mtu":1,"mtu":null}', {"mtu": 1}),
        ('{"mtu":null}', {}),
        ('{"other":{"MTU":1}}', {"other": {"MTU": 1}}),
        ('{"DNS":{"SEARCH":["a"],"Foo":1}}', {"dns": {"search": ["a"], "Foo": 1}}),
        ('{"list":[{"ID":1},5,{"id":2,"x":null}]}', {"list": [{"id": 1}, 5, {"id": 2}]}),
        ("null", {}),
        (' {"a":"\\ud83d\\ude00"} ', {"a": "\U0001f600"}),
        ('{"a":["\\ud800x"]}', {"a": ["\ufffdx"]}),
        ('{"\\udfff":{"b":"\\udc00"}}', {"\ufffd": {"b": "\ufffd"}}),
    ],
)
def test_keys(text: str, expected: object) -> None:
    assert folded(text) == expected


def test_bad_utf8_is_replaced() -> None:
    assert parse_object(b'{"a":"\xff"}') == {"a": "\ufffd"}


def test_duplicates_are_remembered_where_keys_are_free() -> None:
    value = parse_object(b'{"sysctl":{"a":1,"b":2,"a":3}}')["sysctl"]
    assert isinstance(value, Object)
    assert value == {"a": 3, "b": 2}
    assert value.duplicates == ("a",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{} x", "Extra data"),
        (b"[1]", "it is a list"),
        (b'"a"', "it is a string"),
        (b"3", "it is a number"),
        (b"true", "it is a boolean"),
        (b'{"a":NaN}', "NaN is no JSON value"),
        (b'{"a":1e400}', "out of range"),
        (b"[" * 10**6, "nested too deeply"),
        (b'{\n "a" 1}', "line 2, column 6"),
    ],
)
def test_what_is_no_object(text: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        parse_object(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.0.5/16", "10.1.0.5/16"),
        ("fd00::5/64", "fd00::5/64"),
        ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_cidr(text: str, expected: str) -> None:
    assert parse_cidr(text) == ip_interface(expected)


@pytest.mark.parametrize(
    "text",
    [
        *("10.1.0.5", "10.1.0.5/", "10.1.0.5/255.0.0.0", "10.1.0.05/8", "10.1.0.5/33", "/24", ""),
        *("10.1.0.5/-1", "10.1.0.5/8/8", "10.1.0.5/\u0668", "x/8", " 10.0.0.1/8", "fe80::1%a/64"),
    ],
)
def test_no_cidr(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_cidr(text)


def test_ip() -> None:
    assert parse_ip("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    with pytest.raises(ValueError, match="zone"):
        parse_ip("fe80::1%eth0")


@pytest.mark.parametrize(
    "text", ["02:00:00:00:0a:ff", "02-00-00-00-0A-FF", "0200.0000.0aff", "02:00:00:00:0A:FF"]
)
def test_mac(text: str) -> None:
    assert parse_mac(text) == "02:00:00:00:0a:ff"


@pytest.mark.parametrize(
    "text",
    [
        *("", "02", "02:00:00:00:00", "02:00:00:00:00:00:00:01", "2:0:0:0:0:1", "020000000001"),
        *("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00-00:00:00:00"),
        *("0200:0000:0001", "02 00 00 00 00 01", "+2:00:00:00:00:01", "0x:00:00:00:00:00"),
    ],
)
def test_no_mac(text: str) -> None:
    with pytest.raises(ValueError, match="MAC address"):
        parse_mac(text)

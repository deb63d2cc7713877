"""The dialects of Go that CNI texts are written in: `encoding/json` and `net`.

Engines and the reference plugins decode with Go's rules, so configurations that work
there must work here: keys in any case, later duplicates win, `null` means absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any

from netplug.errors import DecodeError
from netplug.model import IPAddress, IPInterface, IPNetwork

Schema = Mapping[str, Any]
"""Known key -> schema of its object (or of a list's objects), None where nothing is folded."""

DEPTH = 64  # levels of nesting; far above any configuration, far below Python's stack
SHOWN = 80  # characters of a foreign value that an error repeats


class Object(dict[str, Any]):
    """A JSON object without its nulls; `duplicates` are the keys that it spelled twice."""

    __slots__ = ("duplicates",)
    duplicates: tuple[str, ...]


def _object(pairs: list[tuple[str, Any]]) -> Object:
    out = Object()
    duplicates = []
    for key, value in pairs:
        if value is None:  # decoding null into a Go value changes nothing
            continue
        if out.pop(key, None) is not None:  # pop: a later duplicate also takes the later place
            duplicates.append(key)
        out[key] = value
    out.duplicates = tuple(duplicates)
    return out


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number {text[:SHOWN]} is out of range")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON value")


def parse_object(text: bytes, what: str = "stdin") -> Object:
    """The one JSON object in `text`; `null` is an empty one. Raises DecodeError naming `what`."""
    try:
        value = json.loads(
            text.decode("utf-8", "replace"),
            object_pairs_hook=_object,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        why = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise DecodeError(f"{what} is not valid JSON", why, _HINT) from None
    except RecursionError:
        raise DecodeError(f"{what} is not valid JSON", "nested too deeply", _HINT) from None
    except ValueError as error:
        raise DecodeError(f"{what} is not valid JSON", str(error), _HINT) from None
    if value is None:
        return _object([])
    if not isinstance(value, Object):
        raise DecodeError(f"{what} is not a JSON object", f"it is {kind_of(value)}", _HINT)
    _check_depth(value, what)
    if b"\\ud" in text or b"\\uD" in text:  # half a surrogate pair could not be printed again
        return _printable(value)  # type: ignore[no-any-return]
    return value


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise DecodeError(f"{what} is nested too deeply", f"{DEPTH} levels are allowed", _HINT)


_HINT = "pass one JSON object, as libcni does"


def _printable(value: Any) -> Any:
    """The same value with lone surrogates replaced by U+FFFD, as Go does."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, Object):
        out = Object((_printable(key), _printable(item)) for key, item in value.items())
        out.duplicates = value.duplicates
        return out
    return value


def fold(value: Any, schema: Schema) -> Any:
    """`value` with its keys spelled as in `schema`, at every level that the schema names.

    Unknown keys stay as they are; of several spellings of one key the last wins.
    """
    if isinstance(value, list):
        return [fold(item, schema) for item in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    key: str
    for key, item in value.items():
        if item is None:
            continue
        name = key if key in schema else _spelled(key, schema)
        inner = schema.get(name)
        out[name] = item if inner is None else fold(item, inner)
    return out


def _spelled(key: str, schema: Schema) -> str:
    folded = key.casefold()
    return next((known for known in schema if known.casefold() == folded), key)


def kind_of(value: Any) -> str:
    """The JSON type of a value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list | tuple) else "an object"


def shown(value: Any) -> str:
    """A foreign value as JSON, short enough for an error text."""
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def parse_ip(text: str) -> IPAddress:
    """An address; an IPv4-mapped IPv6 one is the IPv4 one. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{shown(text)} has a zone")
        return address.ipv4_mapped or address
    return address


def parse_cidr(text: str) -> IPInterface:
    """ADDRESS/LENGTH, host bits kept, no netmask notation (net.ParseCIDR). Raises ValueError."""
    _, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise ValueError(f"{shown(text)} is not of the form ADDRESS/PREFIXLENGTH")
    interface = ip_interface(text)
    if isinstance(interface, IPv6Interface):
        if interface.scope_id is not None:
            raise ValueError(f"{shown(text)} has a zone")
        mapped = interface.ip.ipv4_mapped
        if mapped is not None and interface.network.prefixlen >= 96:
            return ip_interface((mapped, interface.network.prefixlen - 96))
    return interface


def parse_network_address(text: str) -> IPNetwork:
    """The subnet of ADDRESS/LENGTH, host bits cleared. Raises ValueError."""
    return parse_cidr(text).network


def parse_mac(text: str) -> str:
    """A unicast Ethernet address as aa:bb:cc:dd:ee:ff (net.ParseMAC). Raises ValueError."""
    if text.count(".") == 2:
        groups, width = text.split("."), 4
    else:
        groups, width = text.split("-" if "-" in text else ":"), 2
    digits = "".join(groups)
    if {len(group) for group in groups} != {width} or len(digits) != 12 or not digits.isascii():
        raise ValueError(f"{shown(text)} is no MAC address of six bytes")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{shown(text)} is no MAC address of six bytes") from None
    if raw[0] & 1 or not any(raw):  # the kernel answers EADDRNOTAVAIL
        raise ValueError(f"{shown(text)} is no unicast MAC address")
    return raw.hex(":")

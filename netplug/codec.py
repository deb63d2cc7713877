"""Frozen dataclasses <-> plain JSON values, for what is stored and printed.

`encode` writes addresses as text and tuples as lists; `decode` reads them back
by the type hints. Unknown keys are ignored and missing ones take their default,
so that a record written by an older or newer netplug can still be removed.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from netplug.model import IPAddress, IPInterface, IPNetwork

T = TypeVar("T")
_ADDRESSES = get_args(IPAddress) + get_args(IPInterface) + get_args(IPNetwork)
_TEXT: dict[Any, Callable[[Any], Any]] = {
    IPAddress: ip_address,
    IPInterface: ip_interface,
    IPNetwork: ip_network,
}


def encode(value: Any) -> Any:
    """JSON-ready form of a value; fields that hold their default are left out."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, _ADDRESSES):  # first: looking for fields is slow, and an ADD has many
        return str(value)
    return {
        name: encode(item)
        for name, default in _defaults(value.__class__)
        if (item := getattr(value, name)) is not default and item != default
    }


@functools.cache
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    """Fields of a dataclass with their defaults; MISSING, which equals nothing, for none."""
    return tuple((field.name, field.default) for field in dataclasses.fields(kind))


def decode(kind: type[T], value: Any) -> T:
    """The inverse of `encode`. Raises ValueError or TypeError for values of the wrong shape."""
    return _decode(kind, value)  # type: ignore[no-any-return]


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    return get_type_hints(kind)


def _decode(kind: Any, value: Any) -> Any:
    if kind in _TEXT:
        return _TEXT[kind](value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise TypeError(f"{kind.__name__}: expected an object, got {type(value).__name__}")
        hints = hints_of(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        return kind(**{k: _decode(hints[k], v) for k, v in value.items() if k in names})
    origin = get_origin(kind)
    if origin is tuple:
        args = get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item) for item in value)
        return tuple(_decode(a, item) for a, item in zip(args, value, strict=True))
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), value)
    if origin is dict:
        return dict(value)
    if origin is Literal or kind is Any:
        return value
    if kind in (str, int, bool, float):
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        return value
    return kind(value)


def _decode_union(options: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return None
    rest = tuple(o for o in options if o is not type(None))
    if len(rest) == 1:
        return _decode(rest[0], value)
    if isinstance(value, str):  # one of our address unions, flattened by typing
        wanted = set(rest)
        interface = bool(wanted & set(get_args(IPInterface)))
        if interface and (wanted & set(get_args(IPAddress))) and "/" not in value:
            return ip_address(value)
        for union, parse in _TEXT.items():
            if wanted >= set(get_args(union)) and (union is not IPAddress or not interface):
                return parse(value)
    for option in rest:
        try:
            return _decode(option, value)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"no variant of {rest} fits {value!r}")

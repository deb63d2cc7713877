"""A driver's own options: JSON -> the frozen dataclass that states them.

The field `is_gateway` is the key `isGateway`, unless `field(metadata={"json": "..."})` says
otherwise; defaults are the field's. Values are checked strictly (a number in quotes is no number),
and what cannot be said by types a driver checks in `__post_init__`, raising ValueError or
ConfigError.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
)

from netplug import __version__
from netplug.cni.golang import fold, shown
from netplug.cni.reader import Reader, join
from netplug.codec import decode, encode, hints_of
from netplug.errors import ConfigError
from netplug.model import digest

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

NEAR_MISS = 0.82  # similarity from which an unknown key is taken for a misspelt option

_TOP = Reader("")


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """A key that nothing reads, the known key it resembles, and whether it must be a slip."""

    path: str
    near: str | None = None
    misspelt: bool = False

    def judged(self, *, strict: bool) -> str:
        """The text of a warning, or ConfigError."""
        advice = f'did you mean "{self.near}"?' if self.near else ""
        if strict or self.misspelt:
            raise ConfigError(
                f'unknown key "{self.path}"', "nothing reads it", advice or "remove it"
            )
        return f'unknown key "{self.path}" is ignored' + (f"; {advice}" if advice else "")


def judge_unknown(key: str, at: str, options: Iterable[str], others: Iterable[str] = ()) -> Unknown:
    """`key` compared with the driver's `options`, and with `others` for advice only."""
    from difflib import get_close_matches

    spelling = {known.casefold(): known for known in (*others, *options)}
    own = [option.casefold() for option in options]
    slip = get_close_matches(key.casefold(), own, n=1, cutoff=NEAR_MISS)
    near = slip or get_close_matches(key.casefold(), spelling, n=1)
    return Unknown(join(at, key), spelling[near[0]] if near else None, bool(slip))


class Memory(Protocol):
    """Where options that were found right are kept, so that they are not checked for each call."""

    def recall(self, key: str) -> str | None: ...

    def remember(self, key: str, text: str) -> None: ...


def parse_options(
    config: Mapping[str, Any], kind: type, memory: Memory | None = None
) -> tuple[Any, list[Unknown]]:
    """The options dataclass filled from the keys of `config` that are its own.

    Also the unknown keys inside those values. Raises ConfigError. Importing pydantic takes
    longer than all the rest of a call, so a process for each call looks into `memory` first.
    """
    fields = option_fields(kind)
    own = {key: value for key, value in config.items() if key in fields}
    _add_sysctls(own, fields, config)
    renamed, unknown = _renamed(own, kind, "")
    text = json.dumps(renamed, default=str, sort_keys=True)
    key = digest("options", __version__, kind.__module__, kind.__qualname__, text)
    if memory is not None and (known := memory.recall(key)) is not None:
        return _decode_options(kind, known), unknown
    options = _check_options(kind, text)
    if memory is not None:
        memory.remember(key, json.dumps(encode(options)))
    return options, unknown


@functools.lru_cache(256)
def _decode_options(kind: type, text: str) -> Any:
    return decode(kind, json.loads(text))


def _check_options(kind: type, text: str) -> Any:
    from pydantic import ValidationError

    try:
        # JSON mode: lists become tuples and texts addresses, nothing else is converted
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise _config_error(kind, error.errors(include_url=False)) from None


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _add_sysctls(own: dict[str, Any], fields: Iterable[str], config: Mapping[str, Any]) -> None:
    """args.cni.sysctl wins over the configuration's, key by key (as the reference's tuning)."""
    if "sysctl" not in fields:
        return
    args = _TOP.mapping(config.get("args", {}), "args")
    extra = _TOP.mapping(args.get("cni", {}), "args.cni").get("sysctl")
    if extra is not None:
        _refuse_duplicates(extra, "args.cni.sysctl")
        base = _TOP.mapping(own.get("sysctl", {}), "sysctl")
        _refuse_duplicates(base, "sysctl")
        own["sysctl"] = {**base, **_TOP.mapping(extra, "args.cni.sysctl")}


def _refuse_duplicates(value: Any, path: str) -> None:
    for key in getattr(value, "duplicates", ()):
        raise ConfigError(
            f"{path} is wrong", f"{shown(key)} is there twice", "keep one value for each key"
        )


@functools.cache
def option_fields(kind: type) -> dict[str, str]:
    """JSON key -> field name of a dataclass."""
    return {
        field.metadata.get("json") or _camel(field.name): field.name
        for field in dataclasses.fields(kind)
        if field.init
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _renamed(value: Any, hint: Any, path: str) -> tuple[Any, list[Unknown]]:
    """`value` with JSON keys replaced by field names wherever `hint` has a dataclass."""
    unknown: list[Unknown] = []
    for option in _variants(hint):
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            kind: Any = option
            fields, out = option_fields(kind), {}
            for key, item in fold(value, dict.fromkeys(fields)).items():
                if key not in fields:
                    unknown.append(judge_unknown(key, path, fields))
                    continue
                inner = hints_of(kind)[fields[key]]
                out[fields[key]], more = _renamed(item, inner, join(path, key))
                unknown += more
            return out, unknown
        if isinstance(value, list | tuple) and get_origin(option) is tuple:
            items = [
                _renamed(item, get_args(option)[0], f"{path}[{index}]")
                for index, item in enumerate(value)
            ]
            return [item for item, _ in items], [key for _, keys in items for key in keys]
    _refuse_duplicates(value, path)
    return value, unknown


def _variants(hint: Any) -> tuple[Any, ...]:
    """The members of a union without None, or the one type."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(option for option in get_args(hint) if option is not type(None))
    return (hint,)


def _config_error(kind: type, errors: list[ErrorDetails]) -> ConfigError:
    error = errors[0]
    path, hint = _locate(kind, error["loc"])
    if error["type"] == "missing":
        return ConfigError(
            f'"{path}" is missing', f"the driver needs {describe_type(hint)}", f"add {path}"
        )
    if error["type"] == "value_error" and dataclasses.is_dataclass(hint):  # __post_init__
        why = str(error.get("ctx", {}).get("error", ""))
        return ConfigError(f"{path or 'the configuration'} is wrong", why, "correct it")
    value = error["input"]
    quoted = isinstance(value, str) and value.casefold() in ("true", "false")
    quoted |= isinstance(value, str) and value.isdigit()
    return ConfigError(
        f"{path} is wrong",
        f"{shown(value)} is not {describe_type(hint)}",
        "remove the quotes" if quoted else f"correct {path}",
    )


def _locate(kind: Any, loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """The path of an error in JSON keys, and the type that is wanted there."""
    path, hint = "", kind
    for part in loc:
        for option in _variants(hint):
            if isinstance(part, int) and get_origin(option) is tuple:
                path, hint = f"{path}[{part}]", get_args(option)[0]
            elif dataclasses.is_dataclass(option) and part in hints_of(option):  # type: ignore[arg-type]
                names = {name: key for key, name in option_fields(option).items()}  # type: ignore[arg-type]
                path, hint = join(path, names[str(part)]), hints_of(option)[str(part)]  # type: ignore[arg-type]
            elif get_origin(option) is dict:
                path, hint = join(path, str(part)), get_args(option)[1]
            else:
                continue  # the name of a union's member
            break
    return path, hint


_WORDS = {int: "a whole number", str: "a string", bool: "true or false", float: "a number"}


def describe_type(hint: Any) -> str:
    """A type in the words of a user."""
    return " or ".join(dict.fromkeys(_describe_one(option) for option in _variants(hint)))


def _describe_one(hint: Any) -> str:
    origin = get_origin(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in get_args(hint))
    if origin is tuple:
        return f"a list (each item {describe_type(get_args(hint)[0])})"
    if origin is dict:
        return f"an object (each value {describe_type(get_args(hint)[1])})"
    if dataclasses.is_dataclass(hint):
        return f"an object with {', '.join(option_fields(hint))}"  # type: ignore[arg-type]
    name = getattr(hint, "__name__", "")
    for ending, words in (
        ("Interface", "an address with prefix length"),
        ("Network", "a subnet"),
        ("Address", "an IP address"),
    ):
        if name.endswith(ending):
            return words
    return "a value of another type"

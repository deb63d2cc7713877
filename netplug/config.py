"""A network's configuration, from CNI JSON, YAML or the command line -> `model.Network`.

A driver states its own keys as a frozen dataclass: the field `is_gateway` is the key
`isGateway`, unless `field(metadata={"json": "..."})` says otherwise; defaults are the
field's. Values are checked strictly (a number in quotes is no number), and what cannot
be said by types a driver checks in `__post_init__`, raising ValueError or ConfigError.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from netplug import __version__
from netplug.cni.golang import fold, shown
from netplug.cni.protocol import check_network_name
from netplug.cni.reader import Reader, join
from netplug.cni.schema import REQUEST, VALID_ATTACHMENTS
from netplug.codec import decode, encode
from netplug.errors import ConfigError
from netplug.model import Dns, Ipam, Network, digest
from netplug.resolvconf import parse_resolv_conf

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

DEFAULT_DRIVER = "bridge"
TYPE_PREFIX = "netplug-"  # the plugin netplug-DRIVER is a symlink that names its driver
FIREWALLS = {
    "auto": "auto",
    "nft": "nft",
    "nftables": "nft",
    "iptables": "iptables",
    "none": "none",
}
NEAR_MISS = 0.82  # similarity from which an unknown key is taken for a misspelt option
OF_ONE_CALL = ("prevResult", "runtimeConfig", *VALID_ATTACHMENTS)
RANGES = "ipRanges"  # the one part of a call's runtimeConfig that belongs to the network

_TOP = Reader("")
_RUNTIME = Reader("runtimeConfig")


def driver_name(config: Mapping[str, Any]) -> str:
    """The driver that a configuration asks for: key `driver`, else type netplug-DRIVER."""
    named = _TOP.text(config, "driver")
    kind = _TOP.text(config, "type").rpartition("/")[2]
    implied = kind.removeprefix(TYPE_PREFIX) if kind.startswith(TYPE_PREFIX) else ""
    if named and implied and named != implied and implied != "ipam":
        raise ConfigError(
            "driver and type disagree",
            f'driver is "{named}", type "{kind}" stands for the driver "{implied}"',
            'remove driver, or set "type": "netplug"',
        )
    return named or (implied if implied != "ipam" else "") or DEFAULT_DRIVER


def parse_network(
    config: Mapping[str, Any],
    driver_options: type,
    *,
    strict_unknown: bool = False,
    memory: Memory | None = None,
) -> tuple[Network, list[str]]:
    """The network and warnings about keys that nobody reads.

    `driver_options` is the options dataclass of `driver_name(config)`. A key that looks
    like a misspelt driver option is an error; with `strict_unknown` (CLI, YAML) every
    unknown key is. Raises ConfigError naming key, value and rule.
    """
    options_schema = dict.fromkeys(option_fields(driver_options))
    config = fold(dict(config), {**options_schema, **REQUEST})
    name = _TOP.text(config, "name")
    check_network_name(name)
    unknown = [
        _unknown(key, "", options_schema, REQUEST)
        for key in config
        if key not in REQUEST and key not in options_schema and not key.startswith("cni.dev/")
    ]
    options, unknown_in_options = parse_options(config, driver_options, memory)
    ipam, unknown_in_ipam = _parse_ipam(config)
    unknown += [*unknown_in_options, *unknown_in_ipam]
    warnings = [key.judged(strict=strict_unknown) for key in unknown]
    network = Network(
        name=name,
        driver=driver_name(config),
        options=options,
        ipam=ipam,
        dns=_parse_dns(config),
        firewall=_parse_firewall(config),
        raw={key: value for key, value in config.items() if key not in OF_ONE_CALL},
    )
    return network, warnings


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a call's configuration decides on the network: equal ones give equal networks."""
    found = {key: value for key, value in config.items() if key not in OF_ONE_CALL}
    runtime = config.get("runtimeConfig")
    of_network = runtime.get(RANGES) if isinstance(runtime, dict) else runtime  # else: wrong
    return {**found, "runtimeConfig": of_network}


def parse_identity(config: Mapping[str, Any]) -> Network:
    """Name, driver and kind of IPAM alone, without options: what a removal needs.

    A configuration that went wrong after ADD must not hinder DEL, so that nothing else
    is looked at (nor is pydantic imported for it).
    """
    ipam = config.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    driver = config.get("driver")
    return Network(
        name=_TOP.text(config, "name"),
        driver=driver if isinstance(driver, str) and driver else DEFAULT_DRIVER,
        options=None,
        ipam=Ipam(type=kind) if isinstance(kind, str) and kind else None,
        raw=dict(config),
    )


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


def _unknown(key: str, at: str, options: Iterable[str], others: Iterable[str] = ()) -> Unknown:
    """`key` compared with the driver's `options`, and with `others` for advice only."""
    from difflib import get_close_matches

    spelling = {known.casefold(): known for known in (*others, *options)}
    own = [option.casefold() for option in options]
    slip = get_close_matches(key.casefold(), own, n=1, cutoff=NEAR_MISS)
    near = slip or get_close_matches(key.casefold(), spelling, n=1)
    return Unknown(join(at, key), spelling[near[0]] if near else None, bool(slip))


# --- keys of no driver


def _parse_ipam(config: Mapping[str, Any]) -> tuple[Ipam | None, list[Unknown]]:
    """None for a layer 2 network: no ipam section, or an empty one. Also unknown keys."""
    section = _TOP.mapping(config.get("ipam", {}), "ipam")
    if not any(section.values()):
        return None, []
    from netplug.ipam import unknown_keys

    ipam = parse_own_ipam(section, _TOP.mapping(config.get("runtimeConfig", {}), "runtimeConfig"))
    if ipam.foreign:
        return ipam, []
    return ipam, [Unknown(key.path, key.suggestion) for key in unknown_keys(section)]


def parse_own_ipam(section: Mapping[str, Any], runtime: Mapping[str, Any]) -> Ipam:
    """The `ipam` section with the capability ipRanges and the file that resolvConf names."""
    from netplug.ipam import parse_ipam

    ranges = [item for _, item in _RUNTIME.items(runtime, RANGES)]
    ipam = parse_ipam(section, ip_ranges=ranges)
    path = Reader("ipam").text(section, "resolvConf")
    if not path or ipam.foreign:
        return ipam
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return dataclasses.replace(ipam, dns=parse_resolv_conf(file.read()))
    except OSError as error:
        raise ConfigError(
            f"ipam.resolvConf {path} cannot be read", error.strerror or "", "correct the path"
        ) from error


def _parse_dns(config: Mapping[str, Any]) -> Dns:
    section = _TOP.mapping(config.get("dns", {}), "dns")
    servers = _TOP.texts(section, "nameservers", "dns")
    for index, server in enumerate(servers):
        _TOP.parse(ip_address, server, f"dns.nameservers[{index}]")
    return Dns(
        nameservers=servers,
        domain=_TOP.text(section, "domain", "dns"),
        search=_TOP.texts(section, "search", "dns"),
        options=_TOP.texts(section, "options", "dns"),
    )


def _parse_firewall(config: Mapping[str, Any]) -> str:
    """`firewall`, else the reference's `ipMasqBackend`, else auto."""
    found = {}
    for key in ("firewall", "ipMasqBackend"):
        value = _TOP.text(config, key)
        if value and value not in FIREWALLS:
            raise _TOP.wrong(key, value, f"is none of {', '.join(FIREWALLS)}")
        if value:
            found[key] = FIREWALLS[value]
    if len({*found.values()} - {"auto"}) > 1:
        raise ConfigError(
            "firewall and ipMasqBackend disagree",
            f"{found['firewall']} and {found['ipMasqBackend']}",
            "remove ipMasqBackend",
        )
    return next((value for value in found.values() if value != "auto"), "auto")


# --- the driver's own options


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


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _renamed(value: Any, hint: Any, path: str) -> tuple[Any, list[Unknown]]:
    """`value` with JSON keys replaced by field names wherever `hint` has a dataclass."""
    unknown: list[Unknown] = []
    for option in _variants(hint):
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            kind: Any = option
            fields, out = option_fields(kind), {}
            for key, item in fold(value, dict.fromkeys(fields)).items():
                if key not in fields:
                    unknown.append(_unknown(key, path, fields))
                    continue
                inner = _hints(kind)[fields[key]]
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
            elif dataclasses.is_dataclass(option) and part in _hints(option):  # type: ignore[arg-type]
                names = {name: key for key, name in option_fields(option).items()}  # type: ignore[arg-type]
                path, hint = join(path, names[str(part)]), _hints(option)[str(part)]  # type: ignore[arg-type]
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


def with_firewall(network: Network, forced: str | None) -> Network:
    """The network with the firewall that the environment forces (NETPLUG_FIREWALL), if any."""
    if not forced:
        return network
    return dataclasses.replace(network, firewall=_parse_firewall({"firewall": forced}))


SYSCTL_ALLOWLIST = "/etc/cni/tuning/allowlist.conf"  # the reference `tuning` plugin's file


def demand_allowed_sysctls(network: Network, path: str = SYSCTL_ALLOWLIST) -> None:
    """Every sysctl matches a line of the administrator's list, where there is one.

    Lines are regular expressions, matched anywhere in the key, as the reference does.
    """
    wanted = getattr(network.options, "sysctl", None)
    if not wanted:
        return
    import re

    try:
        with open(path, encoding="utf-8") as file:
            patterns = [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        return
    for key in wanted:
        if not any(re.search(pattern, key) for pattern in patterns):
            raise ConfigError(
                f"sysctl {key} is not allowed", f"no line of {path} matches it", "ask the admin"
            )

"""One plugin call: environment variables and stdin -> `Request`.

The order of the checks, and so which of several errors is reported, is that of the
reference main loop (`skel`): engines and their tests depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netplug.cni.golang import fold, kind_of, parse_object, shown
from netplug.cni.reader import Reader
from netplug.cni.result import parse_prev_result
from netplug.cni.schema import REQUEST, VALID_ATTACHMENTS
from netplug.cni.versions import DEFAULT, require_at_least, require_supported
from netplug.errors import ConfigError, DecodeError, InputError, RequestError
from netplug.model import Result, link_name_fault

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}  # spec version that brought a verb

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | frozenset("_.-")
_KNOWN_ARGS = frozenset({"IgnoreUnknown", "IP", "MAC", "GATEWAY"})
_KNOWN_PREFIXES = ("K8S_", "NERDCTL_")  # what engines tell every plugin of a chain


@dataclass(frozen=True, slots=True)
class Request:
    """A valid call of a plugin. `command` "" asks for the about text; VERSION fills nothing else.

    config: stdin with its known keys spelled as in the spec; stdin: its bytes, for delegates.
    prev_result: of ADD and CHECK; None where absent.
    valid_attachments: (container, ifname) pairs for GC; None where the caller gave no list.
    """

    command: str
    container: str = ""
    netns: str = ""
    ifname: str = ""
    args: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    version: str = DEFAULT
    prev_result: Result | None = None
    valid_attachments: tuple[tuple[str, str], ...] | None = None
    netns_override: bool = False
    stdin: bytes = b""


def parse_request(environ: Mapping[str, str], read_stdin: Callable[[], bytes]) -> Request:
    """The request in `environ` and stdin. Raises NetplugError with the code that skel gives.

    stdin is read after the environment is found complete, and never for VERSION or about.
    """
    variables = _parse_environment(environ)
    command = variables["CNI_COMMAND"]
    if command in ("", "VERSION"):
        return Request(command)
    try:
        stdin = read_stdin()
    except OSError as error:
        raise InputError("stdin cannot be read", error.strerror or str(error)) from error
    config = fold(parse_object(stdin), REQUEST)
    _check_name(config)
    version = _config_version(config)
    if command not in VERBS:
        raise RequestError(
            f"unknown CNI_COMMAND: {command[:40]}",
            f"{shown(command)} is no verb of the CNI spec",
            f"use one of {', '.join(VERBS)}",
        )
    if command in SINCE:
        require_at_least(version, SINCE[command], command)
    require_supported(version)
    return Request(
        command=command,
        container=variables["CNI_CONTAINERID"],
        netns=variables["CNI_NETNS"],
        ifname=variables["CNI_IFNAME"],
        args=parse_args(variables["CNI_ARGS"], strict=command == "ADD"),
        path=tuple(filter(None, variables["CNI_PATH"].split(":"))),
        config=config,
        version=version,
        prev_result=_prev_result(config, command, version),
        valid_attachments=_valid_attachments(config) if command == "GC" else None,
        netns_override=variables["CNI_NETNS_OVERRIDE"].lower() in ("1", "true"),
        stdin=stdin,
    )


# --- environment


def check_container(value: str) -> None:
    """Raises RequestError unless `value` can be a container ID. There is no length limit."""
    if not _is_identifier(value):
        raise RequestError(
            "invalid characters in CNI_CONTAINERID",
            shown(value),
            "use letters, digits, '_', '.', '-'; start with a letter or digit",
        )


def check_ifname(value: str) -> None:
    """Raises RequestError unless the kernel takes `value` as an interface name."""
    rule = link_name_fault(value)
    if rule:
        raise RequestError(
            "CNI_IFNAME is no interface name", f"{shown(value)} {rule}", "use a name such as eth0"
        )


def _check_netns(value: str) -> None:
    if "\0" in value:
        raise RequestError("CNI_NETNS is no path", f"{shown(value)} contains a zero byte")


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    required: tuple[str, ...] = ()
    check: Callable[[str], None] | None = None


_VARIABLES = (
    _Variable("CNI_COMMAND"),
    _Variable("CNI_CONTAINERID", ("ADD", "DEL", "CHECK"), check_container),
    _Variable("CNI_NETNS", ("ADD", "CHECK"), _check_netns),
    _Variable("CNI_IFNAME", ("ADD", "DEL", "CHECK"), check_ifname),
    _Variable("CNI_ARGS"),
    # the spec calls CNI_PATH optional; skel demands it, and so every engine sends it
    _Variable("CNI_PATH", ("ADD", "DEL", "CHECK", "GC", "STATUS")),
    _Variable("CNI_NETNS_OVERRIDE"),
)


def _parse_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Every CNI variable, "" where unset. A bad value is reported before later missing names."""
    command = environ.get("CNI_COMMAND", "")
    values: dict[str, str] = {}
    missing: list[str] = []
    for variable in _VARIABLES:
        value = values[variable.name] = environ.get(variable.name, "")
        if command not in variable.required:
            continue
        if not value:
            missing.append(variable.name)
        elif variable.check is not None:
            variable.check(value)
    if missing:
        raise RequestError(
            f"required env variables [{','.join(missing)}] missing",
            f"CNI_COMMAND={command} needs them",
            "set them as the CNI spec says; engines and cnitool do",
        )
    if command == "DEL":
        _check_netns(values["CNI_NETNS"])
    return values


def parse_args(text: str, *, strict: bool) -> dict[str, str]:
    """CNI_ARGS, `K=V;K=V`, later keys win. Only `strict` (ADD) raises RequestError.

    Keys that no netplug plugin knows are an error unless IgnoreUnknown is true; keys
    meant for a sibling in the chain are not: all of a chain share one CNI_ARGS.
    """
    args: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        if pair.count("=") == 1:
            key, value = pair.split("=")
            args[key] = value
        elif strict:
            raise RequestError(
                f"CNI_ARGS: invalid pair {shown(pair)}",
                "each pair has exactly one '='",
                "write KEY=VALUE;KEY=VALUE",
            )
    if strict:
        _check_args(args)
    return args


def _check_args(args: Mapping[str, str]) -> None:
    ignore = args.get("IgnoreUnknown", "false").lower()
    if ignore not in ("0", "1", "true", "false"):
        raise RequestError(
            f"CNI_ARGS: IgnoreUnknown={ignore[:40]} is no boolean",
            "it must be 0, 1, true or false",
            "write IgnoreUnknown=1",
        )
    if ignore in ("1", "true"):
        return
    unknown = [
        f"{key}={value}"
        for key, value in args.items()
        if key not in _KNOWN_ARGS and not key.startswith(_KNOWN_PREFIXES)
    ]
    if unknown:
        raise RequestError(
            f"CNI_ARGS: unknown args {shown(unknown)}",
            f"known are {', '.join(sorted(_KNOWN_ARGS))} and K8S_*",
            "remove them or add IgnoreUnknown=1",
        )


# --- stdin


def _check_name(config: Mapping[str, Any]) -> None:
    name = config.get("name", "")
    if not isinstance(name, str):
        raise DecodeError("name is no string", f"it is {kind_of(name)}: {shown(name)}")
    if not name:
        raise ConfigError(
            "missing network name", "the key name is absent or empty", 'add "name": "NETWORK"'
        )
    check_network_name(name)


def check_network_name(name: str) -> None:
    """Raises ConfigError unless `name` can name a network (it becomes part of file names)."""
    if not _is_identifier(name):
        raise ConfigError(
            "invalid characters in network name",
            shown(name),
            "use letters, digits, '_', '.', '-'; start with a letter or digit",
        )


def _config_version(config: Mapping[str, Any]) -> str:
    version = config.get("cniVersion", "")
    if not isinstance(version, str):
        raise DecodeError("cniVersion is no string", f"it is {kind_of(version)}: {shown(version)}")
    return version or DEFAULT


def _prev_result(config: Mapping[str, Any], command: str, version: str) -> Result | None:
    """ADD and CHECK demand a readable one; DEL cleans up in any case, and from its record."""
    if command not in ("ADD", "CHECK"):
        return None
    value = config.get("prevResult")
    if value is None:
        if command == "CHECK":
            raise ConfigError(
                "missing prevResult",
                "CHECK compares the kernel with the result of ADD",
                "pass the result of ADD under the key prevResult, as libcni does",
            )
        return None
    return parse_prev_result(value, version)


def _valid_attachments(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    key = next((key for key in VALID_ATTACHMENTS if key in config), None)
    if key is None:
        return None
    # never guess here: GC removes what it does not find in this list
    reader = Reader("")
    pairs = []
    for path, item in reader.items(config, key):
        entry = reader.mapping(item, path)
        pair = reader.text(entry, "containerID", path), reader.text(entry, "ifname", path)
        if not all(pair):
            raise reader.wrong(path, item, "needs containerID and ifname")
        pairs.append(pair)
    return tuple(pairs)


def _is_identifier(text: str) -> bool:
    """[A-Za-z0-9][A-Za-z0-9_.-]* (CNI spec). Importing `re` takes longer than an ADD's work."""
    return text[:1] in _FIRST and _REST.issuperset(text)

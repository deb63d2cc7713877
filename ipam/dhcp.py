"""The keys of `ipam` with type `netplug-dhcp` -> `Dhcp`. Pure.

`provide` and `request` are the reference `dhcp` plugin's, with its names of options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netplug.errors import ConfigError
from netplug.model import Dhcp, DhcpProvided

NAMES = {
    "subnet-mask": 1,
    "routers": 3,
    "domain-name-servers": 6,
    "host-name": 12,
    "domain-name": 15,
    "interface-mtu": 26,
    "vendor-class-identifier": 60,
    "dhcp-client-identifier": 61,
    "user-class": 77,
    "domain-search": 119,
    "classless-static-routes": 121,
}
OURS = (0, 50, 51, 52, 53, 54, 55, 57, 255)  # what the exchange itself needs: not for a user
CONTAINER_NAME = "K8S_POD_NAME"
KEYS = (
    *("type", "provide", "request", "clientId", "hostname"),
    *("broadcast", "priority", "timeout", "daemonSocketPath"),
)
CHILD_KEYS = {"provide": ("option", "value", "fromArg"), "request": ("option", "skipDefault")}
LONGEST = 60  # seconds that an ADD may wait


def parse_dhcp(section: Mapping[str, Any]) -> Dhcp:
    """Raises ConfigError with the key, the value and the rule."""
    provide = [_provided(entry, at) for at, entry in _entries(section, "provide")]
    request = [(_option(entry, at), entry) for at, entry in _entries(section, "request")]
    skip = any(entry.get("skipDefault") is True for _, entry in request)
    seconds = _number(section, "timeout", LONGEST) or 10
    return Dhcp(
        provide=tuple(provide),
        request=tuple(option for option, _ in request if option),
        skip_defaults=skip,
        client_id=_text(section, "clientId"),
        hostname=_text(section, "hostname"),
        broadcast=_flag(section, "broadcast"),
        priority=_number(section, "priority", 2**32 - 1),
        seconds=float(seconds),
    )


def _entries(section: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    value = section.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError(f"ipam.{key} is wrong", "it must be a list of objects", "correct it")
    return [(f"ipam.{key}[{number}]", item) for number, item in enumerate(value)]


def _provided(entry: Mapping[str, Any], at: str) -> DhcpProvided:
    option = _option(entry, at)
    value, source = entry.get("value"), entry.get("fromArg")
    if source not in (None, "", CONTAINER_NAME):
        raise ConfigError(
            f"{at}.fromArg is {source!r}",
            f"of CNI_ARGS netplug keeps {CONTAINER_NAME} alone, the container's name",
            f'write "fromArg": "{CONTAINER_NAME}", or a fixed "value"',
        )
    if not option or (not source and not (isinstance(value, str) and value)):
        raise ConfigError(
            f"{at} is wrong",
            "it needs an option and its value",
            'write {"option": "user-class", "value": "lab"}',
        )
    return DhcpProvided(option, "" if source else str(value))


def _option(entry: Mapping[str, Any], at: str) -> int:
    """The number of an option; 0 where the entry names none."""
    named = entry.get("option", "")
    text = str(named) if isinstance(named, (str, int)) and not isinstance(named, bool) else "?"
    number = NAMES.get(text) if not text.isdecimal() else int(text)
    if text and (number is None or number > 255 or number in OURS):
        raise ConfigError(
            f"{at}.option is {named!r}",
            "it is no option that one may choose",
            f"use a number from 1 to 254, or one of {', '.join(NAMES)}",
        )
    return number or 0


def _text(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key) or ""
    if not isinstance(value, str) or len(value.encode()) > 253:
        raise ConfigError(f"ipam.{key} is {value!r}", "it must be a short text", "correct it")
    return value


def _flag(section: Mapping[str, Any], key: str) -> bool:
    value = section.get(key) or False
    if not isinstance(value, bool):
        raise ConfigError(f"ipam.{key} is {value!r}", "it must be true or false", "correct it")
    return value


def _number(section: Mapping[str, Any], key: str, most: int) -> int | None:
    value = section.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigError(
            f"ipam.{key} is {value!r}", f"it must be a whole number from 0 to {most}", "correct it"
        )
    return value

"""A network's configuration, from CNI JSON, YAML or the command line -> `model.Network`.

What is common to all drivers is read here, a driver's own keys in `netplug.options`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from netplug.cni.golang import fold
from netplug.cni.naming import parse_names
from netplug.cni.protocol import check_network_name
from netplug.cni.reader import Reader
from netplug.cni.resolver import parse_network_dns
from netplug.cni.schema import REQUEST, VALID_ATTACHMENTS
from netplug.errors import ConfigError
from netplug.model import Ipam, Network
from netplug.options import Memory, Unknown, judge_unknown, option_fields, parse_options
from netplug.resolvconf import parse_resolv_conf

DEFAULT_DRIVER = "bridge"
TYPE_PREFIX = "netplug-"  # the plugin netplug-DRIVER is a symlink that names its driver
FIREWALLS = {
    "auto": "auto",
    "nft": "nft",
    "nftables": "nft",
    "iptables": "iptables",
    "none": "none",
}
OF_ONE_CALL = ("prevResult", "runtimeConfig", *VALID_ATTACHMENTS)
RANGES = "ipRanges"  # the one part of a call's runtimeConfig that belongs to the network

_TOP = Reader("")
_RUNTIME = Reader("runtimeConfig")


def is_ours(plugin_type: str) -> bool:
    return plugin_type == "netplug" or plugin_type.startswith(TYPE_PREFIX)


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
        judge_unknown(key, "", options_schema, REQUEST)
        for key in config
        if key not in REQUEST and key not in options_schema and not key.startswith("cni.dev/")
    ]
    options, unknown_in_options = parse_options(config, driver_options, memory)
    ipam, unknown_in_ipam = _parse_ipam(config)
    names, unknown_in_names = parse_names(config)
    unknown += [*unknown_in_options, *unknown_in_ipam, *unknown_in_names]
    warnings = [key.judged(strict=strict_unknown) for key in unknown]
    network = Network(
        name=name,
        driver=driver_name(config),
        options=options,
        ipam=ipam,
        dns=parse_network_dns(config, _TOP),
        firewall=_parse_firewall(config),
        names=names,
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

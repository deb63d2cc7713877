"""The key `names` of a network's configuration: that containers find each other by name."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from netplug.cni.golang import fold
from netplug.cni.reader import Reader
from netplug.cni.schema import CHAINED, NAMES
from netplug.model import Names
from netplug.options import Unknown, judge_unknown

TTL_LIMIT = 86_400  # seconds: a day, for names that may be gone in a moment
DOMAIN_LIMIT = 63  # characters: names of containers and networks must fit before it
_TOP = Reader("")
_DEFAULT = Names()


def parse_names(config: Mapping[str, Any]) -> tuple[Names | None, list[Unknown]]:
    """None where there are to be none; true stands for the defaults. Also unknown keys.

    Raises ConfigError naming key, value and rule.
    """
    section = config.get("names")
    if section is None or isinstance(section, bool):
        return (_DEFAULT if section else None), []
    section = fold(dict(_TOP.mapping(section, "names")), NAMES)
    unknown = [judge_unknown(key, "names", NAMES) for key in section if key not in NAMES]
    domain = (_TOP.text(section, "domain", "names") or _DEFAULT.domain).lower().rstrip(".")
    if fault := domain_fault(domain):
        raise _TOP.wrong("names.domain", domain, fault)
    ttl = _TOP.number(section, "ttl", "names", most=TTL_LIMIT)
    upstreams = _TOP.texts(section, "upstreams", "names")
    for index, server in enumerate(upstreams):
        _TOP.parse(ip_address, server, f"names.upstreams[{index}]")
    return Names(
        domain=domain,
        ttl=_DEFAULT.ttl if ttl is None else ttl,
        services=_parse_services(section),
        upstreams=upstreams,
    ), unknown


def parse_chained_names(
    config: Mapping[str, Any], before: tuple[str, ...]
) -> tuple[Names, list[Unknown]]:
    """The names that plugin `dnsname` gives: its own keys, or those of our key `names`.

    `before`: the servers that the plugins before it named, asked for what is not ours.
    """
    config = fold(dict(config), CHAINED)
    section = config.get("names")
    section = {} if isinstance(section, bool) or section is None else section
    remote = _TOP.texts(config, "remoteServers") or tuple(filter(_is_address, before))
    own = {"domain": _TOP.text(config, "domainName"), "upstreams": list(remote)}
    given = _TOP.mapping(section, "names")
    names, unknown = parse_names(
        {"names": {**{key: value for key, value in own.items() if value}, **given}}
    )
    assert names is not None
    return names, unknown


def render_names(names: Names) -> dict[str, Any]:
    """The key `names` that says the same."""
    return {
        "domain": names.domain,
        "ttl": names.ttl,
        "services": dict(names.services),
        "upstreams": list(names.upstreams),
    }


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _parse_services(section: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    at = "names.services"
    ports = _TOP.mapping(section.get("services", {}), at)
    services = []
    for name in ports:
        port = _TOP.number(ports, name, at, most=65535)
        if not port or not _is_label(name):
            rule = "must be a port of 1 to 65535 under a name of letters, digits and hyphens"
            raise _TOP.wrong(f"{at}.{name}", port, rule)
        services.append((name.lower(), port))
    return tuple(services)


def domain_fault(domain: str) -> str:
    """The rule of host names (RFC 1123 section 2.1) that a domain breaks; "" where it is one."""
    if len(domain) > DOMAIN_LIMIT:
        return f"is longer than {DOMAIN_LIMIT} characters"
    if all(map(_is_label, domain.split("."))):
        return ""
    return "is no domain: labels of letters, digits and inner hyphens, joined by dots"


def _is_label(text: str) -> bool:
    inner = text.replace("-", "")
    return inner.isascii() and inner.isalnum() and text[0] != "-" != text[-1] and len(text) < 64

"""Text -> Topology: the keys of a topology file, and errors that name key, rule and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from netplug.errors import ConfigError
from netplug.model import IPAddress, IPInterface, IPNetwork

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
NAT = "nat"


def _parse_name(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        raise ValueError(f"YAML reads this name as {value!r}; put it in quotes")
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no name: letters, digits, '-', '_' and '.', at most 63 of them"
        )
    return value


def _parse_interface(value: Any) -> IPInterface:
    example = "an address needs its prefix length, such as 10.0.1.2/24 or fd00:1::2/64"
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f"{value!r}: {example}")
    try:
        return ip_interface(value)
    except ValueError as error:
        raise ValueError(f"{error}; {example}") from error


def _parse_group(value: Any) -> tuple[IPInterface, ...]:
    """The addresses of one link: none, one, or a list of them."""
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    return tuple(_parse_interface(item) for item in items)


def _parse_groups(value: Any) -> tuple[tuple[IPInterface, ...], ...]:
    """The addresses of a host: one item for each link."""
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    return tuple(_parse_group(item) for item in items)


def _parse_members(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError("a list of hosts and switches is expected, such as [web, db]")
    return tuple(_parse_name(item) for item in value)


def _parse_segments(value: Any) -> dict[str, tuple[IPInterface, ...] | str]:
    """A router: segment -> addresses on it, and `nat` -> segment."""
    if not isinstance(value, dict):
        raise ValueError("segments with addresses are expected, such as {br0: 10.0.1.1/24}")
    return {
        _parse_name(key): _parse_name(item) if key == NAT else _parse_group(item)
        for key, item in value.items()
    }


def _parse_loss(value: Any) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{value!r}: a percentage is expected, such as 2%")
    return float(match[1])


def _parse_routes(value: Any) -> dict[IPNetwork, IPAddress]:
    if not isinstance(value, dict):
        raise ValueError("routes are expected, such as {10.9.0.0/16: 10.0.1.1}")
    routes: dict[IPNetwork, IPAddress] = {}
    for destination, via in value.items():
        gateway = ip_address(str(via))
        default = "0.0.0.0/0" if gateway.version == 4 else "::/0"
        target = ip_network(default if destination == "default" else str(destination))
        if target.version != gateway.version:
            raise ValueError(f"{target} via {gateway} mixes IPv4 and IPv6")
        routes[target] = gateway
    return routes


Name = Annotated[str, BeforeValidator(_parse_name)]
Groups = Annotated[tuple[tuple[IPInterface, ...], ...], BeforeValidator(_parse_groups)]
Members = Annotated[tuple[str, ...], BeforeValidator(_parse_members)]
Segments = Annotated[dict[str, tuple[IPInterface, ...] | str], BeforeValidator(_parse_segments)]
Loss = Annotated[float, BeforeValidator(_parse_loss)]
Routes = Annotated[dict[IPNetwork, IPAddress], BeforeValidator(_parse_routes)]


class LinkEntry(BaseModel):
    """An entry of `links`: a cable between two nodes, or properties of one that is implied."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    a: Name
    b: Name
    mtu: int | None = Field(default=None, ge=68, le=65535)
    loss: Loss = 0.0
    up: bool = True


class TopologyFile(BaseModel):
    """The keys of a topology file; README.md beside this file describes them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    about: str = ""
    hosts: dict[Name, Groups] = {}
    switches: dict[Name, Members] = {}
    routers: dict[Name, Segments] = {}
    links: list[LinkEntry] = []
    routes: dict[Name, Routes] = {}


def parse_file(data: Any, *, source: str) -> TopologyFile:
    """The checked keys of a topology. Raises ConfigError: key path, rule, did-you-mean."""
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{source} is no topology",
            f"keys are expected at the top, found {type(data).__name__}",
            "see the README of netns-fixtures for the keys",
        )
    try:
        written = {key: value for key, value in data.items() if value is not None}
        return TopologyFile.model_validate(written)
    except ValidationError as error:
        raise _explain(error, source) from error


def _explain(error: ValidationError, source: str) -> ConfigError:
    """One ConfigError: the first problem in full, the others listed behind it."""
    problems = [_describe(dict(item)) for item in error.errors()]
    path, why, hint = problems[0]
    others = "; ".join(f"{path}: {why}" for path, why, _ in problems[1:])
    return ConfigError(f"{source}: {path}", f"{why}; {others}" if others else why, hint)


def _describe(item: dict[str, Any]) -> tuple[str, str, str]:
    """(key path, rule, remedy) of one pydantic error."""
    location = tuple(part for part in item["loc"] if part != "[key]")
    path = ".".join(str(part) for part in location)
    model = LinkEntry if location and location[0] == "links" else TopologyFile
    keys = tuple(model.model_fields)
    if item["type"] == "extra_forbidden":
        return path, "unknown key", did_you_mean(str(location[-1]), keys)
    if item["type"] == "missing":
        return path, "this key is needed", f"a link joins two ends: {{a: web, b: {location[-1]}}}"
    if item["type"] == "value_error":
        return path, str(item["ctx"]["error"]), ""
    return path, f"{item['msg']}, found {item['input']!r}", ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest known word, or all of them where none is near."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(words)}" if words else ""


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys in silence; a typing error deserves a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, source: str) -> Any:
    """Plain values. Raises ConfigError with line and column."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}", error.problem or "this is no YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(source, f"this is no YAML: {error}") from error

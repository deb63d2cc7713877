"""Topology files: by path, or by the name of one that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netplug.errors import InputError
from netplug.fixtures.infer import infer
from netplug.fixtures.schema import did_you_mean, parse_file, parse_yaml
from netplug.fixtures.topology import Topology

SHIPPED = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The shipped topologies."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def load(path_or_name: str | Path) -> Topology:
    """The topology of a file, or of a shipped name such as "two-hosts".

    Raises InputError where there is no such file, ConfigError for what it says.
    """
    path = Path(path_or_name)
    if len(path.parts) == 1 and path.suffix == "":
        path = SHIPPED / f"{path_or_name}.yaml"
        if not path.exists():
            hint = did_you_mean(str(path_or_name), names())
            raise InputError(f"no topology is called {path_or_name}", "", hint)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read", why or "") from error
    return parse_topology(parse_yaml(text, source=path.name), name=path.stem)


def parse_topology(data: Any, *, name: str) -> Topology:
    """The topology of plain values, as YAML gives them. Raises ConfigError."""
    return infer(parse_file(data, source=name), name=name)

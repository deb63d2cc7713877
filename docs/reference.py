"""Writes what docs/*.md repeat of the code: tables of keys, defaults, errors; the commands.

    python docs/reference.py            rewrites it
    python docs/reference.py --check    says which are out of date, and ends with status 1

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Names, defaults, codes and
(for drivers) types are read from the code; what a key means is said in keys.toml. A key of the
code without a meaning is an error, and so is a meaning without a key.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from commands import render_commands
from tables import render_table

from netplug import errors
from netplug.cni import schema
from netplug.errors import NetplugError
from netplug.ipam.dhcp import KEYS as DHCP_KEYS
from netplug.options import describe_type, option_fields
from netplug.plugins import OWN, get_driver

FOLDER = Path(__file__).parent
MARKED = re.compile(r"(?<=<!-- generated: )([a-z -]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
# The tree in the docstring of netplug.errors: class, CNI code, exit status, meaning.
ERROR = re.compile(r"^ *[|` -]*(\w+) +(\d+) +(\d) *(.*)$", re.MULTILINE)
EXIT_STATUS = re.compile(r"(\d) ([^;.]+)")

Words = Mapping[str, Any]  # one section of keys.toml


def check_keys(section: str, known: Iterable[str], words: Words) -> None:
    """Raises LookupError unless keys.toml explains what the code knows, and nothing else."""
    for key in set(known) ^ set(words):
        where = "the code" if key in words else f"[{section}] of keys.toml"
        raise LookupError(f"key {key} is not in {where}")


def driver_table(name: str, words: Words) -> str:
    """The keys of a driver, from its options dataclass."""
    options: Any = get_driver(name).options
    keys, hints = option_fields(options), get_type_hints(options)
    check_keys(f"driver {name}", keys, words)
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    return render_table(
        ("key", "value", "default", "meaning"),
        (
            (f"`{key}`", describe_type(hints[field]), _default(defaults[field]), words[key])
            for key, field in keys.items()
        ),
    )


def _default(value: object) -> str:
    if value in ((), dataclasses.MISSING, ""):
        return ""
    return f"`{json.dumps(value)}`"


def schema_table(section: str, known: Iterable[str], words: Words) -> str:
    """Keys whose types are not declared: keys.toml says type, default and meaning."""
    known = list(known)
    check_keys(section, known, words)
    rows = ((f"`{key}`", *words[key]) for key in known)
    return render_table(("key", "value", "default", "meaning"), rows)


def error_table() -> str:
    """Every class of netplug.errors; the tree in its docstring must tell the truth."""
    rows = []
    told = {row[0]: row[1:] for row in ERROR.findall(errors.__doc__ or "")}
    for kind in _subclasses(NetplugError):
        code, status, meaning = told[kind.__name__]
        if (int(code), int(status)) != (kind.code, kind.exit_status):
            raise LookupError(f"the docstring of netplug.errors is wrong about {kind.__name__}")
        rows.append((f"`{kind.__name__}`", code, status, meaning or "everything else"))
    return render_table(("class", "CNI code", "exit status", "meaning"), rows)


def _subclasses(kind: type[NetplugError]) -> list[type[NetplugError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _subclasses(child))]


def exit_status_table() -> str:
    """The exit statuses, as `netplug --help` tells them."""
    from netplug.cli.app import EPILOG

    told = EPILOG.partition("Exit status: ")[2].partition("\n\n")[0]
    rows = [(status, " ".join(text.split())) for status, text in EXIT_STATUS.findall(told)]
    known = {0, *(kind.exit_status for kind in _subclasses(NetplugError))}
    if {int(status) for status, _ in rows} != known:
        raise LookupError("netplug --help does not tell the exit statuses of netplug.errors")
    return render_table(("status", "meaning"), rows)


def make_tables() -> dict[str, Callable[[], str]]:
    """How each table is made, by the name in its mark."""
    words = tomllib.loads((FOLDER / "keys.toml").read_text())
    common = [key for key in schema.REQUEST if key not in schema.VALID_ATTACHMENTS]
    nested = {
        "network": common,
        "ipam": schema.IPAM,
        "names": schema.NAMES,
        "dhcp": DHCP_KEYS,
        "range": schema.RANGE,
        "route": schema.ROUTE,
        "dns": schema.DNS,
        "runtime": schema.RUNTIME,
        "port": schema.RUNTIME["portMappings"] or {},
        "args": schema.ARGS["cni"] or {},
    }

    def table(section: str) -> Callable[[], str]:
        return lambda: schema_table(section, nested[section], words[section])

    def driver(name: str) -> Callable[[], str]:
        return lambda: driver_table(name, words[f"driver {name}"])

    return {
        "commands": render_commands,
        **{f"driver {name}": driver(name) for name in OWN if name != "host"},
        "errors": error_table,
        "exit status": exit_status_table,
        **{section: table(section) for section in nested},
    }


def render_page(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with every marked table made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{found[2]}\n{tables[found[1]]()}\n", text)


def main(arguments: list[str]) -> int:
    tables = make_tables()
    stale = []
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text()
        if (fresh := render_page(text, tables)) == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(fresh)
    verb = "out of date" if "--check" in arguments else "rewritten"
    print("\n".join(f"{name}: {verb}" for name in stale) or "everything is up to date")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

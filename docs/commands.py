"""The reference of the command line, read from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import typer
from tables import render_table

from netplug.cli.app import app

Command = Any  # click's, or typer's own since it carries a copy


def render_commands() -> str:
    """Every command: its heading, what it does, its usage, its arguments and options."""
    return "\n".join(_section(path, command) for path, command in _walk("netplug", _root()))


def _root() -> Command:
    return typer.main.get_command(app)


def _walk(path: str, command: Command) -> Iterator[tuple[str, Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _walk(f"{path} {name}", inner)


def _section(path: str, command: Command) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)]
    if inner := getattr(command, "commands", None):
        usage.append("COMMAND")
    text = f"## {path}\n\n{cleandoc(command.help or '')}\n\n```text\n{' '.join(usage)}\n```\n"
    rows = [(f"`{_placeholder(one)}`", one.help or "") for one in arguments]
    rows += [(_spelling(one), one.help or "") for one in options]
    for head, table in (("argument or option", rows), ("command", _commands(path, inner))):
        if table:
            text += "\n" + render_table((head, "meaning"), table)
    return text


def _placeholder(argument: Command) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]")
    name += "..." * (argument.nargs != 1)
    return name if argument.required else f"[{name}]"


def _spelling(option: Command) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    value = option.metavar or option.name.upper()
    return f"{names} {value}{' (repeatable)' * option.multiple}"


def _commands(path: str, inner: dict[str, Command] | None) -> list[tuple[str, str]]:
    return [
        (f"[`{name}`](#{f'{path} {name}'.replace(' ', '-')})", _first_line(command))
        for name, command in (inner or {}).items()
        if not command.hidden
    ]


def _first_line(command: Command) -> str:
    return cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")

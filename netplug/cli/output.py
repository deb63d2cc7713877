"""What people and scripts read: tables (rich, colours on a terminal alone) or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from netplug.codec import encode
from netplug.errors import DelegateError, NetplugError


def print_json(value: Any) -> None:
    print(json.dumps(encode(value), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table without lines; `empty` where there are no rows. Piped text is never cut."""
    if not rows:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        width=None if sys.stdout.isatty() else 1000,
        highlight=False,
        _environ=getattr(sys.stdout, "environ", None),  # in the agent, the caller's
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def print_done(verb: str, things: Sequence[str], *, dry_run: bool, json: bool) -> None:
    """What a command did (or would do) to each thing, a line each."""
    if json:
        print_json({"dry_run": dry_run, verb: list(things)})
        return
    for thing in things:
        print(f"would {verb} {thing}" if dry_run else thing)


def print_error(error: NetplugError) -> None:
    """One line for what and why, one for the next step, on stderr."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}error:{plain} {error}", file=sys.stderr)
    if error.hint:
        print(f"       {error.hint}", file=sys.stderr)
    if isinstance(error, DelegateError) and error.delegate_code is not None:
        print(f"       (the plugin's code is {error.delegate_code})", file=sys.stderr)


def warn(line: str) -> None:
    yellow, plain = ("\x1b[33m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{yellow}warning:{plain} {line}", file=sys.stderr)


def say(line: str) -> None:
    """A word about what was done, for people; stdout stays free for data."""
    print(line, file=sys.stderr)

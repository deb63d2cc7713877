"""The command line. Every command parses, calls the engine, renders; see `app`.

A warm agent does this for whoever calls (`handover`); else this process does it itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

TYPE_CHECKING = False  # importing typing takes 2 ms of a command's 30
if TYPE_CHECKING:
    from netplug.cli.context import Context


def main() -> None:
    """Runs the command line; exits 0, or with the status of the error's class (see --help)."""
    from netplug.cli.handover import hand_over

    try:
        status = hand_over(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    if status is not None:
        os._exit(status)  # nothing of the interpreter's is left to end, which takes 3 ms
    sys.exit(run(sys.argv[1:]))


def run(
    arguments: Sequence[str],
    make_context: Callable[[str | None], Context] | None = None,
    *,
    width: int | None = None,
) -> int:
    """The exit status of a command line that this process runs, with what `make_context` makes
    of its --conf-dir; `width` in columns is for help texts."""
    from netplug.cli.output import print_error
    from netplug.errors import NetplugError

    words, name = list(arguments), "netplug"
    if words[:1] == ["lab"]:  # needs neither the agent's modules nor CNI's: half of a start
        from netplug.cli.lab import get_command

        words, name = words[1:], "netplug lab"
    else:
        from netplug.cli.app import get_command
    try:
        get_command().main(words, prog_name=name, obj=make_context, terminal_width=width)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except NetplugError as error:
        print_error(error)
        return error.exit_status
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return 130
    return 0

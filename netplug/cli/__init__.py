"""The command line. Every command parses, calls the engine, renders; see `app`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; exits 0, or with the status of the error's class (see --help)."""
    from netplug.cli.app import app
    from netplug.cli.output import print_error
    from netplug.errors import NetplugError

    try:
        app(prog_name="netplug")
    except NetplugError as error:
        print_error(error)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)

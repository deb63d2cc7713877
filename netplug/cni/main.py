"""The CNI plugin: environment and stdin in, one JSON document on stdout, exit 0 or 1.

One binary for all drivers; called as `netplug-ipam` (or with that plugin type) it
answers as an IPAM plugin for foreign main plugins. The about text and VERSION are
answered here; what needs work is in `verbs`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from netplug.cni.protocol import Request, parse_request
from netplug.cni.result import render_about, render_error, render_result, render_version
from netplug.cni.versions import CURRENT
from netplug.errors import NetplugError

if TYPE_CHECKING:
    from netplug.cni.verbs import Surroundings


def main(program: str = "netplug", read: Callable[[], bytes] | None = None) -> int:
    """Serves one call of the process's own environment; the exit status."""
    _occupy_standard_descriptors()
    answer, failed = serve(os.environ, read or read_stdin, program=program, log=_log)
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.write(answer)
        sys.stdout.flush()
    except OSError:  # the caller is gone; DEL or GC will put right what ADD did
        return 1
    return int(failed)


def serve(
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes],
    *,
    program: str = "netplug",
    log: Callable[[str], None],
    around: Surroundings | None = None,
    request: Request | None = None,
) -> tuple[str, bool]:
    """The text for stdout, and whether it is an error object.

    `around` is where the work is done: by default this process's own namespaces.
    `request`: what the call says, where it was read already.
    """
    version = CURRENT
    try:
        request = request or parse_request(environ, read_stdin)
        version = request.version
        return _answer(request, program, log, around), False
    except Exception as error:  # no traceback may reach stdout (CNI spec, "Error")
        if not isinstance(error, NetplugError):
            import traceback

            log(traceback.format_exc())
        document = render_error(error, version, verb=environ.get("CNI_COMMAND", ""))
    return f"{json.dumps(document)}\n", True


def _answer(
    request: Request, program: str, log: Callable[[str], None], around: Surroundings | None
) -> str:
    if request.command == "":
        log(render_about(program).rstrip("\n"))
        return ""
    if request.command == "VERSION":
        return json.dumps(render_version()) + "\n"
    from netplug.cni.verbs import OneProcess, run

    result = run(request, program, log, around or OneProcess())
    return "" if result is None else f"{json.dumps(render_result(result, request.version))}\n"


def _occupy_standard_descriptors() -> None:
    """A caller may have closed some; no file that we open may take the place of one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def read_stdin() -> bytes:
    """All of it. Raises OSError."""
    if sys.stdin is None:  # Python's word for a descriptor that was closed
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def _log(line: str) -> None:
    if sys.stderr is None:  # print would turn to stdout
        return
    try:
        print(line, file=sys.stderr)
    except OSError:  # the caller has closed stderr
        return


if __name__ == "__main__":
    sys.exit(main())

"""The CNI plugin: environment and stdin in, one JSON document on stdout, exit 0 or 1.

One binary for all drivers; called as `netplug-ipam` (or with that plugin type) it
answers as an IPAM plugin for foreign main plugins.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from netplug.cni.protocol import Request, parse_request
from netplug.cni.result import (
    check_convertible,
    render_about,
    render_error,
    render_result,
    render_version,
)
from netplug.cni.versions import CURRENT
from netplug.errors import NetplugError, SandboxError
from netplug.model import Attachment, Network, Result


def main(program: str = "netplug") -> int:
    """Serves one call of the process's own environment; the exit status."""
    answer, error = serve(os.environ, sys.stdin.buffer.read, program=program, log=_log)
    try:
        if answer:
            sys.stdout.write(answer)
            sys.stdout.flush()
    except OSError:
        return 1
    return 1 if error else 0


def serve(
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes],
    *,
    program: str = "netplug",
    log: Callable[[str], None],
) -> tuple[str, bool]:
    """The text for stdout, and whether it is an error object."""
    request = Request("")
    version = CURRENT
    try:
        request = parse_request(environ, read_stdin)
        version = request.version
        return _answer(request, program, log), False
    except NetplugError as error:
        document = render_error(error, version, verb=request.command)
    except Exception as error:  # no traceback may reach stdout (CNI spec, "Error")
        import traceback

        log(traceback.format_exc())
        document = render_error(error, version, verb=request.command)
    return json.dumps(document, indent=4), True


def _log(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:  # the caller has closed stderr
        return


def _answer(request: Request, program: str, log: Callable[[str], None]) -> str:
    if request.command == "":
        log(render_about(program).rstrip("\n"))
        return ""
    if request.command == "VERSION":
        return json.dumps(render_version()) + "\n"
    result = _run(request, program, log)
    return "" if result is None else json.dumps(render_result(result, request.version), indent=4)


def _run(request: Request, program: str, log: Callable[[str], None]) -> Result | None:
    from netplug.cni.network import parse_attachment
    from netplug.cni.serve import is_ipam_call, open_engine, parse_own_network, serve_ipam

    if request.command in ("ADD", "DEL"):
        _demand_other_namespace(request)
    if is_ipam_call(request, program):
        return serve_ipam(request, log)
    network, foreign = parse_own_network(request, program, log)
    if request.command == "ADD":
        check_convertible(request.version, network.ipam is not None)
    with closing(open_engine(log)) as engine:
        if request.command == "GC":
            for owner in engine.gc(network.name, request.valid_attachments, foreign):
                log(f"removed {owner}")
            return None
        if request.command == "STATUS":
            for warning in engine.status(network, foreign):
                log(warning)
            return None
        attachment = parse_attachment(request, network)
        return _on_attachment(engine, request, network, attachment, foreign)


def _on_attachment(
    engine: Any, request: Request, network: Network, attachment: Attachment, foreign: Any
) -> Result | None:
    if request.command == "ADD":
        result: Result = engine.add(network, attachment, foreign)
        return result
    if request.command == "DEL":
        engine.delete(attachment, foreign)
    else:
        engine.check(attachment, request.prev_result, foreign)
    return None


def _demand_other_namespace(request: Request) -> None:
    """CNI_NETNS must not be the plugin's own namespace (code 8), unless overridden.

    The reference plugins look after the work is done; we look before.
    """
    from netplug.kernel import namespaces

    if request.netns_override or not request.netns:
        return
    fd = namespaces.open_namespace(request.netns)
    if fd is None:
        return
    own = namespaces.own_namespace()
    try:
        same = namespaces.identity(fd) == namespaces.identity(own)
    finally:
        namespaces.close(fd)
        namespaces.close(own)
    if same:
        raise SandboxError(
            f"CNI_NETNS {request.netns} is the plugin's own network namespace",
            "a container needs a namespace of its own",
            "pass the container's namespace, or set CNI_NETNS_OVERRIDE=1",
        )


if __name__ == "__main__":
    name = os.path.basename(sys.argv[1]) if len(sys.argv) > 1 else "netplug"
    sys.exit(main(name))

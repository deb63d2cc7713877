"""TARGET of `connect`: a namespace's name, a path, a PID, or ENGINE:CONTAINER."""

from __future__ import annotations

import os
from dataclasses import dataclass

from netplug.cli.context import Context
from netplug.cni.cache import cnitool_container
from netplug.errors import NotFound

NAMESPACES = "/run/netns"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container lives. `container` is the ID that its CNI calls use."""

    container: str
    name: str
    path: str


def resolve_target(context: Context, text: str) -> Target:
    """Raises NotFound that says what was tried."""
    engine, _, name = text.partition(":")
    if name and engine in ("podman", "docker"):
        return _from_inspect(context, engine, name)
    if name and engine == "containerd":
        return _from_containerd(context, name)
    if text.isdigit():
        return _at(context, f"/proc/{text}/ns/net", name=f"pid-{text}", what=f"process {text}")
    if "/" in text:
        return _at(
            context,
            os.path.normpath(os.path.join(context.folder, text)),
            name=os.path.basename(text),
            what=text,
        )
    return _at(context, f"{NAMESPACES}/{text}", name=text, what=f"namespace {text}")


def _at(context: Context, path: str, *, name: str, what: str) -> Target:
    if not context.exists(path):
        raise NotFound(
            f"{what} does not exist",
            f"there is no {path}",
            "make it with: ip netns add NAME; or name a path, a PID, podman:NAME, docker:NAME,"
            " containerd:ID",
        )
    return Target(cnitool_container(path), name, path)


def _from_inspect(context: Context, engine: str, name: str) -> Target:
    words = _run(context, engine, "inspect", "--format", "{{.Id}} {{.State.Pid}}", name).split()
    if len(words) != 2 or words[1] == "0":
        raise NotFound(f"{engine} container {name} does not run", "", f"run: {engine} start {name}")
    return Target(words[0], name, f"/proc/{words[1]}/ns/net")


def _from_containerd(context: Context, name: str) -> Target:
    namespace, _, container = name.rpartition("/")
    namespace = namespace or "default"
    for line in _run(context, "ctr", "-n", namespace, "task", "ls").splitlines()[1:]:
        words = line.split()
        if words and words[0] == container:
            return Target(f"{namespace}-{container}", container, f"/proc/{words[1]}/ns/net")
    raise NotFound(
        f"containerd has no running task {container}",
        f"in its namespace {namespace}",
        "name another namespace as containerd:NAMESPACE/ID",
    )


def _run(context: Context, program: str, *words: str) -> str:
    done = context.execute(program, *words)
    if done.returncode:
        raise NotFound(
            f"{program} does not know {words[-1]}", done.stderr.strip().rpartition("\n")[2], ""
        )
    return done.stdout

"""What every command needs: folders, the engine, the networks that there are."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import typer

from netplug.agent.joining import join
from netplug.cli.options import DryRun as DryRun  # for who needs a Context as well
from netplug.cli.options import Json as Json
from netplug.cli.output import warn
from netplug.cni.conflist import Conflist, find_network, list_networks
from netplug.cni.verbs import recorded_foreign
from netplug.dns.client import NameService, ask_agent
from netplug.engine import Engine
from netplug.errors import NotFound
from netplug.host import Host, default_run_folder, default_state_folder
from netplug.networks import conf_folders
from netplug.state import Record, State

DEFAULT_CNI_PATH = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni"


class Context:
    """Settings of one run: --conf-dir, NETCONFPATH, CNI_PATH, NETPLUG_STATE, NETPLUG_FIREWALL."""

    def __init__(
        self, conf_dir: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._conf_dir = conf_dir
        self.environ = environ

    @cached_property
    def state_folder(self) -> Path:
        named = self.environ.get("NETPLUG_STATE")
        return Path(named) if named else default_state_folder()

    @cached_property
    def folders(self) -> tuple[str, ...]:
        return conf_folders(self._conf_dir, self.environ.get("NETCONFPATH"), self.state_folder)

    @property
    def run_folder(self) -> Path:
        """Where the sockets of agent and name server are."""
        named = self.environ.get("NETPLUG_RUN")
        return Path(named) if named else default_run_folder()

    @property
    def cni_path(self) -> str:
        return self.environ.get("CNI_PATH") or DEFAULT_CNI_PATH

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        state = State(self.state_folder)
        try:
            with Host() as host:
                foreign_of = recorded_foreign(tuple(self.cni_path.split(":")))
                names = NameService(self.run_folder, warn, self._start_names)
                yield Engine(state, host, warn, foreign_of=foreign_of, names=names, join=join)
        finally:
            state.close()

    @property
    def folder(self) -> str:
        """Where relative paths begin."""
        return os.getcwd()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def execute(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Raises NotFound where there is no such program."""
        if shutil.which(program) is None:
            raise NotFound(f"{program} is not installed", "no such program in PATH", "")
        return subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=60, check=False
        )

    def _start_names(self) -> bool:
        """By the agent, where there is one; else one that ends with the last container."""
        if ask_agent(self.run_folder):
            return True
        from netplug.dns.service import start

        return start(self.run_folder, self.state_folder, while_used=True)

    def networks(self) -> list[Conflist]:
        found, warnings = list_networks(self.folders)
        for warning in warnings:
            warn(warning)
        return found

    def network(self, name: str) -> Conflist:
        """The network of this name. Raises NotFound with the nearest name."""
        conflist, warnings = find_network(name, self.folders)
        for warning in warnings:
            warn(warning)
        return conflist


def get_context(ctx: typer.Context) -> Context:
    found = ctx.find_object(Context)
    assert found is not None
    return found


def complete_network(ctx: typer.Context, incomplete: str) -> list[str]:
    names = (conflist.name for conflist in list_networks(Context().folders)[0])
    return [name for name in names if name.startswith(incomplete)]


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    try:
        names = os.listdir("/run/netns")
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def shown_container(record: Record) -> str:
    """The name that people know, else the container's id, cut as engines do."""
    attachment = record.attachment
    return attachment.name or attachment.container[:24]

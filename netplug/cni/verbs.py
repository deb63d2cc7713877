"""What each verb of a parsed CNI request does, as main plugin or as IPAM plugin."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from netplug import admission, chained, ipam, leasing, plugins, upkeep
from netplug.cni.naming import parse_chained_names, parse_names, render_names
from netplug.cni.network import parse_attachment
from netplug.cni.protocol import Request
from netplug.cni.result import check_convertible
from netplug.config import (
    demand_allowed_sysctls,
    driver_name,
    is_ours,
    lasting,
    parse_identity,
    parse_network,
    parse_own_ipam,
)
from netplug.dns.client import NameService, ask_agent
from netplug.engine import Engine
from netplug.errors import (
    ConfigError,
    DelegateError,
    Impaired,
    NetplugError,
    SandboxError,
    Unavailable,
    UnsupportedError,
)
from netplug.host import (
    Host,
    default_run_folder,
    default_state_folder,
    in_initial_user_namespace,
)
from netplug.kernel import namespaces
from netplug.model import Lease, LeasedAddress, Network, Result
from netplug.options import Memory
from netplug.state import Record, State
from netplug.statefile import is_damage, set_aside

Log = Callable[[str], None]
IPAM_NAME = "netplug-ipam"
NAMES_NAME = "dnsname"  # podman 4's plugin for names, whose place in a chain we take
PREFIX = "netplug-"


class Surroundings(Protocol):
    """Where a request is worked on: the calling process, or what an agent was handed."""

    def engine(self, request: Request, log: Log) -> AbstractContextManager[Engine]: ...

    def open_sandbox(self, path: str) -> int | None:
        """The namespace at `path`, as a descriptor of the caller's own; None when it is gone."""

    def own_namespace(self) -> int:
        """The namespace that the plugin was executed in, as a descriptor of the caller's own."""

    def state_folder(self) -> Path: ...


class OneProcess:
    """The calling process's namespaces, and a state opened for this one request."""

    @contextmanager
    def engine(self, request: Request, log: Log) -> Iterator[Engine]:
        state = State(self.state_folder())
        try:
            with Host() as host:
                foreign_of = recorded_foreign(request.path)
                names = NameService(default_run_folder(), log, self._starter())
                yield Engine(state, host, log, foreign_of=foreign_of, names=names, join=_join)
        finally:
            state.close()

    def _starter(self) -> Callable[[], bool] | None:
        """Who brings the name server up where none answers: the agent, where there may be one.
        A rootless engine has none, so there each call may, and the last container ends it."""
        if in_initial_user_namespace():
            return None

        def start() -> bool:
            from netplug.dns import service

            folder = default_run_folder()
            return ask_agent(folder) or service.start(folder, self.state_folder(), while_used=True)

        return start

    def open_sandbox(self, path: str) -> int | None:
        return namespaces.open_namespace(path)

    def own_namespace(self) -> int:
        return namespaces.own_namespace()

    def state_folder(self) -> Path:
        return default_state_folder()


def _join(network: Network) -> None:
    from netplug.agent.joining import join

    join(network)


def run(request: Request, program: str, log: Log, around: Surroundings) -> Result | None:
    """The result of an ADD, None for every other verb. Raises NetplugError.

    A state file that turns out to be damaged is set aside; the verb then starts anew.
    """
    try:
        return _run(request, program, log, around)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        kept = set_aside(around.state_folder())
        log(f"the state file is damaged ({error}); it is kept as {kept}")
        return _run(request, program, log, around)
    except NetplugError as error:
        if request.command == "STATUS" and not _speaks_for_itself(error):
            raise Unavailable(error.what, error.why, error.hint) from error
        raise


def _speaks_for_itself(error: NetplugError) -> bool:
    """A wrong configuration is no matter of the moment; 50 and 51 are said already."""
    wrong = isinstance(error, ConfigError) and not isinstance(error, UnsupportedError)
    return wrong or error.cni_code in (Unavailable.code, Impaired.code)


def _run(request: Request, program: str, log: Log, around: Surroundings) -> Result | None:
    if request.command in ("ADD", "DEL") and not _shares_host(request, program):
        _demand_other_namespace(request, around)
    if is_ipam_call(request, program):
        return _serve_ipam(request, log, around)
    if is_names_call(request, program):
        return _serve_names(request, log, around)
    with around.engine(request, log) as engine:
        if request.command in ("ADD", "STATUS"):
            network = _parse_network(request, program, engine.state, log)
        else:  # a configuration that went wrong since must not hinder a removal
            network = parse_identity(request.config)
        foreign = make_foreign(request, network)
        if request.command == "ADD":
            check_convertible(request.version, network.ipam is not None)
            return engine.add(network, parse_attachment(request, network), foreign)
        if request.command == "DEL":
            engine.delete(parse_attachment(request, network), foreign)
        elif request.command == "CHECK":
            engine.check(parse_attachment(request, network), request.prev_result, foreign)
        elif request.command == "GC":
            for owner in engine.gc(network.name, request.valid_attachments, foreign):
                log(f"removed {owner}")
        else:
            for warning in engine.status(network, foreign):
                log(warning)
    return None


def _shares_host(request: Request, program: str) -> bool:
    """A container on the host network has no namespace of its own, by its driver's nature."""
    if is_ipam_call(request, program):
        return False
    try:
        return driver_name(_with_driver(request.config, program)) == "host"
    except ConfigError:
        return False


def _with_driver(config: Mapping[str, object], program: str) -> dict[str, object]:
    """The configuration with its driver: a link named netplug-DRIVER says it."""
    implied = program.removeprefix(PREFIX) if program.startswith(PREFIX) else None
    return {**({"driver": implied} if implied else {}), **config}


def _demand_other_namespace(request: Request, around: Surroundings) -> None:
    """CNI_NETNS must not be the plugin's own namespace (code 8), unless overridden.

    The reference plugins look after the work is done; we look before.
    """
    if request.netns_override or not request.netns:
        return
    try:
        fd = around.open_sandbox(request.netns)
    except SandboxError:
        if request.command == "DEL":  # no network namespace is there: the container's is gone
            return
        raise
    if fd is None:
        return
    own = around.own_namespace()
    same = namespaces.identity(fd) == namespaces.identity(own)
    namespaces.close(fd)
    namespaces.close(own)
    if same:
        raise SandboxError(
            f"CNI_NETNS {request.netns} is the plugin's own network namespace",
            "a container needs a namespace of its own",
            "pass the container's namespace, or set CNI_NETNS_OVERRIDE=1",
        )


def _parse_network(request: Request, program: str, memory: Memory, log: Log) -> Network:
    """The whole configuration, checked; a link named netplug-DRIVER says the driver."""
    config = _with_driver(request.config, program)
    key = json.dumps(lasting(config))
    if key not in _parsed:
        options = plugins.get_driver(driver_name(config)).options
        if len(_parsed) >= PARSED_KEPT:
            _parsed.clear()
        _parsed[key] = parse_network(config, options, memory=memory)
    network, warnings = _parsed[key]
    if network.ipam and network.ipam.dns:  # out of a file, which may say something else next time
        del _parsed[key]
    for warning in warnings:
        log(f"network {network.name}: {warning}")
    demand_allowed_sysctls(network)
    return network


# An agent is given the same configuration with each container of a network.
_parsed: dict[str, tuple[Network, list[str]]] = {}
PARSED_KEPT = 256


# --- foreign IPAM plugins


class Foreign:
    """`engine.ForeignIpam` over the CNI exec interface."""

    def __init__(self, request: Request, kind: str) -> None:
        from netplug.cni.delegate import Delegate  # late: most calls have no use for it

        self._delegate = Delegate(request, kind)
        self.needs_link = kind == "dhcp"  # the reference's daemon tells the server
        self._holds_nothing = False

    def add(self) -> Lease:
        try:
            result = self._delegate.add()
        except DelegateError as error:
            self._holds_nothing = not error.started
            raise
        addresses = tuple(LeasedAddress(ip.address, ip.gateway) for ip in result.ips)
        return Lease(addresses, result.routes, result.dns)

    def delete(self) -> None:
        if not self._holds_nothing:
            self._delegate.run("DEL")

    def check(self) -> None:
        self._delegate.run("CHECK")

    def status(self) -> None:
        self._delegate.run("STATUS")

    def gc(self) -> None:
        self._delegate.run("GC")


def recorded_foreign(path: tuple[str, ...]) -> Callable[[Record], Foreign | None]:
    """For removals without a request: the plugin with the configuration of the record's ADD."""

    def foreign_of(record: Record) -> Foreign | None:
        a = record.attachment
        request = Request(
            "DEL",
            container=a.container,
            netns=a.sandbox,
            ifname=a.ifname,
            path=path,
            config=record.config,
            stdin=json.dumps(record.config).encode(),
        )
        return make_foreign(request, parse_identity(record.config))

    return foreign_of


def make_foreign(request: Request, network: Network) -> Foreign | None:
    """The IPAM plugin of a network where it is not ours."""
    if network.ipam is None or not network.ipam.foreign:
        return None
    return Foreign(request, network.ipam.type)


# --- we as IPAM plugin of a foreign main plugin


def is_ipam_call(request: Request, program: str) -> bool:
    """We were executed for the `ipam` section: by that name, or under a main type not ours."""
    section = request.config.get("ipam")
    ipam_type = str(section.get("type", "")) if isinstance(section, dict) else ""
    main = request.config.get("type")
    foreign_main = isinstance(main, str) and main != "" and not is_ours(main)
    return program == IPAM_NAME or (is_ours(ipam_type) and foreign_main)


def _serve_ipam(request: Request, log: Log, around: Surroundings) -> Result | None:
    """Addresses and routes, no interfaces."""
    whole = request.command in ("ADD", "STATUS")
    network = _parse_ipam_network(request, log) if whole else parse_identity(request.config)
    with around.engine(request, log) as engine:
        if request.command == "ADD":
            return leasing.lease(engine, network, parse_attachment(request, network, via="ipam"))
        if request.command == "DEL":
            engine.delete(parse_attachment(request, network, via="ipam"))
        elif request.command == "CHECK":
            leasing.check(engine, parse_attachment(request, network, via="ipam"))
        elif request.command == "GC":
            for owner in engine.gc(network.name, request.valid_attachments):
                log(f"released the addresses of {owner}")
        else:
            admission.demand_free_addresses(engine.state, engine.host.id, network)
    return None


def _parse_ipam_network(request: Request, log: Log) -> Network:
    section = request.config.get("ipam")
    if not isinstance(section, dict):
        raise ConfigError(
            "the key 'ipam' is missing", "this plugin was called as IPAM", 'add "ipam": {...}'
        )
    runtime = request.config.get("runtimeConfig")
    parsed = parse_own_ipam(section, runtime if isinstance(runtime, dict) else {})
    if parsed.dhcp is not None:
        raise ConfigError(
            f"ipam type {parsed.type} cannot serve {request.config.get('type')}",
            "netplug's DHCP client renews addresses of netplug's own interfaces alone",
            'use "type": "netplug" as main plugin, or the IPAM plugin dhcp with its daemon',
        )
    for key in ipam.unknown_keys(section):
        log(f"network {request.config['name']}: {key}")
    names, _ = parse_names(request.config)
    return Network(
        name=request.config["name"],
        driver="ipam",
        options=None,
        ipam=replace(parsed, type="netplug"),
        names=names,
        raw={"names": request.config["names"]} if names else {},
    )


# --- we as plugin `dnsname` after a main plugin


def is_names_call(request: Request, program: str) -> bool:
    """We were executed under the name of podman's plugin for names."""
    kind = request.config.get("type")
    return program == NAMES_NAME or (
        isinstance(kind, str) and kind.rpartition("/")[2] == NAMES_NAME
    )


def _serve_names(request: Request, log: Log, around: Surroundings) -> Result | None:
    """Names for what a plugin before us has attached; its result, with the servers to ask."""
    whole = request.command in ("ADD", "STATUS")
    network = _parse_chained(request, log) if whole else parse_identity(request.config)
    with around.engine(request, log) as engine:
        if request.command == "ADD":
            if request.prev_result is None:
                raise ConfigError(
                    f"{NAMES_NAME} stands alone",
                    "it gives names to what a plugin before it has attached (no prevResult)",
                    "put it behind the main plugin in the list, or set names: true there instead",
                )
            attachment = parse_attachment(request, network, via="names")
            return chained.add(engine, network, attachment, request.prev_result)
        if request.command == "DEL":
            chained.delete(engine, parse_attachment(request, network, via="names"))
        elif request.command == "CHECK":
            chained.check(engine, parse_attachment(request, network, via="names"))
        elif request.command == "GC":
            for owner in upkeep.gc(engine, network.name, request.valid_attachments, via="names"):
                log(f"removed {owner}")
        elif fault := engine.names_fault():
            log(f"containers on {network.name} do not find each other by name: {fault}")
    return None


def _parse_chained(request: Request, log: Log) -> Network:
    """Servers that the plugins before us named are asked for what is not ours."""
    name = request.config["name"]
    before = request.prev_result.dns.nameservers if request.prev_result else ()
    names, unknown = parse_chained_names(request.config, before)
    for key in unknown:
        log(f"network {name}: {key.judged(strict=False)}")
    raw = {"name": name, "type": NAMES_NAME, "names": render_names(names)}
    return Network(name=name, driver=NAMES_NAME, options=None, names=names, raw=raw)

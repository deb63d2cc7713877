"""Beside netavark, which does a whole attachment in one process, as netplug does.

It is called as podman calls it: podman has chosen the address, so netavark leases none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.case import Case, Contender, Missing, Setup
from bench.cases.attach import make_each, make_netplug_chains
from bench.chain import SEARCH_PATH, Attachment, ChainContender, SimulatedHost
from bench.configs import SUBNET
from bench.execute import Execution, execute
from bench.peers import find_program

FIRST_PORT = 20000
NETWORK = "bench"


def make_ports(ports: int, first: int) -> list[dict[str, Any]]:
    return [
        {"host_ip": "", "host_port": first + n, "container_port": 80 + n, "protocol": "tcp"}
        | {"range": 1}
        for n in range(ports)
    ]


class Netavark:
    """Measures setup and teardown, in a simulated host with one attachment that stays."""

    name = "netavark"

    def __init__(self, program: Path, folder: Path, ports: int) -> None:
        self._program, self._folder, self._ports = program, folder, ports
        self._host = SimulatedHost()
        self._count = 0
        self._host.run(lambda: execute(self._next_execution("setup")))

    def _next_execution(self, verb: str) -> Execution:
        self._count += 1
        return self._execution(verb, self._host.container())

    def _execution(self, verb: str, namespace: int) -> Execution:
        path = Attachment("", namespace, {}).path
        words = [str(self._program), "--config", str(self._folder)]
        environ = {"PATH": SEARCH_PATH, "RUST_LOG": "netavark=warn"}
        return Execution([*words, verb, path], json.dumps(self._options()), environ)

    def _options(self) -> Mapping[str, Any]:
        identity = f"{self._count:064x}"
        address = f"10.89.{self._count // 200}.{2 + self._count % 200}"
        return {
            "container_id": identity,
            "container_name": f"bench-{self._count}",
            "port_mappings": make_ports(self._ports, FIRST_PORT + self._count * self._ports),
            "networks": {NETWORK: {"interface_name": "eth0", "static_ips": [address]}},
            "network_info": {
                NETWORK: {
                    "name": NETWORK,
                    "id": f"{1:064x}",
                    "driver": "bridge",
                    "network_interface": "bench0",
                    "subnets": [{"subnet": SUBNET, "gateway": "10.89.0.1"}],
                    "ipv6_enabled": False,
                    "internal": False,
                    "dns_enabled": False,
                    "ipam_options": {"driver": "host-local"},
                }
            },
        }

    def measure(self) -> Mapping[str, float]:
        setup = self._next_execution("setup")
        words = [*setup.words]
        words[-2] = "teardown"
        teardown = Execution(words, setup.stdin, setup.environ)

        def work() -> Mapping[str, float]:
            started = time.perf_counter()
            execute(setup)
            added = time.perf_counter()
            execute(teardown)
            deleted = time.perf_counter()
            return {"ADD": 1000 * (added - started), "DEL": 1000 * (deleted - added)}

        return self._host.run(work)

    def close(self) -> None:
        self._host.close()


def make_contenders(setup: Setup, stack: ExitStack, ports: int) -> Sequence[Contender | Missing]:
    folder = setup.folder / f"netavark-{ports}"
    folder.mkdir()
    netavark = Netavark(find_program("netavark"), folder, ports)
    stack.callback(netavark.close)
    runtime = {
        "portMappings": [
            {"hostPort": FIRST_PORT + n, "containerPort": 80 + n, "protocol": "tcp"}
            for n in range(ports)
        ]
    }
    chains = make_netplug_chains(setup, masquerade=True)
    ours = make_each(chains, stack, lambda name, chain: ChainContender(name, chain, runtime))
    return [netavark, *ours]


CASES = (
    Case(
        "netavark-1",
        "netavark setup and teardown, one published port",
        lambda setup, stack: make_contenders(setup, stack, 1),
    ),
    Case(
        "netavark-20",
        "netavark setup and teardown, 20 published ports",
        lambda setup, stack: make_contenders(setup, stack, 20),
    ),
)

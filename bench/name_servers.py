"""A network with many names, and name servers that all know them: who answers faster?

Every server listens on the gateway's address of one bridge, each on a port of its own, and is
asked from a container there. netplug's names are those of real attachments.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from bench.case import NotMeasured, Setup
from bench.chain import SEARCH_PATH, Attachment, Chain, SimulatedHost
from bench.configs import make_netplug_plugin
from bench.execute import Execution, execute
from bench.inside import Inside
from bench.launchers import NO_INTERPRETER, install_launcher, read_memory, start_agent
from bench.peers import find_program, library_path
from netplug.agent.build import Settings
from netplug.dns import protocol
from netplug.kernel import namespaces

ATTACHMENTS = 1000  # on one bridge, which takes 1023 ports
PER_SANDBOX = 50
GATEWAY = "10.89.0.1"
DOMAIN = "dns.podman"  # that aardvark-dns always answers for
NETPLUG_PORT, FIRST_PORT = 53, 5301
SECONDS = 1.0  # of one measurement at full load
SLOW_RATE, SLOW_SECONDS = 2000, 0.5  # where nothing waits for what came before
CLIENTS = 4  # sockets of the load
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of dnsperf found."""

    sent: int
    lost: int
    rate: float  # answers a second
    latencies: Sequence[float]  # seconds, sorted; only where asked for


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that answers on a port of the gateway."""

    name: str
    port: int
    pid: int

    def read_processor_time(self) -> float:
        """Seconds of all its threads."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def read_memory(self) -> float:
        return read_memory(self.pid)


class World:
    """A host with one network, its containers and an agent of its own; gone with `stack`."""

    def __init__(self, setup: Setup, stack: ExitStack, title: str, names: int) -> None:
        self.folder = setup.folder / title
        self.folder.mkdir()
        self._stack, self._say = stack, setup.say
        self.per_attachment = names // ATTACHMENTS
        agent = start_agent(self.folder, stack)
        settings = Settings(interpreter=NO_INTERPRETER, socket=str(agent.socket))
        plugins = install_launcher(self.folder / "bin", "auto", settings)
        plugin = dict(make_netplug_plugin(masquerade=True, names={"domain": DOMAIN}))
        plugin["capabilities"] = {**plugin["capabilities"], "aliases": True}
        plugin["ipam"] = {**plugin["ipam"], "routes": []}
        self.chain = Chain("bench", plugins, [plugin])
        self.host = SimulatedHost()
        stack.callback(self.host.close)
        self._run_folder = agent.socket.parent
        self.members: dict[str, str] = {}  # name -> address
        self._client = self.host.container()
        self.host.run(lambda: self._add(0, self._client, execute))  # the agent starts our server
        with closing(Inside(self.host, agent.state)) as inside:
            self._fill(inside.serve)
        self._wait(lambda: self.status()["attachments"] == ATTACHMENTS, "netplug's names")
        self.questions = self.folder / "questions"
        self.questions.write_text("".join(f"{name}.{DOMAIN} A\n" for name in self.members))
        self._ports = FIRST_PORT

    # the network

    def status(self) -> Mapping[str, int]:
        return protocol.ask(self._run_folder / protocol.NAME, {"command": "status"})

    def _fill(self, run: Callable[[Execution], str]) -> None:
        sandbox = -1
        for number in range(1, ATTACHMENTS):
            if number % PER_SANDBOX == 1:
                sandbox = self.host.container()
                self._say(f"{number} of {ATTACHMENTS} attachments")
            self._add(number, sandbox, run)

    def _add(self, number: int, sandbox: int, run: Callable[[Execution], str]) -> None:
        names = [f"c{number}", *(f"c{number}a{n}" for n in range(1, self.per_attachment))]
        result = json.loads(run(self.execution("ADD", names, sandbox, f"net{number}")))
        address = str(result["ips"][0]["address"]).partition("/")[0]
        self.members |= dict.fromkeys(names, address)

    def execution(
        self, command: str, names: Sequence[str], sandbox: int, ifname: str = "eth0"
    ) -> Execution:
        runtime = {"aliases": {self.chain.network: list(names[1:])}}
        attachment = Attachment(names[0], sandbox, runtime, ifname)
        call = self.chain.execution(command, self.chain.plugins[0], attachment)
        environ = {**call.environ, "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={names[0]}"}
        return Execution(call.words, call.stdin, environ)

    # the servers

    def netplug(self) -> Asked:
        return Asked("netplug", NETPLUG_PORT, self.status()["pid"])

    def dnsmasq(self) -> Asked:
        """Raises NotMeasured."""
        port = self._next_port()
        hosts = self.folder / "hosts"
        lines = (f"{address} {name}.{DOMAIN}\n" for name, address in self.members.items())
        hosts.write_text("".join(lines))
        words = [find_program("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null"]
        words += ["--no-hosts", "--no-resolv", f"--addn-hosts={hosts}", f"--port={port}"]
        words += [f"--listen-address={GATEWAY}", "--bind-interfaces", "--user=", "--pid-file="]
        return self._started("dnsmasq", port, self._start([str(word) for word in words]))

    def aardvark(self, name: str, words: Sequence[str]) -> Asked:
        """`words`: how to execute it. Raises NotMeasured where it does not start."""
        port = self._next_port()
        folder = self.folder / f"aardvark-{port}"
        folder.mkdir()
        (folder / "bench").write_text("\n".join([GATEWAY, *self._aardvark_lines()]) + "\n")
        options = ["--config", str(folder), "--port", str(port)]
        options += ["--filter-search-domain", f".{DOMAIN}"]
        process = self._start([*words, *options, "run"])
        told = folder / "aardvark.pid"

        def find() -> int:
            """Its process; 0 while what the file names is not it."""
            number = told.read_text().strip() if told.exists() else ""
            command = Path(f"/proc/{number}/cmdline") if number.isdigit() else told
            ours = command != told and command.exists() and bytes(folder) in command.read_bytes()
            return int(number) if ours else 0

        self._wait(find, name)
        pid = find()
        if pid != process.pid:  # it went into the background
            self._stack.callback(os.kill, pid, signal.SIGKILL)
        return self._started(name, port, pid)

    def _aardvark_lines(self) -> Iterator[str]:
        names: dict[str, list[str]] = {}
        for name, address in self.members.items():
            names.setdefault(address, []).append(name)
        for number, (address, own) in enumerate(names.items()):
            yield f"{number:064x} {address}  {','.join(own)}"

    def _next_port(self) -> int:
        self._ports += 1
        return self._ports

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        environ = {"PATH": SEARCH_PATH, "LD_LIBRARY_PATH": library_path()}
        quiet = subprocess.DEVNULL
        process = self.host.run(
            lambda: subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, env=environ)
        )

        def end() -> None:
            process.kill()
            process.wait()

        self._stack.callback(end)
        return process

    def _started(self, name: str, port: int, process: subprocess.Popen[bytes] | int) -> Asked:
        pid = process if isinstance(process, int) else process.pid
        server = Asked(name, port, pid)
        one = ("-l", "1", "-t", "1", "-q", "1")
        self._wait(lambda: self.load(server, *one).rate, name)
        return server

    def _wait(self, done: Callable[[], object], what: str) -> None:
        """Raises NotMeasured."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise NotMeasured(f"{what} did not answer within {PATIENCE:g} s")
            time.sleep(0.05)

    # the load

    def load(self, server: Asked, *options: str) -> Load:
        """One run of dnsperf from the client's container. Raises NotMeasured."""
        words = [str(find_program("dnsperf")), "-s", GATEWAY, "-p", str(server.port)]
        words += ["-d", str(self.questions), "-c", str(CLIENTS), "-q", "200", *options]
        environ = {"PATH": SEARCH_PATH, "LD_LIBRARY_PATH": library_path()}
        done = namespaces.in_namespace(
            self._client,
            lambda: subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ
            ),
        )
        return parse_load(done.stdout)

    def measure(self, server: Asked) -> Mapping[str, float]:
        """Microseconds: of the clock and of the processor for each answer at full load, and
        what one waits for an answer at a low rate."""
        before = server.read_processor_time()
        full = self.load(server, "-l", str(SECONDS))
        spent = server.read_processor_time() - before
        slow = self.load(server, "-l", str(SLOW_SECONDS), "-Q", str(SLOW_RATE), "-v")
        cuts = statistics.quantiles(slow.latencies, n=100)
        return {
            "time per query": 1e6 / full.rate,
            "CPU per query": 1e6 * spent / (full.sent - full.lost),
            "latency, median": 1e6 * cuts[49],
            "latency, 99 of 100": 1e6 * cuts[98],
        }


def parse_load(text: str) -> Load:
    """What dnsperf printed. Raises ValueError where that is no result, or has wrong answers."""

    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"dnsperf says: {text}")
        return float(found.group(1))

    sent, lost = int(number(r"Queries sent: +(\d+)")), int(number(r"Queries lost: +(\d+)"))
    completed = int(number(r"Queries completed: +(\d+)"))
    codes = re.search(r"Response codes: +(.*)", text)
    if completed and (codes is None or not codes.group(1).startswith(f"NOERROR {completed} ")):
        raise ValueError(f"dnsperf heard something else: {codes and codes.group(1)}")
    waits = re.findall(r"^> NOERROR \S+ A ([0-9.]+)$", text, re.MULTILINE)
    rate = number(r"Queries per second: +([0-9.]+)")
    return Load(sent, lost, rate, sorted(map(float, waits)))

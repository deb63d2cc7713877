"""netplug's name server beside dnsmasq and aardvark-dns, and while containers come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.case import Case, Contender, Missing, NotMeasured, Setup, Target
from bench.execute import execute
from bench.name_servers import ATTACHMENTS, Asked, World
from bench.peers import find_newest, find_program, read_newest, read_versions

FEW, MANY = ATTACHMENTS, 10 * ATTACHMENTS
AARDVARK = "aardvark-dns"
SUM = 1_000_000  # questions while containers come and go
EACH_SECOND = 50  # attachments that come, and as many that go
CALLERS = 8
LOAD_SECONDS = "2"
QUIET, BUSY = "nobody else", f"{CALLERS} callers"


@dataclass(frozen=True, slots=True)
class Answering:
    """One server's part of a round."""

    world: World
    server: Asked

    @property
    def name(self) -> str:
        return self.server.name

    def measure(self) -> Mapping[str, float]:
        return self.world.measure(self.server)


def make_aardvarks(world: World) -> list[Asked | Missing]:
    """Debian's, and the newest that can be had."""
    made: list[Asked | Missing] = []
    for find, version in (
        (lambda: [str(find_program(AARDVARK))], read_versions().get(AARDVARK, "")),
        (find_newest, read_newest()),
    ):
        name = f"{AARDVARK} {version.partition('-')[0]}".strip()
        try:
            made.append(world.aardvark(name, find()))
        except NotMeasured as reason:
            made.append(Missing(name, str(reason)))
    return made


def make_servers(
    setup: Setup, stack: ExitStack, names: int, *, baseline: str
) -> Sequence[Contender | Missing]:
    world = World(setup, stack, f"names-{baseline}-{names}", names)
    peers: list[Asked | Missing] = list(make_aardvarks(world))
    if baseline == "dnsmasq":
        peers.insert(0, world.dnsmasq())
    return [
        one if isinstance(one, Missing) else Answering(world, one)
        for one in (*peers, world.netplug())
    ]


# --- while containers come and go


@dataclass(slots=True)
class Coming:
    """Callers that add a container and remove it, again and again; `done` counts the pairs."""

    world: World
    pause: float  # seconds between the beginnings of two pairs of one caller
    over: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    failures: list[BaseException] = field(default_factory=list)

    @contextmanager
    def running(self, callers: int) -> Iterator[Coming]:
        """Raises what a call failed with."""
        threads = []
        for number in range(callers):
            sandbox = self.world.host.container()
            threads.append(threading.Thread(target=self._run, args=(number, sandbox)))
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.over.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _run(self, number: int, sandbox: int) -> None:
        calls = [self.world.execution(verb, [f"come{number}"], sandbox) for verb in ("ADD", "DEL")]
        next_time = time.monotonic()
        try:
            while not self.over.is_set():
                for call in calls:
                    self.world.host.run(lambda call=call: execute(call))  # type: ignore[misc]
                self.done += 1
                next_time = max(next_time + self.pause, time.monotonic() - 1)
                self.over.wait(max(0.0, next_time - time.monotonic()))
        except BaseException as error:
            self.failures.append(error)


@dataclass(frozen=True, slots=True)
class Busy:
    """The time of a query while `callers` add and remove as fast as they can."""

    world: World
    name: str
    callers: int

    def measure(self) -> Mapping[str, float]:
        with Coming(self.world, 0).running(self.callers):
            load = self.world.load(self.world.netplug(), "-l", LOAD_SECONDS)
        return {"time per query": 1e6 / load.rate}


@dataclass(frozen=True, slots=True)
class Losing:
    """A million questions at half the rate that it can answer, while attachments come and go."""

    world: World
    say: Callable[[str], None]
    name: str = "netplug"

    def measure(self) -> Mapping[str, float]:
        server = self.world.netplug()
        peak = max(self.world.load(server, "-l", LOAD_SECONDS).rate for _ in range(3))
        rate = int(peak / 2)
        rounds = -(-SUM // len(self.world.members))
        self.say(f"{SUM} questions, {rate}/s")
        began = time.monotonic()
        with Coming(self.world, CALLERS / EACH_SECOND).running(CALLERS) as coming:
            load = self.world.load(server, "-n", str(rounds), "-Q", str(rate))
            seconds = time.monotonic() - began
        return {
            "lost": load.lost,
            "of so many": load.sent,
            "questions each second": load.rate,
            "attachments that came each second": coming.done / seconds,
        }


def make_busy(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    world = World(setup, stack, "names-busy", FEW)
    return [Busy(world, QUIET, 0), Busy(world, BUSY, CALLERS)]


def make_losing(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    return [Losing(World(setup, stack, "names-lost", FEW), setup.say)]


@dataclass(frozen=True, slots=True)
class Memory:
    server: Asked

    @property
    def name(self) -> str:
        return self.server.name

    def measure(self) -> Mapping[str, float]:
        return {f"{MANY} names": self.server.read_memory()}


def make_memory(setup: Setup, stack: ExitStack) -> Sequence[Contender | Missing]:
    world = World(setup, stack, "names-memory", MANY)
    servers = [world.dnsmasq(), *make_aardvarks(world), world.netplug()]
    for server in servers:
        if isinstance(server, Asked):
            world.load(server, "-n", "1", "-l", LOAD_SECONDS)  # every name is asked once
    return [one if isinstance(one, Missing) else Memory(one) for one in servers]


ANSWERED = {
    ("time per query", "netplug"): Target(1.0),
    ("CPU per query", "netplug"): Target(1.1),
}
CASES = (
    *(
        Case(
            f"names-{names}",
            f"{names} names, beside dnsmasq",
            lambda setup, stack, names=names: make_servers(  # type: ignore[misc]
                setup, stack, names, baseline="dnsmasq"
            ),
            ANSWERED,
            unit="us",
        )
        for names in (FEW, MANY)
    ),
    Case(
        "names-aardvark",
        f"{FEW} names, beside Debian's aardvark-dns",
        lambda setup, stack: make_servers(setup, stack, FEW, baseline=AARDVARK),
        {("time per query", "netplug"): Target(0.1), ("CPU per query", "netplug"): Target(0.1)},
        unit="us",
    ),
    Case(
        "names-busy",
        f"questions while {CALLERS} callers add and remove containers",
        make_busy,
        {("time per query", BUSY): Target(2.0)},
        unit="us",
    ),
    Case(
        "names-lost",
        f"questions at half the peak rate while {EACH_SECOND} attachments come and go each second",
        make_losing,
        {("lost", "netplug"): Target(0, relative=False)},
        unit="",
        once=True,
    ),
    Case("names-memory", "resident memory of name servers", make_memory, unit="MiB", once=True),
)

"""A real etcd for tests: one member or three, killed, stopped and started at will.

The members run where the caller says (a `Host`, or the sandbox itself), without fsync and
with short elections. The programs are those that `tests/engines/unpack.py` has fetched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from engines_tree import find_program

PATIENCE = 20.0
ELECTION = ("--heartbeat-interval", "50", "--election-timeout", "300", "--unsafe-no-fsync")


class Cluster:
    """`addresses` has one IP for each member; `run_inside[i]` starts member i in its place."""

    def __init__(
        self,
        folder: Path,
        addresses: Sequence[str] = ("127.0.0.1",),
        *,
        port: int = 23790,
        places: Sequence[Callable[[Callable[[], Any]], Any]] = (),
        tls: Sequence[str] = (),
    ) -> None:
        self.program = find_program("etcd")
        self.folder, self.addresses, self.port, self.tls = folder, addresses, port, tls
        self._places = places
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint(number) for number in range(len(self.addresses))]

    def endpoint(self, number: int) -> str:
        return f"{_host(self.addresses[number])}:{self.port + number}"

    def start(self, *numbers: int) -> None:
        """Starts these members, or all, and returns when each of them answers."""
        for number in numbers or range(len(self.addresses)):
            self._start(number)
        self.wait_healthy()

    def _start(self, number: int) -> None:
        own = _host(self.addresses[number])
        scheme = "https" if self.tls else "http"
        peers = ",".join(
            f"m{n}=http://{_host(a)}:{self.port + 10 + n}" for n, a in enumerate(self.addresses)
        )
        client = f"{scheme}://{own}:{self.port + number}"
        peer = f"http://{own}:{self.port + 10 + number}"
        command = [
            *(str(self.program), "--name", f"m{number}"),
            *("--data-dir", str(self.folder / f"m{number}")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", peers, "--initial-cluster-state", "new"),
            *ELECTION,
            *self.tls,
        ]

        def launch() -> subprocess.Popen[bytes]:
            with open(self.folder / f"m{number}.log", "ab") as log:
                return subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
                )

        self._processes[number] = self._places[number](launch) if self._places else launch()

    def wait_healthy(self) -> None:
        """Returns when every member that runs serves a linearizable read."""
        deadline = time.monotonic() + PATIENCE
        for number in sorted(self._processes):
            while self.ctl("get", "probe", member=number, check=False) is None:
                if time.monotonic() > deadline:
                    pytest.fail((self.folder / f"m{number}.log").read_text()[-2000:])
                time.sleep(0.05)

    def ctl(self, *words: str, member: int | None = None, check: bool = True) -> str | None:
        """etcdctl's stdout; None where it fails and `check` is off."""
        ends = self.endpoints if member is None else [self.endpoint(member)]
        running = [e for n, e in enumerate(self.endpoints) if n in self._processes]
        ends = [e for e in ends if e in running]
        command = [str(find_program("etcdctl")), "--endpoints", ",".join(ends)]
        command += ["--command-timeout", "2s", "--dial-timeout", "1s"]
        if self.tls:
            given = dict(zip(self.tls[::2], self.tls[1::2], strict=True))
            command += ["--cacert", given["--trusted-ca-file"]]
            command += ["--cert", given["--cert-file"], "--key", given["--key-file"]]

        def ask() -> subprocess.CompletedProcess[str]:
            environ = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}
            return subprocess.run([*command, *words], capture_output=True, text=True, env=environ)

        done = self._places[member or 0](ask) if self._places else ask()
        if done.returncode and check:
            pytest.fail(f"etcdctl {' '.join(words)}: {done.stderr}")
        return None if done.returncode else done.stdout

    def leader(self) -> int:
        """The number of the member that leads."""
        for number in sorted(self._processes):
            said = self.ctl("endpoint", "status", member=number, check=False) or ""
            fields = [word.strip() for word in said.split(",")]
            if len(fields) > 4 and fields[4] == "true":
                return number
        raise AssertionError("no member leads")

    def compact(self) -> None:
        """Forgets all history up to the revision of now."""
        said = self.ctl("get", "probe", "-w", "json") or ""
        revision = said.partition('"revision":')[2].partition(",")[0]
        self.ctl("compact", revision)

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            process = self._processes.pop(number)
            process.kill()
            process.wait()

    def signal(self, number: int, what: signal.Signals) -> None:
        """SIGSTOP makes a member that is there and does not answer."""
        self._processes[number].send_signal(what)

    def close(self) -> None:
        for number in tuple(self._processes):
            self.signal(number, signal.SIGCONT)
            self.kill(number)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address

"""A CNI runtime for tests: chains as libcni runs them, our plugin in process or as a program.

Written from the spec and from what libcni does, apart from netplug's own reading of it:
order, injected keys, capabilities, prevResult, the result cache, which verb needs which version.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import through
from through import SEARCH_PATH

from netplug.cni.main import serve
from netplug.host import default_state_folder
from netplug.install import install_plugin
from netplug.kernel import namespaces

if TYPE_CHECKING:
    from conftest import Host

OURS = ("netplug", "netplug-bridge", "netplug-host", "netplug-ipam", "dnsname")
CACHE = Path("/var/lib/cni/results")

Json = dict[str, Any]


def dual_stack_network(**keys: Any) -> Json:
    """`lan`: a gateway, masquerading and every capability, leasing from both families."""
    plugin = {
        "type": "netplug",
        "bridge": "br0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "capabilities": {"portMappings": True, "bandwidth": True},
        "ipam": {
            "type": "netplug",
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
        },
    }
    return {"cniVersion": "1.1.0", "name": "lan", "plugins": [plugin | keys]}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plugin said: stdout, exit status, log."""

    stdout: str
    status: int
    log: str = ""

    @property
    def document(self) -> Json:
        """The one JSON object on stdout; no object where stdout is empty."""
        return dict(json.loads(self.stdout)) if self.stdout else {}

    @property
    def code(self) -> int:
        """0, or the code of the error object. An answer that breaks the contract fails."""
        assert "Traceback" not in self.stdout + self.log, self
        if not self.status:
            assert "code" not in self.document, self
            return 0
        error = self.document
        assert self.status == 1, self
        assert {"cniVersion", "code", "msg"} <= error.keys() <= {*DOCUMENT_OF_ERROR}, self
        assert isinstance(error["code"], int) and error["code"] > 0, self
        return int(error["code"])


DOCUMENT_OF_ERROR = ("cniVersion", "code", "msg", "details")


class PluginFailed(Exception):
    """A plugin of a chain refused; `answer` is what it said."""

    def __init__(self, plugin: str, command: str, answer: Answer) -> None:
        super().__init__(f"{plugin} {command}: {answer.stdout or answer.log}")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Pod:
    """What an engine says of one interface of one container; `wishes` by capability."""

    container: str
    netns: str = ""
    ifname: str = "eth0"
    wishes: Mapping[str, Any] = field(default_factory=dict)
    args: str = ""

    def environ(self, command: str, path: str) -> dict[str, str]:
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.args,
            "CNI_PATH": path,
        }


NOBODY = Pod("", ifname="")


def serve_in(
    host: Host, environ: Mapping[str, str], stdin: bytes, program: str = "netplug"
) -> Answer:
    """Our plugin's answer, with `host` for its own network namespace: in process, or by the way
    that the tests go."""
    if way := through.taken():
        found = {"PATH": SEARCH_PATH, **environ}
        return execute_in(host, way.folder / program, found, stdin)
    log: list[str] = []
    text, failed = host.call(lambda: serve(environ, lambda: stdin, program=program, log=log.append))
    return Answer(text, int(failed), "\n".join(log))


def execute_in(host: Host, program: Path, environ: Mapping[str, str], stdin: bytes) -> Answer:
    """A plugin's answer, as a process with nothing in its environment but what is given."""
    done = through.execute(host, program, environ, stdin)
    return Answer(done.stdout.decode(), done.returncode, done.stderr.decode())


def install_folder(folder: Path, reference: Path | None = None) -> Path:
    """A plugin folder with ours in it, and links to the reference's where there are any."""
    install_plugin(folder, dnsname=True)
    for plugin in reference.iterdir() if reference else ():
        (folder / plugin.name).symlink_to(plugin)
    return folder


@dataclass(frozen=True, slots=True)
class Runtime:
    """libcni on one host. Plugins are found in `folder`; with `execute`, ours there as well."""

    host: Host
    folder: Path
    execute: bool = False
    cache: Path = CACHE

    # --- verbs, for a conflist as an object

    def add(self, network: Json, pod: Pod) -> Json:
        """The result of the last plugin; cached only where all of them succeeded."""
        result: Json | None = None
        for plugin in network["plugins"]:
            result = self._run("ADD", network, plugin, pod, result).document
        assert result is not None
        self._remember(network, pod, result)
        return result

    def delete(self, network: Json, pod: Pod) -> None:
        previous = self.cached(network, pod) if at_least(network, "0.4.0") else None
        for plugin in reversed(network["plugins"]):
            self._run("DEL", network, plugin, pod, previous)
        self._cache_file(network, pod).unlink(missing_ok=True)

    def check(self, network: Json, pod: Pod, *, but: Sequence[str] = ()) -> None:
        if not at_least(network, "0.4.0"):
            return  # libcni refuses
        for plugin in network["plugins"]:
            if plugin["type"] not in but:
                self._run("CHECK", network, plugin, pod, self.cached(network, pod))

    def status(self, network: Json) -> None:
        for plugin in network["plugins"] if at_least(network, "1.1.0") else ():
            self._run("STATUS", network, plugin, NOBODY)

    def gc(self, network: Json, valid: Iterable[Pod] | None) -> None:
        """First DEL for what is cached and not in the list, then GC, going on after errors."""
        listed = None if valid is None else [(pod.container, pod.ifname) for pod in valid]
        for pod in self._cached_pods(network):
            if (pod.container, pod.ifname) not in (listed or ()):
                self.delete(network, pod)
        if not at_least(network, "1.1.0"):
            return
        extra: Json = {}
        if listed is not None:
            living = [{"containerID": container, "ifname": ifname} for container, ifname in listed]
            extra = {"cni.dev/valid-attachments": living, "cni.dev/attachments": living}
        failures = []
        for plugin in network["plugins"]:
            answer = self.call("GC", {**self.request(network, plugin, NOBODY), **extra}, NOBODY)
            if answer.status:
                failures.append(PluginFailed(plugin["type"], "GC", answer))
        if failures:
            raise failures[0]

    # --- one plugin

    def request(self, network: Json, plugin: Json, pod: Pod, previous: Json | None = None) -> Json:
        """The stdin of one plugin; libcni leaves `capabilities` in."""
        declared = plugin.get("capabilities", {})
        wishes = {key: value for key, value in pod.wishes.items() if declared.get(key) is True}
        return {
            **plugin,
            "name": network["name"],
            "cniVersion": network["cniVersion"],
            **({"runtimeConfig": wishes} if wishes else {}),
            **({"prevResult": previous} if previous is not None else {}),
        }

    def call(self, command: str, request: Json, pod: Pod) -> Answer:
        environ = pod.environ(command, str(self.folder))
        stdin = json.dumps(request).encode()
        if request["type"] in OURS and not self.execute:
            return serve_in(self.host, environ, stdin, request["type"])
        path = {"PATH": SEARCH_PATH}
        return execute_in(self.host, self.folder / request["type"], {**path, **environ}, stdin)

    def _run(
        self, command: str, network: Json, plugin: Json, pod: Pod, previous: Json | None = None
    ) -> Answer:
        answer = self.call(command, self.request(network, plugin, pod, previous), pod)
        if answer.status:
            raise PluginFailed(plugin["type"], command, answer)
        return answer

    # --- the cache

    def _cache_file(self, network: Json, pod: Pod) -> Path:
        return self.cache / f"{network['name']}-{pod.container}-{pod.ifname}"

    def _remember(self, network: Json, pod: Pod, result: Json) -> None:
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = {
            "kind": "cniCacheV1",
            "containerId": pod.container,
            "config": base64.b64encode(json.dumps(network).encode()).decode(),
            "ifName": pod.ifname,
            "networkName": network["name"],
            "netns": pod.netns,
            "cniArgs": [pair.split("=") for pair in pod.args.split(";") if pair],
            "capabilityArgs": dict(pod.wishes),
            "result": result,
        }
        self._cache_file(network, pod).write_text(json.dumps(entry))

    def cached(self, network: Json, pod: Pod) -> Json | None:
        try:
            return dict(json.loads(self._cache_file(network, pod).read_text())["result"])
        except FileNotFoundError:
            return None

    def recall(self, network: str, container: str, ifname: str) -> tuple[Json, Pod]:
        """Conflist and container of a cache file: what cnitool and podman delete by."""
        entry = json.loads((self.cache / f"{network}-{container}-{ifname}").read_text())
        assert entry["kind"] == "cniCacheV1"
        pod = Pod(
            entry["containerId"],
            entry.get("netns", ""),
            entry["ifName"],
            entry.get("capabilityArgs", {}),
            ";".join("=".join(pair) for pair in entry.get("cniArgs", ())),
        )
        return json.loads(base64.b64decode(entry["config"])), pod

    def _cached_pods(self, network: Json) -> Sequence[Pod]:
        entries = [json.loads(path.read_text()) for path in sorted(self.cache.glob("*"))]
        return [
            self.recall(network["name"], entry["containerId"], entry["ifName"])[1]
            for entry in entries
            if entry["networkName"] == network["name"]
        ]


def at_least(network: Json, version: str) -> bool:
    numbers = [tuple(map(int, text.split("."))) for text in (network["cniVersion"], version)]
    return numbers[0] >= numbers[1]


def state_rows(host: Host) -> dict[str, int]:
    """How many rows of the real state belong to this host, in the tables that name attachments."""
    path = default_state_folder() / "state.db"
    if not path.exists():
        return {}
    own = f"{namespaces.boot_id()}:{namespaces.cookie(host.fd)}"
    with closing(sqlite3.connect(path)) as db:
        counts = {
            table: int(
                db.execute(f"SELECT count(*) FROM {table} WHERE host=?", (own,)).fetchone()[0]
            )
            for table in ("records", "usage", "leases", "ports")
        }
    return {table: count for table, count in counts.items() if count}


def reference_plugins() -> Path:
    """The folder of the reference plugins; the test is skipped where they are not to be had."""
    import pytest
    from engines.unpack import Unavailable, read_tree

    try:
        return read_tree().plugins
    except Unavailable as reason:
        pytest.skip(f"no reference plugins: {reason}")


def pairwise(
    factors: Mapping[str, Sequence[Any]], possible: Callable[[Json], bool] = lambda row: True
) -> list[Json]:
    """Few rows in which every two values of two factors meet that may meet at all."""
    rows = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    covers = [(row, set(combinations(row.items(), 2))) for row in rows if possible(row)]
    missing = set().union(*(pairs for _, pairs in covers))
    Random(1).shuffle(covers)
    chosen = []
    while missing:
        # a few hundred candidates find nearly as short a list as all of them
        hopeful = [(row, pairs) for row, pairs in covers if pairs & missing][:300]
        row, pairs = max(hopeful, key=lambda candidate: len(candidate[1] & missing))
        missing -= pairs
        chosen.append(row)
    return chosen

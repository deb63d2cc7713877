"""Hostile calls carried through to the end: the right code and exit status, and no residue.

The table of the unit tests goes through `serve` with a real kernel below; a sample of it is
executed as an engine would: nothing but CNI_* in the environment, a copied plugin folder.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cni_exec import Answer, Json, execute_in, install_folder, serve_in, state_rows
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from unit import test_cni_hostile as table

from netplug.cni.versions import SUPPORTED

if TYPE_CHECKING:
    from conftest import Host

Call = tuple[Mapping[str, str], bytes, int]
GROUPS = ("ENVIRONMENT", "DOCUMENTS", "VERSIONS", "KEYS", "RUNTIME", "RESULTS", "LISTS")
OWN_CODES = {1, 2, 4, 5, 6, 7, 8, 11, 50, 51, *range(100, 107)}
# What the values of a request alone do not tell, and the host does
NEVER_ADDED = 104  # CHECK of what was never added
NO_PLUGIN = 106  # host-local is in no folder of CNI_PATH
NO_VLANS = 2  # a kernel without bridge VLAN filtering
NO_RANGE = 7  # an address that no range of the network has


def placed(environ: Mapping[str, str], container: Host) -> dict[str, str]:
    """The environment with the table's namespace replaced by one that exists."""
    named = {**environ}
    if named.get("CNI_NETNS") == table.ENV["CNI_NETNS"]:
        named["CNI_NETNS"] = container.path
    return named


def demand_clean(host: Host, why: object) -> None:
    links = [name for _, name in host.call(socket.if_nameindex)]
    assert links == ["lo"], why
    assert not state_rows(host), why


def undo(host: Host, environ: Mapping[str, str], stdin: bytes) -> None:
    answer = serve_in(host, {**environ, "CNI_COMMAND": "DEL"}, stdin)
    assert (answer.code, answer.stdout) == (0, ""), (answer, stdin)


def demand_shape(answer: Answer, command: str) -> None:
    """One JSON document or none: what stdout holds after success, by verb."""
    if answer.code == 0 and command in ("DEL", "CHECK", "GC", "STATUS", ""):
        assert answer.stdout == ""
    elif answer.code == 0:
        assert "cniVersion" in answer.document


def expected(environ: Mapping[str, str], stdin: bytes, code: int) -> set[int]:
    """The table's code; for what only the kernel or the folders know, theirs as well."""
    if code:
        return {code}
    command = environ.get("CNI_COMMAND", "")
    if command == "CHECK":
        return {NEVER_ADDED}
    if b"host-local" in stdin:
        return {NO_PLUGIN}
    if "fd00::5" in environ.get("CNI_ARGS", ""):
        return {NO_RANGE}
    if b"VlanTrunk" in stdin:
        return {0, NO_VLANS}
    return {0}


@pytest.mark.parametrize("group", GROUPS)
def test_every_hostile_call_ends_well(host: Host, group: str) -> None:
    container = host.container("c1")
    calls: list[Call] = getattr(table, group)
    for environ, stdin, code in calls:
        environ = placed(environ, container)
        answer = serve_in(host, environ, stdin)
        command = environ.get("CNI_COMMAND", "")
        assert answer.code in expected(environ, stdin, code), (environ, stdin[:200], answer)
        demand_shape(answer, command)
        if command == "ADD" and answer.code == 0:
            undo(host, environ, stdin)
        demand_clean(host, (environ, stdin[:200]))


# --- real executions


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a plugin folder, as go-cni's tests and some installers make."""
    made = tmp_path_factory.mktemp("made")
    install_folder(made / "bin")
    return Path(shutil.copytree(made / "bin", made / "copy", symlinks=True))


def sample() -> list[Call]:
    """Of each group some cases that an exec can carry: no zero byte, no long string."""
    chosen = []
    for group in GROUPS:
        calls: list[Call] = getattr(table, group)
        fit = [call for call in calls if call[2] and carried(call[0])]
        chosen += fit[:: max(1, len(fit) // 4)][:4]
    return chosen


def carried(environ: Mapping[str, str]) -> bool:
    return all("\0" not in value and len(value) < 1000 for value in environ.values())


SAMPLE = sample()


def test_the_sample_is_large_enough() -> None:
    assert len(SAMPLE) >= 25


@pytest.mark.parametrize("number", range(len(SAMPLE)))
def test_executed_with_nothing_around(host: Host, copied: Path, number: int) -> None:
    environ, stdin, code = SAMPLE[number]
    environ = placed(environ, host.container("c1"))
    answer = execute_in(host, copied / "netplug", environ, stdin)
    assert answer.code == code
    demand_clean(host, answer)


def descriptors(host: Host, command: str, closing: str, environ: Mapping[str, str]) -> Answer:
    """A plugin whose caller has closed some of its standard descriptors."""
    done = host.call(
        lambda: subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" {closing}', command],
            env={**environ},
            input=table.GOOD,
            capture_output=True,
            check=False,
        )
    )
    return Answer(done.stdout.decode(), done.returncode, done.stderr.decode())


@pytest.mark.parametrize("closing", ["<&-", "</dev/null", "<&- 2>&-", "2>&-", "2>/dev/full"])
def test_version_needs_no_descriptor_but_stdout(host: Host, copied: Path, closing: str) -> None:
    answer = descriptors(host, str(copied / "netplug"), closing, {"CNI_COMMAND": "VERSION"})
    assert answer.code == 0
    assert answer.document["supportedVersions"] == list(SUPPORTED)


def test_version_does_not_wait_for_stdin(host: Host, copied: Path) -> None:
    silent, kept_open = os.pipe()
    try:
        done = host.call(
            lambda: subprocess.run(
                [copied / "netplug"],
                env={"CNI_COMMAND": "VERSION"},
                stdin=silent,
                capture_output=True,
                timeout=60,
                check=True,
            )
        )
    finally:
        os.close(silent)
        os.close(kept_open)
    assert done.stdout.startswith(b'{"cniVersion"')


def test_the_about_text_never_reaches_stdout(host: Host, copied: Path) -> None:
    told = descriptors(host, str(copied / "netplug-ipam"), "", {})
    assert (told.status, told.stdout) == (0, "")
    assert told.log.startswith("CNI netplug-ipam plugin v")
    assert descriptors(host, str(copied / "netplug"), "2>&-", {}) == Answer("", 0)


def test_closed_stdin_is_an_input_error(host: Host, copied: Path) -> None:
    environ = placed(table.ENV, host)
    assert descriptors(host, str(copied / "netplug"), "<&-", environ).code == 5


def test_an_add_with_closed_stderr_prints_its_result_alone(host: Host, copied: Path) -> None:
    environ = placed(table.ENV, host.container("c1"))
    for closing in ("2>&-", "2>/dev/full", "2>&- <&0"):
        answer = descriptors(host, str(copied / "netplug"), closing, environ)
        assert answer.code == 0
        assert answer.document["ips"]
        undo(host, environ, table.GOOD)
        demand_clean(host, closing)


@pytest.mark.parametrize("closing", [">&-", ">/dev/full"])
def test_a_result_that_cannot_be_told_is_a_failure(host: Host, copied: Path, closing: str) -> None:
    environ = placed(table.ENV, host.container("c1"))
    answer = descriptors(host, str(copied / "netplug"), closing, environ)
    assert answer.status != 0
    assert "Traceback" not in answer.log
    undo(host, environ, table.GOOD)
    demand_clean(host, closing)


# --- fuzzing: mutations of a rich request, so that most get far

RICH: Json = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "mtu": 1400,
    "hairpinMode": True,
    "macspoofchk": True,
    "isolate": False,
    "sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "0"},
    "ipam": {
        "type": "netplug",
        "ranges": [
            [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"}],
            [{"subnet": "fd00:1::/64"}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1300}],
        "dns": {"nameservers": ["10.1.0.1"], "search": ["lan"]},
    },
    "dns": {"nameservers": ["10.1.0.1"]},
    "args": {"cni": {"mac": "02:00:00:00:00:07", "ips": ["10.1.0.20"]}},
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
        "aliases": ["web"],
    },
    "prevResult": {**table.PREV, "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
    "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
}
TEXTS = (
    *("10.1.0.255", "10.1.0.0/24", "0.0.0.0/0", "fd00:1::1", "::/0", "ff02::1/128", "127.0.0.1/8"),
    *("lo", "br0", "eth0", "auto", "iptables", "nft", "none", "static", "ff:ff:ff:ff:ff:ff"),
    "a" * 300,
)
NUMBERS = (-1, 0, 1, 67, 68, 1279, 4095, 65535, 65536, 2**31, 2**32, 2**63, 2**64)
NOISE = table.JSON | st.sampled_from(TEXTS) | st.sampled_from(NUMBERS)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*at, key))
        if isinstance(item, dict | list):
            found += paths(item, (*at, key))
    return found


@st.composite
def mutants(draw: st.DrawFn) -> Json:
    """The rich request with one to three places changed, removed or added."""
    config = copy.deepcopy(RICH)
    for _ in range(draw(st.integers(1, 3))):
        *inner, last = draw(st.sampled_from(paths(config)))
        place: Any = config
        for key in inner:
            place = place[key]
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(table.KEYS_OR_NOISE)] = draw(NOISE)
        elif draw(st.integers(0, 4)):
            place[last] = draw(NOISE)
        else:
            del place[last]
        if not config:
            break
    return config


NAMED = ("CONTAINERID", "IFNAME", "ARGS", "PATH", "NETNS_OVERRIDE")
VARIABLES = st.dictionaries(
    st.sampled_from([f"CNI_{name}" for name in NAMED]), table.VALUES, max_size=2
)


def demand_no_harm(host: Host, container: Host, config: Json, variables: Mapping[str, str]) -> None:
    """Each verb in turn; after DEL the host is as it was, whatever ADD has said."""
    stdin = json.dumps(config).encode()
    environ = {**placed(table.ENV, container), **variables}
    for command in ("ADD", "CHECK", "STATUS", "GC", "DEL"):
        answer = serve_in(host, {**environ, "CNI_COMMAND": command}, stdin)
        assert answer.code in {0, *OWN_CODES}, (answer, config, variables)
        demand_shape(answer, command)
        event(f"{command} {answer.code}")
        if command == "ADD" and answer.code:
            demand_clean(host, (answer, config, variables))
        elif command == "ADD":
            undo_whatever_happens(host, environ, config)
    demand_clean(host, (config, variables))


def undo_whatever_happens(host: Host, environ: Mapping[str, str], config: Json) -> None:
    """A second ADD is refused; then DEL, whose configuration may have gone bad since."""
    stdin = json.dumps(config).encode()
    assert serve_in(host, {**environ, "CNI_COMMAND": "ADD"}, stdin).code
    undo(host, environ, stdin)
    demand_clean(host, config)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(config=mutants(), variables=VARIABLES)
def test_any_request_ends_well(
    fuzzed: tuple[Host, Host], config: Json, variables: Mapping[str, str]
) -> None:
    demand_no_harm(*fuzzed, config, variables)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=300, deadline=None, suppress_health_check=QUIET)
@given(config=mutants(), variables=VARIABLES)
def test_any_request_ends_well_for_long(
    fuzzed: tuple[Host, Host], config: Json, variables: Mapping[str, str]
) -> None:
    demand_no_harm(*fuzzed, config, variables)


@pytest.fixture
def fuzzed(host: Host) -> tuple[Host, Host]:
    return host, host.container("c1")

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
import through
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
        if through.taken() and any("\0" in value for value in environ.values()):
            continue  # no process can be given it
        answer = serve_in(host, environ, stdin)
        command = environ.get("CNI_COMMAND", "")
        assert answer.code in expected(environ, stdin, code), (environ, stdin[:200], answer)
        demand_shape(answer, command)
        if command == "ADD" and answer.code == 0:
            undo(host, environ, stdin)
        demand_clean(host, (environ, stdin[:200]))


# --- valid in form, but the kernel's own rules are still to come


def rich(**keys: Any) -> Json:
    plain: Json = {**table.CONFIG, "bridge": "br0", "isDefaultGateway": True, "ipMasq": True}
    return {**plain, **keys}


def ranges(*subnets: str, **keys: Any) -> Json:
    return rich(ipam={"type": "netplug", "ranges": [[{"subnet": s}] for s in subnets], **keys})


def published(**keys: Any) -> Json:
    return rich(runtimeConfig={"portMappings": [{"hostPort": 8080, "containerPort": 80, **keys}]})


REFUSED: list[tuple[Json, int]] = [
    *[(rich(bridge=name), 7) for name in ("br%d", "all", "default", ".", "", "a/b", "a" * 16)],
    (rich(bridge="lo"), 102),
    *[(ranges(subnet), 7) for subnet in ("0.0.0.0/0", "0.0.0.0/8", "::/0", "127.0.0.0/8",
                                         "ff00::/8", "224.0.0.0/4", "::1/128")],
    *[(rich(sysctl={key: "1"}), 7) for key in ("net/../kernel/x", "kernel.x", "net.a\0", "net..a")],
    *[(rich(sysctl={"net.ipv4.ip_forward": value}), 7) for value in ("", "0\n1", "\0")],
    *[(rich(sysctl={key: "1"}), 105) for key in ("net.core", "net." + "x" * 5000, "net.nothing")],
    (rich(sysctl={"net.ipv4.conf.IFNAME.rp_filter": "x"}), 105),
    ({**ranges("fd00::/64"), "mtu": 1279}, 105),
    (ranges("10.1.0.0/24", routes=[{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]), 105),
    *[(published(hostIP=address), 7) for address in ("::1", "fd00::1", "::")],
    (rich(runtimeConfig={"ips": ["10.1.0.5", "10.1.0.6"]}), 7),
    (rich(runtimeConfig={"ips": ["10.9.0.5"]}), 7),
    (rich(internal=True, runtimeConfig=json.loads(json.dumps(published()["runtimeConfig"]))), 7),
    (rich(disableContainerInterface=True), 7),
    ({**published(), "firewall": "none"}, 2),
    (rich(ipam={"type": "../../bin/sh"}), 106),
]  # fmt: skip

SERVED: list[Json] = [
    rich(mtu=68), rich(mtu=65535), rich(bridge="é"), rich(mtu="auto"),
    ranges("10.1.0.0/31"), ranges("fd00::/127"), ranges("10.1.0.0/32"), ranges("fe80::/64"),
    ranges("10.1.0.0/24", "10.2.0.0/24", "fd00::/64"),
    ranges("10.1.0.0/24", routes=[{"dst": "0.0.0.0/0"}] * 3),
    ranges("10.1.0.0/24", routes=[{"dst": "10.5.0.0/16", "table": 100, "mtu": 1300}]),
    published(hostIP="203.0.113.5"), published(hostIP="127.0.0.1"), published(protocol="SCTP"),
    rich(ingressRate=1), rich(egressRate=7, egressBurst=1), rich(ingressRate=2**64 - 1),
    rich(portIsolation=True, macspoofchk=True, isolate=True, hairpinMode=True),
    {**published(), "firewall": "iptables"},
    rich(ipam={}, disableContainerInterface=True, isDefaultGateway=False),
    rich(name="n" * 5000),
]  # fmt: skip


def test_what_the_host_cannot_serve_is_refused_and_undone(host: Host) -> None:
    environ = placed(table.ENV, host.container("c1"))
    for request, code in REFUSED:
        stdin = json.dumps(request).encode()
        answer = serve_in(host, environ, stdin)
        assert answer.code == code, (request, answer)
        demand_clean(host, (request, answer))


def test_extreme_but_valid_requests_are_served_checked_and_undone(host: Host) -> None:
    environ = placed(table.ENV, host.container("c1"))
    for request in SERVED:
        answer = serve_in(host, environ, json.dumps(request).encode())
        assert answer.code == 0, (request, answer)
        again = json.dumps({**request, "prevResult": answer.document}).encode()
        checked = serve_in(host, {**environ, "CNI_COMMAND": "CHECK"}, again)
        assert checked.code == 0, (request, checked)
        undo(host, environ, again)
        demand_clean(host, request)


def test_names_that_the_kernel_would_change_are_refused(host: Host) -> None:
    """`eth%d` becomes `eth0`, which then is nobody's."""
    container = host.container("c1")
    for name in ("eth%d", "%s", "all", "default"):
        environ = {**placed(table.ENV, container), "CNI_IFNAME": name}
        assert serve_in(host, environ, json.dumps(rich()).encode()).code == 4
    assert "eth" not in container.run("ip -o link")
    demand_clean(host, "names")


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_an_ipam_plugin_that_cannot_run_holds_nothing_up(
    host: Host, tmp_path: Path, mode: int
) -> None:
    """What never ran has nothing to give back: the next ADD, with another plugin, succeeds."""
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "plain").chmod(mode)
    environ = {**placed(table.ENV, host.container("c1")), "CNI_PATH": str(tmp_path)}
    request = rich(ipam={"type": "plain"})
    assert serve_in(host, environ, json.dumps(request).encode()).code == 106
    demand_clean(host, mode)
    stdin = json.dumps(rich()).encode()
    assert serve_in(host, environ, stdin).code == 0
    undo(host, environ, stdin)
    demand_clean(host, mode)


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

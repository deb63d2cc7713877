"""One plugin by three routes: native launcher, Python launcher, one process alone.

What the tests of the CNI verbs demand in process holds for real executions, whoever works:
the agent, or the process itself. Each route runs the very same tests.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attaching import differing, dump
from cni_exec import NOBODY, Answer, Pod, Runtime, execute_in, install_folder, pairwise, state_rows
from netns import test_bridge_options as bridge
from netns import test_cni_delete as removal
from netns import test_cni_hostile_calls as hostile
from netns import test_cni_verbs as verbs
from through import WAYS, Way, going, opened
from unit import test_cni_hostile as table

if TYPE_CHECKING:
    from conftest import Host

# One process alone passes these in process by default; executing each call takes ten times longer
slow_alone = pytest.mark.parametrize(
    "route",
    ["native", "python", pytest.param("one-process", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module", params=WAYS)
def route(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Way]:
    with opened(request.param, tmp_path_factory.mktemp("route")) as way:
        yield way


@pytest.fixture
def runtime(host: Host, route: Way, tmp_path: Path) -> Runtime:
    """Executes the route's plugin. The folder is this test's own: some add plugins to it."""
    shutil.copytree(route.folder, tmp_path / "bin", symlinks=True)
    return Runtime(host, tmp_path / "bin", execute=True, cache=tmp_path / "cache")


crowd, read_only_state, spawn = verbs.crowd, verbs.read_only_state, removal.spawn
state = removal.state
COMMON: list[Callable[..., None]] = [
    verbs.test_a_second_add_is_an_error_that_changes_nothing,
    verbs.test_one_container_twice_on_one_network,
    verbs.test_an_interface_that_is_there_already_stays,
    verbs.test_check_lets_pass_what_is_somebody_elses,
    verbs.test_check_takes_the_words_of_prev_result,
    verbs.test_check_changes_nothing,
    verbs.test_check_of_a_layer_2_network,
    verbs.test_gc_keeps_what_is_listed,
    verbs.test_gc_without_a_list_takes_only_the_dead,
    verbs.test_gc_finds_by_their_marks_what_no_record_knows,
    verbs.test_libcni_gc_of_the_cached,
    verbs.test_status_of_a_fresh_host_and_of_one_in_use,
    verbs.test_status_of_a_wrong_link_under_the_bridges_name,
    verbs.test_status_of_an_exhausted_pool,
    verbs.test_status_of_a_state_that_cannot_be_written,
    verbs.test_status_with_a_bad_configuration_is_a_bad_configuration,
    removal.test_a_delete_without_any_add,
    removal.test_a_delete_with_a_configuration_gone_bad,
]


@slow_alone
@pytest.mark.parametrize("test", COMMON, ids=lambda test: test.__name__.removeprefix("test_"))
def test_alike(request: pytest.FixtureRequest, test: Callable[..., None], runtime: Runtime) -> None:
    test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})


site = bridge.site
BRIDGE: list[Callable[..., None]] = [
    bridge.test_an_admins_bridge_is_used_and_stays,
    bridge.test_a_link_of_another_kind_is_refused,
    bridge.test_two_networks_share_a_bridge,
    bridge.test_different_values_under_one_key_name_the_other_network,
    bridge.test_a_config_changed_under_a_living_attachment,
]


@slow_alone
@pytest.mark.parametrize("test", BRIDGE, ids=lambda test: test.__name__.removeprefix("test_"))
def test_bridge_alike(
    request: pytest.FixtureRequest, test: Callable[..., None], route: Way
) -> None:
    names = inspect.signature(test).parameters
    with going(route):
        test(**{name: request.getfixturevalue(name) for name in names})


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_plugins_own_namespace_is_refused(runtime: Runtime, command: str) -> None:
    verbs.test_the_plugins_own_namespace_is_refused_before_any_work(runtime, command)


BROKEN = ("container link gone", "host end detached", "rules flushed", "namespace gone")


@slow_alone
def test_check_sees_what_is_broken(runtime: Runtime) -> None:
    for number, broken in enumerate(BROKEN):
        web = runtime.host.container(f"web{number}")
        pod = Pod("web", web.path, wishes=verbs.WISHES)
        network = verbs.conflist(hairpinMode=True)
        previous = runtime.add(network, pod)
        runtime.check(network, pod)
        verbs.BROKEN[broken](runtime.host, web)
        answer = verbs.ask(runtime, "CHECK", network, pod, previous=previous)
        assert answer.code == verbs.CHECK_FAILED, (broken, answer)
        runtime.delete(network, pod)
        assert not state_rows(runtime.host)


@slow_alone
def test_delete_whatever_happened(runtime: Runtime, spawn: Callable[[], str]) -> None:
    cases = pairwise(removal.FACTORS)
    removal.walk_cases(runtime, spawn, cases[:4])


def test_the_whole_of_one_life(runtime: Runtime, route: Way) -> None:
    """Dual stack, ports, bandwidth: what is told and what is there; and who has worked."""
    host = runtime.host
    web, before = host.container("web"), dump(host)
    network = {**removal.NETWORK}
    pod = Pod("web", web.path, wishes=removal.WISHES)
    served = {verb: route.served(verb) for verb in ("ADD", "CHECK", "GC", "STATUS", "DEL")}
    runtime.status(network)
    result = runtime.add(network, pod)
    given = [ip["address"] for ip in result["ips"]]
    assert given == ["10.1.0.2/24", "fd00:1::2/64"]
    inside = web.run("ip addr show dev eth0")
    assert all(address in inside for address in given)
    assert "8080" in host.run("nft list ruleset")
    runtime.check(network, pod)
    runtime.gc(network, [pod])
    runtime.check(network, pod)
    second = verbs.ask(runtime, "ADD", network, pod)
    assert second.code == verbs.CONFLICT
    twice = runtime.request(network, network["plugins"][0], pod, result)
    assert [runtime.call("DEL", twice, pod).code for _ in range(2)] == [0, 0]
    assert not differing(before, dump(host))
    assert not state_rows(host)
    now = {verb: route.served(verb) - count for verb, count in served.items()}
    expected = {"ADD": 2, "CHECK": 2, "GC": 1, "STATUS": 1, "DEL": 2}
    assert now == (expected if route.station else dict.fromkeys(expected, 0))


FOREIGN = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND" >> "{log}"
case "$CNI_COMMAND" in
ADD) echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.7.0.9/24"}}]}}' ;;
esac
"""


def test_a_foreign_ipam_plugin_is_executed_by_the_caller(
    runtime: Runtime, route: Way, tmp_path: Path
) -> None:
    """The agent says 'not mine', and executes nothing; the result is the same by every route."""
    host = runtime.host
    before, log = dump(host), tmp_path / "log"
    plugin = runtime.folder / "elsewhere"
    plugin.write_text(FOREIGN.format(log=log))
    plugin.chmod(0o755)
    network = verbs.conflist(ipam={"type": "elsewhere"}, isDefaultGateway=False, ipMasq=False)
    pod = Pod("web", host.container("web").path)
    served = route.served("ADD")
    result = runtime.add(network, pod)
    assert [ip["address"] for ip in result["ips"]] == ["10.7.0.9/24"]
    runtime.check(network, pod)
    runtime.delete(network, pod)
    assert log.read_text().split() == ["ADD", "CHECK", "DEL"]
    assert route.served("ADD") == served
    if route.station:
        assert route.station.counted("ADD", "refused") == 1
    assert not differing(before, dump(host))
    assert not state_rows(host)


def test_what_gc_removes_gives_its_foreign_address_back(runtime: Runtime, tmp_path: Path) -> None:
    """GC under a configuration with our own IPAM meets a record of a foreign one: its plugin
    must be asked, whoever works."""
    host, log = runtime.host, tmp_path / "log"
    plugin = runtime.folder / "elsewhere"
    plugin.write_text(FOREIGN.format(log=log))
    plugin.chmod(0o755)
    network = verbs.conflist(ipam={"type": "elsewhere"}, isDefaultGateway=False, ipMasq=False)
    runtime.add(network, Pod("web", host.container("web").path))
    ours = verbs.conflist()
    collect = {**runtime.request(ours, ours["plugins"][0], NOBODY), verbs.VALID: []}
    assert runtime.call("GC", collect, NOBODY).code == 0
    assert log.read_text().split() == ["ADD", "DEL"]
    assert not state_rows(host)


def test_as_the_ipam_of_a_foreign_main_plugin(runtime: Runtime) -> None:
    config = {
        "cniVersion": "1.1.0",
        "name": "lan",
        "type": "bridge",
        "ipam": {"type": "netplug-ipam", "subnet": "10.1.0.0/30"},
    }
    pod = Pod("web", runtime.host.container("web").path)

    def say(command: str) -> Answer:
        environ = pod.environ(command, str(runtime.folder))
        program = runtime.folder / "netplug-ipam"
        return execute_in(runtime.host, program, environ, json.dumps(config).encode())

    assert say("STATUS").code == 0
    assert [ip["address"] for ip in say("ADD").document["ips"]] == ["10.1.0.2/30"]
    assert say("STATUS").code == verbs.UNAVAILABLE
    assert [say("DEL").code, say("STATUS").code] == [0, 0]


def test_a_hostile_sample(host: Host, runtime: Runtime) -> None:
    """The same codes as in process, and no residue."""
    container = host.container("c1")
    for environ, stdin, code in hostile.SAMPLE:
        placed = hostile.placed(environ, container)
        answer = execute_in(host, runtime.folder / "netplug", placed, stdin)
        assert answer.code == code, (environ, stdin[:200], answer)
        hostile.demand_clean(host, answer)


@slow_alone
def test_what_the_host_cannot_serve_is_refused_and_undone(host: Host, runtime: Runtime) -> None:
    environ = hostile.placed(table.ENV, host.container("c1"))
    for request, code in hostile.REFUSED[::4]:
        if "\\u0000" in (text := json.dumps(request)):
            continue
        answer = execute_in(host, runtime.folder / "netplug", environ, text.encode())
        assert answer.code == code, (request, answer)
        hostile.demand_clean(host, (request, answer))


def test_a_damaged_state_file_is_kept_aside(runtime: Runtime, state: Path) -> None:
    """One that was put in the place of the agent's own, too; ADD then starts anew."""
    pod = Pod("web", runtime.host.container("web").path, wishes=removal.WISHES)
    runtime.add(removal.NETWORK, pod)
    broken = state.with_name("broken")
    broken.write_text("not a database\n")
    removal.fold_log(state)
    broken.rename(state)
    runtime.delete(removal.NETWORK, pod)
    (kept,) = state.parent.glob("state.db.damaged-*")
    assert kept.read_text() == "not a database\n"
    assert removal.HOST_END not in removal.links(runtime.host)
    runtime.add(removal.NETWORK, pod)
    runtime.delete(removal.NETWORK, pod)


def test_routes_can_be_mixed(host: Host, route: Way, tmp_path: Path) -> None:
    """What one route has added, another checks, refuses to add again, and deletes."""
    if route.station is None:
        pytest.skip("the other routes are mixed with this one")
    alone = Runtime(host, install_folder(tmp_path / "alone"), execute=True, cache=tmp_path / "c")
    warm = replace(alone, folder=route.folder)
    before, container = dump(host), host.container("web")
    pod = Pod("web", container.path, wishes=removal.WISHES)
    for first, second in ((alone, warm), (warm, alone)):
        first.add(removal.NETWORK, pod)
        second.check(removal.NETWORK, pod)
        assert verbs.ask(second, "ADD", removal.NETWORK, pod).code == verbs.CONFLICT
        second.delete(removal.NETWORK, pod)
        first.delete(removal.NETWORK, pod)
        assert not differing(before, dump(host))
        assert not state_rows(host)

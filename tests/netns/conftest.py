"""The fixture `topology`: hosts, switches and routers from a file of netns-fixtures/.

And the way by which tests of the plugin call it (`through`): by default in this process, with
`--through WAY` by that one, with `--long` by each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import through as ways
from dns_world import Names, running

from netplug.fixtures.pytest_fixture import topology

__all__ = ["topology"]

# Modules whose tests call the plugin, or attach as an engine would
CALLERS = {
    "test_bridge_check",
    "test_bridge_options",
    "test_cni_chains",
    "test_cni_delete",
    "test_cni_hostile_calls",
    "test_cni_interop",
    "test_cni_verbs",
}


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    """An agent with its name server, and calls through it."""
    with running(tmp_path) as names:
        yield names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] not in CALLERS:
        return
    named = metafunc.config.getoption("--through")
    long = metafunc.config.getoption("--long")
    chosen = [named] if named else [ways.IN_PROCESS, *ways.WAYS] if long else []
    if metafunc.definition.get_closest_marker("in_process"):
        chosen = []
    if chosen:
        metafunc.parametrize("through", chosen, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that must be in this process are not asked to go another way."""
    if config.getoption("--through"):
        left_out = [item for item in items if item.get_closest_marker("in_process")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True, scope="session")
def through(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    kind = getattr(request, "param", ways.IN_PROCESS)
    if kind == ways.IN_PROCESS:
        yield
        return
    with ways.opened(kind, tmp_path_factory.mktemp("way")) as way, ways.going(way):
        yield

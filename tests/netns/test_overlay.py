"""Overlay networks over simulated nodes, with one SQLite file as their store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay_world import RANGE4, RANGE6, World, make_overlay

if TYPE_CHECKING:
    from conftest import Host


@pytest.fixture
def world(make_host: Callable[[str], Host], tmp_path: Path) -> Iterator[World]:
    made = World(make_host, tmp_path, f'[store]\npath = "{tmp_path}/cluster.db"')
    try:
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()


@pytest.mark.parametrize("ranges", [(RANGE4,), (RANGE4, RANGE6), (RANGE6,)], ids=str)
def test_containers_of_two_nodes_reach_each_other(world: World, ranges: tuple[str, ...]) -> None:
    network = make_overlay("web", *ranges)
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    assert a.reaches(b) and b.reaches(a)
    one.check(a.attachment)
    one.delete(a.attachment)
    two.delete(b.attachment)

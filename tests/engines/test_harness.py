"""The parts of this harness that could fool the tests beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from engines.cell import Cell
from engines.cri import parse_message, render_message, text
from engines.flavour import Flavour
from engines.unpack import Tree


def test_messages_of_the_cri_survive_the_wire() -> None:
    inner = render_message((1, "name"), (4, 300))
    message = parse_message(render_message((1, inner), (3, "one"), (3, "zwölf"), (5, 0)))
    assert text(parse_message(message[1][0]), 1) == "name"  # type: ignore[arg-type]
    assert parse_message(inner)[4] == [300]
    assert message[3] == [b"one", "zwölf".encode()]
    assert message[5] == [0]


def test_a_cell_is_a_host_of_its_own(tree: Tree, flavour: Flavour) -> None:
    here = {
        namespace: Path(f"/proc/self/ns/{namespace}").readlink() for namespace in ("net", "mnt")
    }
    with Cell(tree, flavour.plugins) as cell:
        for namespace, ours in here.items():
            assert cell.run("readlink", f"/proc/self/ns/{namespace}").strip() != str(ours)
        before = cell.snapshot()
        cell.run("ip", "link", "add", "left0", "type", "bridge")
        cell.run("nft", "add", "table", "inet", "left")
        cell.write("/var/lib/cni/networks/lan/10.89.7.2", "")
        left = before.added(cell.snapshot())
        for thing in ("links: left0", "rules: nft: table inet left {", "/10.89.7.2"):
            assert any(thing in line for line in left), left
        assert "podman" in cell.run("sh", "-c", "command -v podman")
        folder = cell.path
    assert not folder.exists()


def test_bench_measures_beside_the_reference(tree: Tree, flavour: Flavour) -> None:
    pytest.importorskip("rich")
    root = Path(__file__).parents[2]
    words = ["-m", "bench", "--case", "version", "-n", "2", "--json"]
    enter = 'cd "$1"; shift; NETPLUG_SANDBOX=$(readlink /proc/self/ns/net) exec "$@"'
    with Cell(tree, flavour.plugins) as cell:  # whose state folders may be littered
        bench = [sys.executable, *words, "--reference", str(tree.plugins)]
        report = json.loads(cell.run("sh", "-euc", enter, "enter", root, *bench))
    (outcome,) = report["outcomes"]
    assert outcome["operation"] == "VERSION"
    baseline, *others = outcome["contenders"]
    assert (baseline["name"], baseline["ratio"]) == ("reference", None)
    assert [len(other["values"]) for other in others] == [2] * len(others)
    assert all(other["ratio"] > 0 for other in others)

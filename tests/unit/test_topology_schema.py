"""Topology files: what is understood, and what is refused with which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netplug.errors import ConfigError, InputError
from netplug.fixtures import load, names, parse_topology
from netplug.fixtures.load import SHIPPED
from netplug.fixtures.schema import LinkEntry, TopologyFile, parse_yaml

TWO = """
hosts: {red: [10.0.1.2/24], blue: [10.0.1.3/24]}
switches: {br0: [red, blue]}
"""


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_topology(parse_yaml(text, source="t.yaml"), name="t.yaml")
    return caught.value


@pytest.mark.parametrize("name", names())
def test_shipped_topologies_are_valid_and_described(name: str) -> None:
    topology = load(name)
    assert topology.about
    assert topology.nodes
    assert topology.links or "without any link" in topology.about


@pytest.mark.parametrize(
    ("text", "what", "why", "hint"),
    [
        ("hots: {}", "t.yaml: hots", "unknown key", "did you mean hosts?"),
        (TWO + "links: [{a: red, b: br0, mtuu: 9}]", "links.0.mtuu", "unknown key", "mean mtu?"),
        (TWO + "links: [{a: red}]", "t.yaml: links.0.b", "needed", "a link joins two ends"),
        (TWO + "links: [{a: red, b: br0, mtu: big}]", "links.0.mtu", "integer, found 'big'", ""),
        (TWO + "links: [{a: red, b: br0, mtu: 9}]", "links.0.mtu", "equal to 68, found 9", ""),
        (TWO + "links: [{a: red, b: br0, up: 1}]", "links.0.up", "boolean, found 1", ""),
        (TWO + "links: [{a: red, b: br0, loss: 2}]", "links.0.loss", "such as 2%", ""),
        (TWO + "links: [{a: red, b: br0, loss: 101%}]", "links.0.loss", "such as 2%", ""),
        (TWO + "links: [{a: rde, b: br0}]", "links.0.a", "no such node: 'rde'", "mean red?"),
        (TWO + "links: [{a: red, b: red}]", "links.0", "two different ends", ""),
        (
            TWO + "links: [{a: red, b: br0}, {a: br0, b: red}]",
            "links.1",
            "red - br0 is written twice",
            "",
        ),
        ("hosts: {red: [10.0.1.2]}", "hosts.red", "needs its prefix length", ""),
        ("hosts: {red: [10.0.1.300/24]}", "hosts.red", "such as 10.0.1.2/24", ""),
        ("hosts: {no: []}", "hosts", "put it in quotes", ""),
        ("hosts: {'a b': []}", "hosts.a b", "is no name", ""),
        ("hosts: {red: [10.0.1.2/24]}", "hosts.red", "1 addresses for 0 links", "name red in"),
        ("hosts: {wire: []}", "hosts.wire", "taken by the namespace of the switches", ""),
        ("hosts: {a: []}\nswitches: {a: []}", "switches.a", "taken by hosts", "rename one"),
        ("hosts: {red: []}\nswitches: {s: [rde]}", "switches.s", "no host or switch", "mean red?"),
        ("hosts: {a: []}\nswitches: {s: [a, a]}", "switches.s", "listed twice", ""),
        ("switches: {s: [t], t: [s]}", "switches.t", "s lists t already", ""),
        ("switches: {s: [r]}\nrouters: {r: {s: }}", "switches.s", "names its switches", "routers:"),
        (
            "switches: {lan: []}\nrouters: {r: {lna: 10.0.0.1/24}}",
            "routers.r.lna",
            "no such",
            "mean lan?",
        ),
        (
            "switches: {lan: []}\nrouters: {r: {lan: 10.0.0.1/24, nat: wan}}",
            "routers.r.nat",
            "'wan' is no segment of r",
            "lan",
        ),
        (
            "hosts: {a: [10.0.0.1/24, 10.0.1.1/24, 10.0.2.1/24]}\nswitches: {s: [a], t: [a]}",
            "hosts.a",
            "3 addresses for 2 links",
            "in this order: s, t",
        ),
        (
            "hosts: {a: [10.0.0.1/24], b: [10.0.0.1/24]}\nswitches: {s: [a, b]}",
            "b",
            "10.0.0.1/24 belongs to a already",
            "",
        ),
        (
            "hosts: {a: ['fd00::1/64']}\nswitches: {s: [a]}\nlinks: [{a: a, b: s, mtu: 1200}]",
            "links (a - s)",
            "mtu 1200",
            "at least 1280",
        ),
        (TWO + "routes: {rd: {default: 10.0.1.1}}", "routes.rd", "no such host", "mean red?"),
        (TWO + "routes: {red: {10.9.0.0/16: fd00::1}}", "routes.red", "mixes IPv4 and IPv6", ""),
        (TWO + "routes: {red: {default: 10.0.2.1}}", "routes.red", "in no subnet of red", "10.0.1"),
        (TWO + "hosts: {}", "line 4, column 1", "the key 'hosts' is written twice", ""),
        ("[a", "line 1", "expected", ""),
        ("- a", "t.yaml is no topology", "keys are expected", "README"),
    ],
)
def test_refusals_name_key_rule_and_remedy(text: str, what: str, why: str, hint: str) -> None:
    error = refusal(text)
    assert what in error.what
    assert why in error.why
    assert hint in error.hint


def test_all_problems_are_told_at_once() -> None:
    error = refusal("hots: {}\nswitchs: {}\n")
    assert "hots" in str(error)
    assert "switchs: unknown key" in str(error)


def test_unknown_shipped_name_gets_a_suggestion() -> None:
    with pytest.raises(InputError) as caught:
        load("two-host")
    assert caught.value.hint == "did you mean two-hosts?"


def test_files_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TWO)
    assert load(path) == load(str(path))
    assert load(path).name == "mine"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "other.yaml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        load(path)


def test_examples_and_list_of_the_readme() -> None:
    readme = (SHIPPED / "README.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert parse_topology(parse_yaml(example, source="README"), name="README").nodes
    for name in names():
        assert f"`{name}`" in readme
    for key in (*TopologyFile.model_fields, *LinkEntry.model_fields):
        assert f"`{key}`" in readme

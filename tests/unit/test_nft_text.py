"""The nft commands of every intent, as kept in tests/golden/nft/NAME.sh."""

from __future__ import annotations

from pathlib import Path

import pytest
from nft_cases import CASES

from netplug.firewall.intent import Accept
from netplug.firewall.nft_layout import LAYOUTS, Layout
from netplug.firewall.nft_text import render_accept, render_shell
from netplug.kernel import nftables as nf

GOLDEN = Path(__file__).parents[1] / "golden" / "nft"


@pytest.mark.parametrize("name", CASES)
def test_commands(name: str) -> None:
    assert render_shell(CASES[name]) == (GOLDEN / f"{name}.sh").read_text().splitlines()


def test_no_golden_file_is_forgotten() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_accepts_are_shown_as_comments_since_they_depend_on_the_host() -> None:
    lines = render_shell(Accept("br0", 4))
    assert all(line.startswith("#") for line in lines)
    assert any('oifname "br0" accept' in line for line in lines)


def test_an_inet_chain_is_entered_for_one_family_alone() -> None:
    chain = nf.Chain(nf.INET, "firewalld", "filter_INPUT", hook=nf.INPUT)
    lines = render_accept(Accept("br0", 6), chain)
    assert len(lines) == 4  # questions to the name server; neighbour discovery
    head = 'insert rule inet firewalld filter_INPUT meta nfproto ipv6 iifname "br0"'
    assert all(head in line for line in lines)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: str(layout.scope))
def test_comments_are_unique_in_their_chain_and_fit(layout: Layout) -> None:
    seen = [(rule.chain, rule.comment) for rule in layout.rules]
    assert len(seen) == len(set(seen))
    for rule in layout.rules:
        assert len(rule.comment) < 128
        assert "'" not in rule.text + rule.comment  # the shell text stands in single quotes
    assert {rule.chain for rule in layout.rules} == {chain.name for chain in layout.chains}
    # What `NftFirewall.present` relies on: no set that rules do not hold.
    text = " ".join(rule.text for rule in layout.rules)
    assert all(f"@{item.name}" in text for item in layout.sets)

"""What the state file says of every host on it, as metrics: attachments, leases used and free.

Hosts that have networks of one name are added up. A network's ranges are those of its
attachments; where it has none, those of its file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from netplug import ipam, plugins
from netplug.agent.metrics import Metric, Sample
from netplug.cni.conflist import list_networks
from netplug.config import driver_name, is_ours, parse_network, parse_own_ipam
from netplug.errors import NetplugError
from netplug.model import Network
from netplug.networks import conf_folders
from netplug.state import State

Key = tuple[str, str]  # network and family


def read_state(folder: Path) -> Iterator[Metric]:
    """Raises sqlite3.Error, NetplugError where the file cannot be read."""
    state = State(folder)
    try:
        phases = state.connection.execute(
            "SELECT network, phase, count(*) FROM records GROUP BY network, phase"
        ).fetchall()
        used, free = _read_leases(state)
    finally:
        state.close()
    yield Metric(
        "netplug_attachments",
        "gauge",
        "Attachments by network; pending and leaving ones are being made and removed.",
        tuple(
            Sample(count, {"network": network, "phase": phase}) for network, phase, count in phases
        ),
    )
    yield Metric(
        "netplug_leases_used", "gauge", "Addresses that are leased, by network.", _samples(used)
    )
    yield Metric(
        "netplug_leases_free",
        "gauge",
        "Addresses that can still be leased from the ranges of a network.",
        _samples(free),
    )


def _samples(counts: Counter[Key]) -> tuple[Sample, ...]:
    return tuple(
        Sample(count, {"network": network, "family": family})
        for (network, family), count in sorted(counts.items())
    )


def _read_leases(state: State) -> tuple[Counter[Key], Counter[Key]]:
    """How many are used, how many are free."""
    used: Counter[Key] = Counter()
    free: Counter[Key] = Counter()
    for network, family, count in state.connection.execute(
        "SELECT network, family, count(*) FROM leases GROUP BY network, family"
    ):
        used[network, f"ipv{family}"] = count
    for host, config in _configurations(state):
        parsed = _parse(config)
        if parsed is None or parsed.ipam is None:
            continue
        for one in ipam.usage(
            state.connection, host=host, segment=parsed.segment, ipam=parsed.ipam
        ):
            key = parsed.name, f"ipv{one.range.subnet.version}"
            free[key] += one.free
            used[key] += 0
    return used, free


def _configurations(state: State) -> Iterator[tuple[str, str]]:
    """Hosts, and a configuration for each network that they have; "" as host: none has it."""
    names = state.connection.execute("SELECT DISTINCT host, network FROM records").fetchall()
    for host, network in names:
        row = state.connection.execute(
            "SELECT config FROM records WHERE host=? AND network=? LIMIT 1", (host, network)
        ).fetchone()
        if row:  # it may have been the last one
            yield host, row[0]
    attached = {network for _, network in names}
    conflists, _ = list_networks(conf_folders(None, None, state.folder))
    for conflist in conflists:
        if conflist.name not in attached and len(conflist.plugins) == 1:
            yield "", json.dumps(conflist.request_config())


@lru_cache(maxsize=256)
def _parse(text: str) -> Network | None:
    """The network, or None where its addresses are not ours to count."""
    config = json.loads(text)
    section = config.get("ipam")
    if not isinstance(section, dict) or not is_ours(str(section.get("type") or "netplug")):
        return None
    config["ipam"] = {key: value for key, value in section.items() if key != "resolvConf"}
    try:
        if not is_ours(str(config.get("type"))):
            found = parse_own_ipam(config["ipam"], config.get("runtimeConfig") or {})
            return Network(str(config["name"]), "ipam", None, ipam=found)
        return parse_network(config, plugins.get_driver(driver_name(config)).options)[0]
    except NetplugError:
        return None

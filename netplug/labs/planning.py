"""The engine asked from inside a lab: the plan for an attachment, or what is left of one."""

from __future__ import annotations

import json

from netplug.cli.context import Context
from netplug.cni.network import parse_attachment
from netplug.cni.protocol import parse_request
from netplug.labs.world import NAMES
from netplug.networks import parse_conflist_network
from netplug.preview import Preview, preview


def preview_connect(target: str, network: str, ifname: str) -> Preview:
    """What `netplug connect TARGET NETWORK` would do. Raises NotFound, and what ADD raises."""
    context = Context()
    conflist = context.network(network)
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": f"lab-{target}",
        "CNI_NETNS": str(NAMES / target),
        "CNI_IFNAME": ifname,
        "CNI_PATH": context.cni_path,
    }
    config = json.dumps(conflist.request_config()).encode()
    request = parse_request(environ, lambda: config)
    parsed, _ = parse_conflist_network(conflist)
    with context.engine() as engine:
        return preview(engine, parsed, parse_attachment(request, parsed, via="cli"))


def read_differences(target: str, network: str) -> list[str] | None:
    """What the kernel lacks of the attachment; None where there is none."""
    with Context().engine() as engine:
        records = [r for r in engine.records(network) if r.attachment.name == target]
        if not records:
            return None
        return [str(d) for record in records for d in engine.differences(record.attachment)]

"""`ctr run --cni`: the client itself runs the plugins, in its own namespaces."""

from __future__ import annotations

from engines.cell import eventually
from engines.containerd import Containerd
from engines.images import WEB_SERVER


def test_attached_run_leaves_nothing(containerd: Containerd) -> None:
    # ctr calls DEL when the container's namespace is gone, with an empty CNI_NETNS
    assert "10.89.7." in containerd.run_attached("once", "ip", "-4", "address", "show", "eth0")


def test_containers_reach_each_other(containerd: Containerd) -> None:
    with (
        containerd.running("web", *WEB_SERVER),
        containerd.running("shell", "sleep", "86400"),
    ):
        address = containerd.address("web")
        assert address != containerd.address("shell")
        containerd.execute("shell", "ping", "-c1", "-W2", address)
        fetch = ("wget", "-qO-", f"http://{address}/")
        assert eventually(lambda: containerd.run_attached("once", *fetch)) == "ok"

"""containerd's CRI: what a kubelet asks for."""

from __future__ import annotations

from ipaddress import ip_address

from engines.containerd import Containerd
from engines.cri import Cri
from engines.images import WEB_SERVER


def test_two_pods_with_two_families_and_a_host_port(
    cri: Cri, containerd_of_cri: Containerd
) -> None:
    server = cri.run_pod("server", ports=[(18080, 80)])
    client = cri.run_pod("client")
    addresses = cri.addresses(server)
    assert sorted(ip_address(address).version for address in addresses) == [4, 6]
    cri.run_container(server, "web", *WEB_SERVER)
    shell = cri.run_container(client, "shell", "sleep", "86400")
    for address in addresses:
        cri.execute(shell, "ping", "-c1", "-W2", address)
    assert containerd_of_cri.cell.fetch("http://127.0.0.1:18080/") == "ok\n"


def test_stop_and_remove_as_often_as_a_kubelet_likes(cri: Cri) -> None:
    # the first stop has a namespace; each later one a DEL with an empty CNI_NETNS
    pod = cri.run_pod("pod")
    for _ in range(2):
        cri.stop_pod(pod.id)
    for _ in range(2):
        cri.remove_pod(pod.id)

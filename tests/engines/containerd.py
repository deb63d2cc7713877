"""containerd and its client ctr, inside a cell."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cell import PATIENCE, Cell, CommandFailed, eventually
from .images import NAME, Images
from .unpack import Tree

SOCKET = "/run/containerd/containerd.sock"
# Lowering an OOM score needs a capability that CI may lack.
CONFIGURATION = f"""
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{NAME}"
restrict_oom_score_adj = true
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    cell: Cell

    @property
    def socket(self) -> Path:
        """The API's socket, as seen from outside of the cell."""
        return self.cell.outside(SOCKET)

    def ctr(self, *arguments: str | Path, check: bool = True) -> str:
        return self.cell.run("ctr", *arguments, check=check).strip()

    @contextmanager
    def running(self, name: str, *command: str) -> Iterator[None]:
        """A container on the network, until the end of the block.

        ctr itself calls the plugins, and stays: a detached container would get its ADD, and
        nobody would ever ask for the DEL.
        """
        client = self.cell.start("ctr", "run", "--rm", "--cni", NAME, name, *command)
        # a task can execute commands before it has its network
        eventually(lambda: self.address(name), patience=20.0)
        try:
            yield
        finally:
            self.ctr("task", "kill", "--signal", "KILL", name)
            client.wait(PATIENCE)

    def run_attached(self, name: str, *command: str) -> str:
        """The stdout of a container that ctr removes, with its network, when it has ended."""
        return self.ctr("run", "--rm", "--cni", NAME, name, *command)

    def execute(self, name: str, *command: str) -> str:
        return self.ctr("task", "exec", "--exec-id", f"exec-{name}", name, *command)

    def address(self, name: str) -> str:
        """The IPv4 address of eth0, read inside the container."""
        line = self.execute(name, "ip", "-4", "-o", "address", "show", "eth0")
        if "inet " not in line:
            raise CommandFailed(f"no address: {line}")
        return line.split("inet ")[1].split("/")[0]


@contextmanager
def start_containerd(tree: Tree, plugins: Path, images: Images) -> Iterator[Containerd]:
    """containerd in a cell of its own, with the test image for ctr and for the CRI."""
    tree.program("containerd")
    with tempfile.NamedTemporaryFile(suffix=".log") as log, Cell(tree, plugins) as cell:
        cell.write("/etc/containerd/config.toml", CONFIGURATION)
        cell.start("containerd", log=Path(log.name))
        containerd = Containerd(cell)
        try:
            eventually(lambda: containerd.ctr("version"), patience=20.0)
            for namespace in ("default", "k8s.io"):
                containerd.ctr("--namespace", namespace, "images", "import", images.oci_layout)
        except CommandFailed as failure:
            last = Path(log.name).read_text().splitlines()[-3:]
            raise CommandFailed(f"containerd does not start: {failure}; {last}") from None
        yield containerd

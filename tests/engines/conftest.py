"""Engines as fixtures. Each lives in a cell of its own for the session; each test gets it empty,
and must leave it so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias, TypeVar

import pytest
from engines.cell import FOLDER, Cell, eventually, eventually_none, require_root
from engines.containerd import Containerd, start_containerd
from engines.cri import Cri
from engines.flavour import SUBNET, SUBNET_6, Flavour, make_flavour
from engines.images import Images, make_images
from engines.podman import Podman, start_podman, start_rootless_podman
from engines.unpack import Tree, Unavailable, read_tree

T = TypeVar("T")
Enter: TypeAlias = Callable[[AbstractContextManager[T]], T]


def skip_unless_available(make: Callable[[], T]) -> T:
    try:
        return make()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def tree() -> Tree:
    """The unpacked packages."""
    skip_unless_available(require_root)
    return skip_unless_available(read_tree)


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """A folder that ordinary users may read as well, unlike pytest's own."""
    with TemporaryDirectory(prefix="netplug-engines-", dir=FOLDER) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def images(tree: Tree, shared: Path) -> Images:
    return make_images(skip_unless_available(lambda: tree.program("busybox")), shared)


@pytest.fixture(scope="session")
def flavour(tree: Tree, shared: Path) -> Flavour:
    """netplug, unless NETPLUG_TEST_PLUGIN says otherwise."""
    choice = os.environ.get("NETPLUG_TEST_PLUGIN", "")
    folder = shared / "plugins"
    folder.mkdir()
    return skip_unless_available(lambda: make_flavour(choice, tree, folder))


@pytest.fixture(scope="session")
def enter() -> Iterator[Callable[[AbstractContextManager[T]], T]]:
    """Enters an engine's context until the session ends; skips where it cannot be had."""
    with ExitStack() as stack:
        yield lambda engine: skip_unless_available(lambda: stack.enter_context(engine))


@pytest.fixture(scope="session")
def podman_of_root(enter: Enter[Podman], tree: Tree, flavour: Flavour, images: Images) -> Podman:
    return enter(start_podman(tree, flavour.plugins, images))


@pytest.fixture(scope="session")
def podman_of_user(enter: Enter[Podman], tree: Tree, flavour: Flavour, images: Images) -> Podman:
    return enter(start_rootless_podman(tree, flavour.plugins, images))


@pytest.fixture(scope="session")
def containerd_of_ctr(
    enter: Enter[Containerd], tree: Tree, flavour: Flavour, images: Images
) -> Containerd:
    return enter(start_containerd(tree, flavour.plugins, images))


@pytest.fixture(scope="session")
def containerd_of_cri(
    enter: Enter[Containerd], tree: Tree, flavour: Flavour, images: Images
) -> Containerd:
    # A folder of its own: containerd 1.x cannot start a pod without the plugin `loopback`.
    folder = flavour.plugins.with_name("plugins-of-cri")
    shutil.copytree(flavour.plugins, folder, symlinks=True)
    shutil.copy(tree.plugins / "loopback", folder / "loopback")
    return enter(start_containerd(tree, folder, images))


@pytest.fixture
def podman(podman_of_root: Podman, flavour: Flavour) -> Iterator[Podman]:
    """podman of root with the network `lan`, and nothing else."""
    podman_of_root.add_network(flavour.network("lan"))
    with nothing_left(podman_of_root.cell, flavour):
        try:
            yield podman_of_root
        finally:
            podman_of_root.remove_all()


@pytest.fixture
def rootless_podman(podman_of_user: Podman, flavour: Flavour) -> Iterator[Podman]:
    """podman of an ordinary user with the network `lan`, and nothing else."""
    podman_of_user.add_network(flavour.network("lan"))
    with nothing_left(podman_of_user.cell, flavour):
        try:
            yield podman_of_user
        finally:
            podman_of_user.remove_all()


@pytest.fixture
def containerd(containerd_of_ctr: Containerd, flavour: Flavour) -> Iterator[Containerd]:
    """containerd, for its client ctr, with the network `lan`."""
    containerd_of_ctr.cell.write_network(flavour.network("lan"))
    with nothing_left(containerd_of_ctr.cell, flavour):
        yield containerd_of_ctr


@pytest.fixture
def cri(containerd_of_cri: Containerd, flavour: Flavour) -> Iterator[Cri]:
    """The CRI of a containerd whose pod network has two families."""
    grpc = pytest.importorskip("grpc", reason="the CRI is gRPC: pip install grpcio")
    cell = containerd_of_cri.cell
    with nothing_left(cell, flavour):
        cell.write_network(flavour.network("pods", SUBNET, SUBNET_6))
        with grpc.insecure_channel(f"unix://{containerd_of_cri.socket}") as channel:
            client = Cri(channel.unary_unary)
            eventually(client.require_network)
            yield client
            client.remove_pods()


@contextmanager
def nothing_left(cell: Cell, flavour: Flavour) -> Iterator[None]:
    """Fails when the network that a test made in `cell` is still there, and names what is."""
    before = cell.snapshot()
    yield
    left = eventually_none(lambda: flavour.judge(before.added(cell.snapshot())))
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)

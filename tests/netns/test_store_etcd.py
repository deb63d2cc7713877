"""etcd as the store, where a real cluster shows itself: members that die, hang; TLS; passwords."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from etcd_cluster import Cluster

from netplug.errors import ConfigError, Unavailable
from netplug.store import Put
from netplug.store.etcd import Credentials, EtcdStore

LOOPBACKS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, LOOPBACKS, port=23890)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_killed_member(cluster: Cluster) -> None:
    """Calls go on with the others, a watch too, and misses nothing."""
    with closing(EtcdStore(cluster.endpoints)) as store:
        watch = store.watch("/a/", store.list("/a/")[1])
        events = iter(watch)
        first = store.create("/a/1", b"")
        assert next(events) == Put("/a/1", b"", first or 0)
        cluster.kill(0)  # the one that was asked first, and watched
        began = time.monotonic()
        second = store.create("/a/2", b"")
        assert time.monotonic() - began < 3
        assert next(events) == Put("/a/2", b"", second or 0)
        lease = store.lease(5)
        assert lease.refresh()
        watch.close()


def test_a_member_that_hangs(cluster: Cluster) -> None:
    with closing(EtcdStore(cluster.endpoints)) as store:
        assert store.create("/a/1", b"") is not None
        cluster.signal(0, signal.SIGSTOP)
        assert store.create("/a/2", b"") is not None
        cluster.signal(0, signal.SIGCONT)


def test_without_a_quorum_it_says_so(cluster: Cluster) -> None:
    with closing(EtcdStore(cluster.endpoints)) as store:
        cluster.kill(1, 2)
        with pytest.raises(Unavailable, match="the cluster store does not answer"):
            store.list("/")


def make_certificates(folder: Path) -> None:
    """An authority, and a certificate of it for the loopback addresses."""
    commands = """
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
            -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes
            -subj /CN=member -keyout member.key -out member.csr
        openssl x509 -req -in member.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2
            -extfile names -out member.pem
    """
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in commands.replace("\n            -", " -").strip().splitlines():
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def test_tls_and_password(tmp_path: Path) -> None:
    """aetcd's own client can do neither TLS nor a second endpoint: its channel is always plain."""
    if subprocess.run(["which", "openssl"], capture_output=True).returncode:
        pytest.skip("there is no openssl to make certificates with")
    make_certificates(tmp_path)
    ca, pem, key = (str(tmp_path / name) for name in ("ca.pem", "member.pem", "member.key"))
    tls = ("--cert-file", pem, "--key-file", key, "--trusted-ca-file", ca)
    cluster = Cluster(tmp_path, port=23990, tls=tls)
    try:
        cluster.start()
        for words in (
            ("user", "add", "root:rootpw"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "overlay"),
            ("role", "grant-permission", "overlay", "--prefix=true", "readwrite", "/netplug/"),
            ("user", "add", "netplug:secret"),
            ("user", "grant-role", "netplug", "overlay"),
            ("auth", "enable"),
        ):
            cluster.ctl(*words)
        login = Credentials(ca, pem, key, user="netplug", password="secret")
        with closing(EtcdStore(cluster.endpoints, login)) as store:
            revision = store.create("/netplug/x", b"1")
            assert revision is not None
            watch = store.watch("/netplug/", revision - 1)  # a stream needs the token as well
            assert next(iter(watch)) == Put("/netplug/x", b"1", revision)
            watch.close()
            with pytest.raises(Unavailable, match="permission denied"):
                store.create("/other", b"")
            store._token = "expired"
            assert store.get("/netplug/x") is not None
        wrong = Credentials(ca, pem, key, user="netplug", password="guess")
        with (
            closing(EtcdStore(cluster.endpoints, wrong)) as store,
            pytest.raises(Unavailable, match="authentication failed") as caught,
        ):
            store.get("/netplug/x")
        assert "guess" not in str(caught.value)
        for unknown in (Credentials(), Credentials(ca)):  # no TLS; no certificate of our own
            stranger = EtcdStore(cluster.endpoints, unknown)
            with closing(stranger), pytest.raises(Unavailable):
                stranger.get("/netplug/x")
        with pytest.raises(ConfigError, match="cannot be read"):
            EtcdStore(cluster.endpoints, Credentials(ca="/nowhere"))
    finally:
        cluster.close()

"""The store in etcd (v3 API), for clusters of several nodes.

The messages and stubs are aetcd's; the channels are gRPC's own. aetcd's client itself
speaks plain text to one endpoint and takes no credentials for the channel, so it knows
neither TLS nor a second member (`tests/netns/test_store_etcd.py`: `test_tls_and_password`,
`test_a_killed_member`). Its stubs take any channel: one for each endpoint, tried in turn.

A call that a dying member may have served already is asked again; a `create` whose key
then exists is ours if the value is ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from aetcd import rpc

from netplug.errors import ConfigError, NetplugError
from netplug.store import Deleted, Entry, Event, Lease, Put, Resync, unreachable

T = TypeVar("T")
CALL_SECONDS = 2.0  # for one endpoint: an election takes one second by default
RETRY_SECONDS = 0.2
ELSEWHERE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION)
CHANNEL = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """TLS files by path, each "" where there is none, and a user with a password."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    @property
    def tls(self) -> bool:
        return bool(self.ca or self.certificate)


class EtcdStore:
    """`endpoints` are HOST:PORT. Safe to share between threads; close it."""

    def __init__(self, endpoints: Sequence[str], credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials()
        secure = _channel_credentials(self._credentials) if self._credentials.tls else None
        self._members = [_Member(endpoint, secure) for endpoint in endpoints]
        self._preferred = 0
        self._token = ""
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()
        for member in self._members:
            member.close()

    # --- the seven methods

    def get(self, key: str) -> Entry | None:
        request = rpc.RangeRequest(key=key.encode())
        answer = self._call("get", lambda m, **k: m.kv.Range(request, **k))
        return _entry(answer.kvs[0]) if answer.kvs else None

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        request = rpc.RangeRequest(key=prefix.encode(), range_end=_end_of(prefix))
        answer = self._call("list", lambda m, **k: m.kv.Range(request, **k))
        return [_entry(kv) for kv in answer.kvs], answer.header.revision

    def create(self, key: str, value: bytes, lease: Lease | None = None) -> int | None:
        absent = rpc.Compare(
            key=key.encode(),
            target=rpc.Compare.CREATE,
            result=rpc.Compare.EQUAL,
            create_revision=0,
        )
        done, tries = self._put_if(absent, key, value, lease)
        if done is None and tries > 1:
            return self._own(key, value)
        return done

    def replace(
        self, key: str, value: bytes, revision: int, lease: Lease | None = None
    ) -> int | None:
        done, tries = self._put_if(_unchanged(key, revision), key, value, lease)
        if done is None and tries > 1:
            return self._own(key, value)
        return done

    def delete(self, key: str, revision: int | None = None) -> bool:
        deletion = rpc.DeleteRangeRequest(key=key.encode())
        request = rpc.TxnRequest(
            compare=[] if revision is None else [_unchanged(key, revision)],
            success=[rpc.RequestOp(request_delete_range=deletion)],
        )
        answer = self._call("delete", lambda m, **k: m.kv.Txn(request, **k))
        return bool(answer.succeeded and answer.responses[0].response_delete_range.deleted)

    def lease(self, seconds: float) -> EtcdLease:
        request = rpc.LeaseGrantRequest(TTL=max(1, round(seconds)))
        answer = self._call("lease", lambda m, **k: m.lease.LeaseGrant(request, **k))
        return EtcdLease(self, answer.ID, float(answer.TTL))

    def watch(self, prefix: str, after: int) -> EtcdWatch:
        return EtcdWatch(self, prefix, after)

    # --- common

    def _put_if(
        self, compare: Any, key: str, value: bytes, lease: Lease | None
    ) -> tuple[int | None, int]:
        """The new revision or None, and how many members were asked."""
        number = lease.number if isinstance(lease, EtcdLease) else 0
        put = rpc.PutRequest(key=key.encode(), value=value, lease=number)
        request = rpc.TxnRequest(compare=[compare], success=[rpc.RequestOp(request_put=put)])
        asked: list[_Member] = []

        def ask(member: _Member, **options: Any) -> Any:
            asked.append(member)
            return member.kv.Txn(request, **options)

        answer = self._call("put", ask)
        return (answer.header.revision if answer.succeeded else None), len(asked)

    def _own(self, key: str, value: bytes) -> int | None:
        """The revision of the key if it holds this very value: an answer of ours was lost."""
        entry = self.get(key)
        return entry.revision if entry is not None and entry.value == value else None

    def _call(self, what: str, ask: Callable[..., T]) -> T:
        """The first answer of a member, the last good one first. Raises Unreachable."""
        reasons = []
        count = len(self._members)
        for turn in range(count + 1):  # the first one again: a leader may be there by now
            number = (self._preferred + turn) % count
            member = self._members[number]
            try:
                answer = self._authenticated(member, ask)
                self._preferred = number
                return answer
            except grpc.RpcError as error:
                if error.code() in REFUSED:
                    raise unreachable(what, f"{member.endpoint}: {error.details()}") from error
                reasons.append(f"{member.endpoint}: {_words(error)}")
                if error.code() not in ELSEWHERE:
                    break
            except ValueError as error:  # a closed channel
                raise unreachable(what, str(error)) from error
        raise unreachable(what, "; ".join(dict.fromkeys(reasons)))

    def _authenticated(self, member: _Member, ask: Callable[..., T]) -> T:
        """Asks with a token, and once more with a new one where it has expired."""
        options: dict[str, Any] = {"timeout": CALL_SECONDS}
        if not self._credentials.user:
            return ask(member, **options)
        for fresh in (False, True):
            try:
                return ask(member, metadata=self.metadata(member, fresh=fresh), **options)
            except grpc.RpcError as error:
                if fresh or "token" not in (error.details() or ""):
                    raise
        raise AssertionError

    def metadata(self, member: _Member, *, fresh: bool = False) -> tuple[tuple[str, str], ...]:
        if not self._credentials.user:
            return ()
        if fresh or not self._token:
            request = rpc.AuthenticateRequest(
                name=self._credentials.user, password=self._credentials.password
            )
            self._token = member.auth.Authenticate(request, timeout=CALL_SECONDS).token
        return (("token", self._token),)


class _Member:
    """One endpoint: its channel and stubs."""

    def __init__(self, endpoint: str, secure: Any) -> None:
        self.endpoint = endpoint
        if secure is None:
            self._channel = grpc.insecure_channel(endpoint, options=CHANNEL)
        else:
            self._channel = grpc.secure_channel(endpoint, secure, options=CHANNEL)
        self.kv = rpc.KVStub(self._channel)
        self.lease = rpc.LeaseStub(self._channel)
        self.watch = rpc.WatchStub(self._channel)
        self.auth = rpc.AuthStub(self._channel)
        self.maintenance = rpc.MaintenanceStub(self._channel)

    def close(self) -> None:
        self._channel.close()


class EtcdLease:
    def __init__(self, store: EtcdStore, number: int, seconds: float) -> None:
        self.number, self.seconds = number, seconds
        self._store = store

    def refresh(self) -> bool:
        """One beat on a stream of its own; an expired lease answers with a TTL of 0."""
        request = rpc.LeaseKeepAliveRequest(ID=self.number)

        def beat(member: _Member, **options: Any) -> int:
            stream = member.lease.LeaseKeepAlive(iter((request,)), **options)
            return next(int(answer.TTL) for answer in stream)

        return self._store._call("lease", beat) > 0

    def release(self) -> None:
        request = rpc.LeaseRevokeRequest(ID=self.number)
        try:
            self._store._call("lease", lambda m, **k: m.lease.LeaseRevoke(request, **k))
        except NetplugError as error:
            if "lease not found" not in str(error):
                raise


class EtcdWatch:
    """Resumes on the next member after the last revision seen; compaction is a Resync."""

    def __init__(self, store: EtcdStore, prefix: str, after: int) -> None:
        self._store, self._prefix, self._after = store, prefix, after
        self._closed = threading.Event()
        self._stream: Any = None

    def close(self) -> None:
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def __iter__(self) -> Iterator[Event]:
        turn = self._store._preferred
        while not self._closed.is_set() and not self._store._closed.is_set():
            member = self._store._members[turn % len(self._store._members)]
            try:
                for event in self._follow(member):
                    yield event
                    if isinstance(event, Resync):
                        return
            except grpc.RpcError:
                pass  # the member died, lost its leader, or the token expired
            except ValueError:
                return  # the store was closed
            turn += 1
            self._closed.wait(RETRY_SECONDS)

    def _follow(self, member: _Member) -> Iterator[Event]:
        """One stream: with `hasleader` a member that is cut off from the others ends it."""
        create = rpc.WatchCreateRequest(
            key=self._prefix.encode(),
            range_end=_end_of(self._prefix),
            start_revision=self._after + 1,
            progress_notify=True,
        )
        metadata = (("hasleader", "true"), *self._store.metadata(member, fresh=True))
        ended = threading.Event()

        def requests() -> Iterator[Any]:
            yield rpc.WatchRequest(create_request=create)
            ended.wait()  # closing our side would end the stream

        self._stream = member.watch.Watch(requests(), metadata=metadata)
        try:
            if self._closed.is_set():
                return
            for answer in self._stream:
                if answer.compact_revision:
                    yield Resync(f"revision {self._after + 1} was compacted")
                    return
                if answer.canceled:
                    yield Resync(answer.cancel_reason or "the watch was cancelled")
                    return
                yield from (_event(event) for event in answer.events)
                if not answer.created:
                    self._after = max(self._after, answer.header.revision)
        finally:
            ended.set()
            self._stream.cancel()


def _event(event: Any) -> Put | Deleted:
    key, revision = event.kv.key.decode(), event.kv.mod_revision
    if event.type == rpc.Event.DELETE:
        return Deleted(key, revision)
    return Put(key, event.kv.value, revision)


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision)


def _unchanged(key: str, revision: int) -> Any:
    return rpc.Compare(
        key=key.encode(),
        target=rpc.Compare.MOD,
        result=rpc.Compare.EQUAL,
        mod_revision=revision,
    )


def _end_of(prefix: str) -> bytes:
    """The end of the range of all keys that begin so (etcd API, "key ranges")."""
    raw = prefix.encode()
    return raw[:-1] + bytes((raw[-1] + 1,))


def _words(error: Any) -> str:
    return str(error.details() or error.code().name.lower()).splitlines()[0]


def _channel_credentials(given: Credentials) -> Any:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(given.ca),
        private_key=_read(given.key),
        certificate_chain=_read(given.certificate),
    )


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read", error.strerror or "", "correct [store] in agent.toml"
        ) from error

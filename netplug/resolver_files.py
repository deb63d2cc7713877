"""/etc/netns/NAME/resolv.conf: what `ip netns exec NAME` shows as /etc/resolv.conf (ip-netns(8)).

Written for namespaces with a name that `netplug connect` has given name servers, from all
their attachments; gone with the last of them. The first line marks a file as ours and says
whose state it follows from: what has another first line is never changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from netplug.cni.files import SIZE_LIMIT, write_at
from netplug.errors import Conflict, InputError
from netplug.model import Dns
from netplug.state import Record, State

NAMESPACES = "/run/netns/"
FOLDER = "/etc/netns"
FILE = "resolv.conf"
MARK = "# written by netplug connect; state in "
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def follow(state: State, record: Record) -> str:
    """Brings the file of the record's namespace up to date; what hinders it, "" for nothing.

    To be called after each change of an attachment that `connect` made.
    """
    name = namespace_name(record)
    if not name:
        return ""
    settings = [other.result.dns for other in _sharing(state, record) if other.result]
    wanted = render(state, settings)
    try:
        if wanted:
            _write(state, name, wanted)
        else:
            _remove(state, name)
    except (InputError, Conflict) as error:
        return f"{error}; {error.hint}" if error.hint else str(error)
    except OSError as error:
        return f"{FOLDER}/{name}/{FILE} cannot be changed: {error.strerror}"
    return ""


def sweep(state: State, *, dry_run: bool = False) -> list[str]:
    """Removes our files for namespaces that nothing has attached any more; their paths."""
    rows = state.connection.execute("SELECT DISTINCT attachment FROM records").fetchall()
    text = "\n".join(row[0] for row in rows)
    gone = []
    for name in _marked(state):
        if f'"{NAMESPACES}{name}"' not in text:
            gone.append(f"{FOLDER}/{name}/{FILE}")
            if not dry_run:
                with contextlib.suppress(OSError):
                    _remove(state, name)
    return gone


def namespace_name(record: Record) -> str:
    """The name that `ip netns` knows; "" where `connect` did not attach by one."""
    a = record.attachment
    name = a.sandbox.removeprefix(NAMESPACES)
    named = name != a.sandbox and "/" not in name and name not in ("", ".", "..")
    return name if named and a.via == "cli" else ""


def render(state: State, settings: Iterable[Dns]) -> str:
    """The file's text: servers and search domains of all attachments, each once, in their
    order; "" without servers. resolv.conf(5)."""
    settings = [dns for dns in settings if dns.nameservers]
    if not settings:
        return ""
    lines = [f"{MARK}{state.folder}"]
    lines += [f"nameserver {one}" for one in _each_once(dns.nameservers for dns in settings)]
    for word, values in (
        ("search", _each_once(dns.search or filter(None, [dns.domain]) for dns in settings)),
        ("options", _each_once(dns.options for dns in settings)),
    ):
        lines += [f"{word} {' '.join(values)}"] if values else []
    return "".join(f"{line}\n" for line in lines)


def _each_once(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(value for values in lists for value in values))


def _sharing(state: State, record: Record) -> list[Record]:
    """Living attachments of the same namespace by `connect`, oldest first."""
    sandbox = record.attachment.sandbox
    rows = state.connection.execute(
        "SELECT owner FROM records WHERE host=? AND phase='ready' AND instr(attachment, ?)"
        " ORDER BY since, owner",
        (record.host, f'"{sandbox}"'),
    ).fetchall()
    found = filter(None, (state.get(record.host, owner) for (owner,) in rows))
    return [
        other
        for other in found
        if namespace_name(other)
        and other.attachment.sandbox == sandbox
        and other.cookie == record.cookie
    ]


# --- the file


def _write(state: State, name: str, text: str) -> None:
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    with _opened(FOLDER) as top:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=top)
        with _opened(name, top) as folder:
            held = _read(folder)
            if held == text:
                return
            if held is not None and not held.startswith(f"{MARK}{state.folder}\n"):
                servers = ", ".join(text.splitlines()[1:])
                raise Conflict(
                    f"{FOLDER}/{name}/{FILE} is left as it is",
                    "it is not ours",
                    f"for names it needs: {servers}",
                )
            # where there was none, an admin's that appears now is not replaced either
            write_at(folder, FILE, text.encode(), mode=0o644, replace=held is not None)


def _remove(state: State, name: str) -> None:
    """The file, and its folder where nothing else is in it."""
    with contextlib.suppress(FileNotFoundError), _opened(FOLDER) as top:
        with _opened(name, top) as folder:
            if not (_read(folder) or "").startswith(f"{MARK}{state.folder}\n"):
                return
            os.unlink(FILE, dir_fd=folder)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=top)


def _marked(state: State) -> Iterator[str]:
    """Namespaces whose file follows from this state."""
    with contextlib.suppress(FileNotFoundError), _opened(FOLDER) as top:
        for name in sorted(os.listdir(top)):
            with contextlib.suppress(OSError), _opened(name, top) as folder:
                if (_read(folder) or "").startswith(f"{MARK}{state.folder}\n"):
                    yield name


@contextlib.contextmanager
def _opened(path: str, at: int | None = None) -> Iterator[int]:
    fd = os.open(path, _OPEN, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(folder: int) -> str | None:
    """None where there is no file; "" for what is none, such as a link: not ours in any case."""
    try:
        fd = os.open(
            FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(SIZE_LIMIT).decode(errors="replace")
        except OSError:
            return ""

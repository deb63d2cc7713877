"""The Python launcher: the CNI plugin that engines execute where there is no C compiler.

It does what launcher.c does, in the same steps; protocol.py is the specification. Starting
is what it costs: it runs without site (`-I -S -E`) and imports modules written in C alone.
`netplug install` puts the values of the names below after this text, and a call of `main`.
"""

import _socket
import posix
import sys
import time

INTERPRETER = ""  # the one-process plugin: INTERPRETER -IS -c CODE PROGRAM
CODE = ""
VERSION = b""  # answers that need no agent; ABOUT follows "CNI PROGRAM"
ABOUT = b""
LOST = b""  # CNI error objects
NO_INTERPRETER = b""
SOCKET = ""
MAGIC = b""
PAYLOAD_LIMIT = 0
ANSWER_MS = 0
WORK_MS = 0

OWN = ("/proc/self/ns/net", "/proc/self/ns/mnt", "/proc/self/ns/user")
TRACE = (b"TRACEPARENT", b"TRACESTATE", b"BAGGAGE")
HAS_SANDBOX, SANDBOX_GONE = 1, 2
CHUNK = 1 << 18  # bytes


def main() -> None:
    try:
        status = serve()
    except KeyboardInterrupt:
        status = 130  # as a shell tells of SIGINT; it is no reason for a second way
    posix._exit(status)  # without the interpreter's own end, which takes 1 ms


def serve() -> int:
    """Serves the call of this process; the exit status."""
    occupy_standard_descriptors()
    name = sys.argv[0].rpartition("/")[2]
    program = name.encode(sys.getfilesystemencoding(), "surrogateescape")
    command = posix.environ.get(b"CNI_COMMAND", b"")
    if command == b"VERSION":
        return finish(VERSION, 0)
    if not command:
        put(2, b"CNI " + program + ABOUT)
        return 0
    taken, ended, agent = None, False, None
    if posix.environ.get(b"CNI_PATH"):  # else an error is due that must not wait for stdin
        variables = render_variables(program)
        try:
            taken, ended = read_stdin(PAYLOAD_LIMIT - len(variables) - 1)
        except OSError:  # the one-process plugin fails in the same way, and says so
            pass
        if taken is not None and ended:
            agent = start_work(variables + taken)
    return run_alone(program, taken, ended) if agent is None else report(agent)


def occupy_standard_descriptors() -> None:
    """No file that is opened later may become stdin, stdout or stderr.

    The one-process plugin finds them closed, as the caller left them; using them here
    fails with EBADF, by the wrong direction.
    """
    for fd in range(3):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDONLY if fd else posix.O_WRONLY)


# --- the one-process plugin


def run_alone(program: bytes, taken: "bytes | None", ended: bool) -> int:
    """Becomes the one-process plugin; returns where that cannot be."""
    try:
        if taken is not None:
            restore_stdin(taken, ended)
        argv = (INTERPRETER, "-IS", "-c", CODE, program)
        posix.execve(INTERPRETER, argv, posix.environ)
    except OSError:
        return finish(NO_INTERPRETER, 1)


def restore_stdin(taken: bytes, ended: bool) -> None:
    """Puts back what was taken, and what may still come, as a file that is descriptor 0."""
    file = posix.memfd_create("stdin")
    if not put(file, taken):
        raise OSError
    while not ended:
        data = read(0)
        if not put(file, data):
            raise OSError
        ended = not data
    posix.lseek(file, 0, 0)
    posix.dup2(file, 0)


# --- descriptors that may be non-blocking, for they are the caller's


def read(fd: int, size: int = CHUNK) -> bytes:
    while True:
        try:
            return posix.read(fd, size)
        except BlockingIOError:
            wait(fd, "POLLIN")


def read_stdin(limit: int) -> "tuple[bytes, bool]":
    """At most `limit` bytes of stdin, and whether that was all. Raises OSError."""
    chunks = []
    while limit > 0:
        chunks.append(data := read(0, min(limit, CHUNK)))
        if not data:
            return b"".join(chunks), True
        limit -= len(data)
    return b"".join(chunks), False


def put(fd: int, data: bytes) -> bool:
    """Whether all of it could be written."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[posix.write(fd, rest) :]
        except BlockingIOError:
            wait(fd, "POLLOUT")
        except OSError:
            return False
    return True


def wait(fd: int, event: str) -> None:
    import select

    poll = select.poll()
    poll.register(fd, getattr(select, event))
    poll.poll()


def finish(text: bytes, status: int) -> int:
    return status if put(1, text) else 1


# --- the agent


def render_variables(program: bytes) -> bytes:
    passed = [
        name + b"=" + value
        for name, value in posix.environ.items()
        if name.startswith(b"CNI_") or name in TRACE
    ]
    return b"\0".join([b"PROGRAM=" + program, *passed, b"", b""])


def start_work(call: bytes) -> "_socket.socket | None":
    """A connection to an agent that has the whole call, was ready, and was told to go."""
    try:
        return begin(call, *open_namespaces())
    except OSError:
        return None


def begin(call: bytes, flags: int, fds: "list[int]") -> "_socket.socket | None":
    """The same; raises OSError as well where there is none."""
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    agent.setblocking(False)  # an agent whose queue is full is as good as none
    agent.connect(SOCKET)
    deadline = time.monotonic() + ANSWER_MS / 1000
    size = 1 + len(call)
    frame = MAGIC + size.to_bytes(4, "little") + bytes([flags]) + call
    rights = b"".join([fd.to_bytes(4, sys.byteorder) for fd in fds])
    be_patient(agent, deadline)
    sent = agent.sendmsg([frame], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    be_patient(agent, deadline)
    agent.sendall(memoryview(frame)[sent:])
    if receive(agent, 1, deadline) == b"B" and agent.send(b"G") == 1:
        return agent
    return None


def open_namespaces() -> "tuple[int, list[int]]":
    """The request's flags and descriptors. Raises OSError where the agent cannot be given them."""
    fds = [posix.open(path, posix.O_RDONLY) for path in OWN]
    sandbox = posix.environ.get(b"CNI_NETNS")
    if not sandbox:
        return 0, fds
    try:
        fds.append(posix.open(sandbox, posix.O_RDONLY | posix.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return SANDBOX_GONE, fds
    return HAS_SANDBOX, fds


def be_patient(agent: "_socket.socket", deadline: float) -> None:
    """Lets the next call wait until then. Raises OSError where that is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    agent.settimeout(left)


def receive(agent: "_socket.socket", size: int, deadline: float) -> bytes:
    """Exactly `size` bytes. Raises OSError where they do not come."""
    chunks = []
    while size:
        be_patient(agent, deadline)
        chunks.append(data := agent.recv(min(size, CHUNK)))
        if not data:
            raise ConnectionError
        size -= len(data)
    return b"".join(chunks)


def report(agent: "_socket.socket") -> int:
    """Prints the agent's answer; the exit status."""
    deadline = time.monotonic() + WORK_MS / 1000
    try:
        head = receive(agent, 10, deadline)
        out = int.from_bytes(head[2:6], "little")
        err = int.from_bytes(head[6:], "little")
        if head[:1] != b"R" or out + err > PAYLOAD_LIMIT:
            raise ConnectionError
        texts = receive(agent, out + err, deadline)
    except OSError:
        return finish(LOST, 1)
    put(2, texts[out:])
    return finish(texts[:out], head[1])

"""Small files that others read while we write them: whole, or not there at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from netplug.errors import Conflict, InputError

SIZE_LIMIT = 8 << 20  # bytes; a configuration is a few hundred


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def write_file(directory: str, name: str, data: bytes, *, mode: int, replace: bool = True) -> str:
    """Writes directory/name by temporary file, fsync and rename; its path.

    A symbolic link of that name is replaced, never followed. Raises Conflict where the
    file exists and `replace` is false, InputError where it cannot be written.
    """
    path = f"{directory}/{name}"
    try:
        with _directory(directory) as fd:
            write_at(fd, name, data, mode=mode, replace=replace)
    except FileExistsError:
        raise Conflict(f"{path} exists already", "", "choose another name, or remove it") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written", error.strerror or str(error)) from error
    return path


def write_at(directory: int, name: str, data: bytes, *, mode: int, replace: bool) -> None:
    """The same in a folder that is open. Raises FileExistsError, OSError."""
    # the suffix keeps readers of *.conflist and *.conf away from an unfinished file
    temporary = f".{name[:100]}.{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if replace:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:  # link fails where the name is taken; rename would win silently
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(temporary, dir_fd=directory)
        os.fsync(directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise


def read_file(path: str) -> bytes:
    """The bytes of a regular file. Raises OSError; ValueError for what is no file of ours."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"it is larger than {SIZE_LIMIT} bytes")
    return data


def remove_file(directory: str, name: str) -> None:
    """Removes directory/name; silent where it is gone. Raises InputError."""
    try:
        with _directory(directory) as fd:
            os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{directory}/{name} cannot be removed", error.strerror or str(error)
        ) from error

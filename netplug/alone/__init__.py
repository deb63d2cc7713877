"""The plugin in one process of its own, for hosts without an agent.

Python spends ten times as long on importing netplug as netplug on an ADD: on finding files,
on making dataclasses, on what the standard library imports. `netplug install` therefore makes
a bundle: one file with the compiled modules of this path, used together with stand-ins for a
few modules of the standard library (`netplug.alone.lean`). It lies where Python keeps compiled
modules, says which files it was made from, and is used while those are unchanged; else the
plain modules do the same work. What it cannot do (pydantic wants the real `dataclasses`) is
done by starting over with the plain ones.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys

TYPE_CHECKING = False  # what a type checker takes for true; importing typing is what we avoid
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

    Stamp = tuple[int, int]  # ns of its last change, bytes
    Module = tuple[str, bool, int, int]  # its file, is it a package; where its code is, bytes

TAG = sys.implementation.cache_tag
FILE = f"{os.path.dirname(__file__)}/__pycache__/bundle.{TAG}"
HEAD = 8  # bytes that say how long the index is, which the modules follow
# These want the real `dataclasses`; the second leads to drivers of other packages.
PLAIN_ONLY = ("pydantic", "importlib.metadata")


class StartOver(BaseException):
    """This call needs the plain modules. No Exception: nobody but `main` answers it."""


def main(program: str, autostart: str = "") -> NoReturn:
    """Serves one call and ends the process; before that, it may start an agent for the next one,
    which listens on the socket `autostart`."""
    bundled = plant()
    gc.disable()  # a call makes little garbage, and ends
    from netplug.cni.main import main as serve
    from netplug.cni.main import read_stdin

    given = b""

    def read() -> bytes:
        nonlocal given
        given = read_stdin()
        return given

    try:
        status = serve(program, read)
    except StartOver:
        _start_over(program, given, autostart)
    if autostart:
        from netplug.agent.autostart import after_a_call

        after_a_call(autostart)
    if not bundled:
        sys.exit(status)
    # All is written and closed: taking the interpreter apart would only take time.
    os._exit(status)


def _start_over(program: str, given: bytes, autostart: str) -> NoReturn:
    stdin = os.memfd_create("netplug")
    os.write(stdin, given)
    os.lseek(stdin, 0, os.SEEK_SET)
    os.dup2(stdin, 0)
    code = f"import sys; sys.path[:] = {sys.path!r}; from netplug.cni.main import main;"
    code += " status = main(sys.argv[1]);"
    if autostart:
        code += " from netplug.agent.autostart import after_a_call;"
        code += f" after_a_call({autostart!r});"
    code += " sys.exit(status)"
    os.execv(sys.executable, [sys.executable, "-IS", "-c", code, program])


# --- the bundle


def plant(file: str = FILE) -> bool:
    """Modules come from the bundle from now on; False where none fits the files here."""
    bundle = read_bundle(file)
    if bundle is None:
        return False
    sys.meta_path.insert(0, bundle)
    from netplug.alone import lean

    lean.stand_in()
    import dataclasses

    dataclasses.compiled.update(bundle.functions)  # type: ignore[attr-defined]
    return True


def read_bundle(file: str = FILE) -> Bundle | None:
    """None where it is not there, not whole, or older than a file that it was made from."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(opened).st_size - HEAD
        length = int.from_bytes(os.pread(opened, HEAD, 0), "little")
        index = os.pread(opened, min(size, length), HEAD)
        version, codes, stamps, modules, functions = marshal.loads(index)
        whole = version == sys.hexversion and size == length + codes
        if whole and all(stamp(name) == was for name, was in stamps.items()):
            return Bundle(opened, HEAD + length, modules, functions)
    except (OSError, ValueError, EOFError, TypeError):
        pass
    os.close(opened)
    return None


def stamp(path: str) -> Stamp:
    """What changes when the file does. Raises OSError."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


class Bundle:
    """Finds and loads the bundle's modules (`importlib.abc.MetaPathFinder` and `Loader`).

    `functions` are compiled ones by their text, for `netplug.alone.lean.dataclasses`.
    """

    def __init__(
        self, opened: int, begin: int, modules: dict[str, Module], functions: dict[str, CodeType]
    ) -> None:
        self._opened, self._begin, self._modules = opened, begin, modules
        self.functions = functions

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        found = self._modules.get(name)
        if found is None:
            if name in PLAIN_ONLY:
                raise StartOver(name)
            return None
        file, is_package, *_ = found
        spec = _Spec(name, self, origin=file, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__, _, offset, length = self._modules[module.__name__]
        code = os.pread(self._opened, length, self._begin + offset)
        exec(marshal.loads(code), module.__dict__)


_Spec: Callable[..., Any] = type(__spec__)  # without importing importlib.machinery

"""Makes the bundle of `netplug.alone`: imports what a call may need, and writes what that was.

Runs in an interpreter of its own, started as engines start the plugin: which modules there
are to import depends on nothing else then.
"""

from __future__ import annotations

import marshal
import os
import sys

from netplug import alone
from netplug.alone import lean

# What most calls import, with all that it imports. What is not among it is found as ever.
MODULES = (
    "netplug.cni.main",
    "netplug.cni.verbs",
    "netplug.firewall.nft",
    "netplug.plugins.bridge",
    "ctypes",
)


def ensure_bundle(path: list[str]) -> str:
    """Makes it where it is missing or stale; why it could not be made, "" where it is there.

    Without it the plugin works all the same, later.
    """
    if alone.read_bundle() is not None:
        return ""
    code = f"import sys; sys.path += {path!r}; from netplug.alone import make; make.write_bundle()"
    # A traceback from the bundle names lines, without columns: they are a quarter of the code.
    flags = ("-IS", "-X", "no_debug_ranges")
    import subprocess  # here, for it is not to be in the bundle

    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def write_bundle() -> None:
    """Imports the path of one call here, and writes it. Raises OSError."""
    lean.stand_in()
    for name in MODULES:
        __import__(name)
    modules, stamps, codes = {}, {}, b""
    for name, module in list(sys.modules.items()):
        file = module.__spec__.origin if module.__spec__ else None
        # Not what is part of the interpreter, nor a stand-in by the name of what it stands for.
        if file is None or not file.endswith(".py") or name in lean.NAMES:
            continue
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec", dont_inherit=True, optimize=2)
        stamps[file] = alone.stamp(file)
        marshalled = marshal.dumps(code)
        modules[name] = file, hasattr(module, "__path__"), len(codes), len(marshalled)
        codes += marshalled
    functions = sys.modules["dataclasses"].compiled
    index = marshal.dumps((sys.hexversion, len(codes), stamps, modules, functions))
    _replace(alone.FILE, len(index).to_bytes(alone.HEAD, "little") + index + codes)


def _replace(file: str, content: bytes) -> None:
    """At once, for another process may be reading it."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    temporary = f"{file}.{os.getpid()}"
    try:
        with open(temporary, "xb") as target:
            os.fchmod(target.fileno(), 0o644)  # as readable as the modules, whatever the umask
            target.write(content)
        os.rename(temporary, file)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise

"""Real DNS clients for tests: dig, and getaddrinfo of two C libraries."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from engines.unpack import Tree, Unavailable, read_tree

if TYPE_CHECKING:
    from conftest import Host

# What `getent hosts` does. Debian has no program that is linked with musl.
GETENT = """
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = 0;
    int error = getaddrinfo(words[1], 0, &hints, &found);
    if (error) return fprintf(stderr, "%s\\n", gai_strerror(error)), 2;
    for (char text[64]; found; found = found->ai_next) {
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
    return 0;
}
"""


def find_tree() -> Tree:
    try:
        return read_tree()
    except Unavailable as reason:
        pytest.skip(f"no DNS clients: {reason}")


@dataclass(frozen=True, slots=True)
class Dig:
    """bind9's dig, out of the unpacked packages."""

    tree: Tree

    def __call__(self, host: Host, *words: str) -> str:
        """What it prints; a question without any answer fails."""
        libraries = next((self.tree.path / "usr/lib").glob("*-linux-gnu"))
        program = self.tree.program("dig")
        options = ("+tries=1", "+time=5", *words)
        command = f"LD_LIBRARY_PATH={libraries} {program} {shlex.join(options)}"
        return host.run(command)

    def short(self, host: Host, *words: str) -> list[str]:
        return self(host, "+short", *words).splitlines()


def build_getent(tree: Tree, folder: Path) -> Path:
    """A static program that resolves with musl; skipped where there is no C compiler."""
    compiler = shutil.which("gcc")
    library = next((tree.path / "usr/lib").glob("*-linux-musl"), None)
    if compiler is None or library is None:
        pytest.skip("no C compiler, or no musl")
    source, program = folder / "getent.c", folder / "getent-musl"
    source.write_text(GETENT)
    headers = tree.path / "usr/include" / library.name
    parts = [library / name for name in ("crt1.o", "crti.o")]
    command: list[str | Path] = [
        compiler,
        "-static",
        "-nostdinc",
        "-isystem",
        headers,
        "-nostdlib",
        "-o",
        program,
    ]
    command += [*parts, source, library / "libc.a", "-lgcc", library / "crtn.o"]
    subprocess.run(command, check=True)
    return program

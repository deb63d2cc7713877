"""A lab to begin with."""

from __future__ import annotations

from pathlib import Path

from netplug.errors import Conflict, InputError

FILES = {
    "lab.yaml": """\
title: A cable
about: Two namespaces, a veth pair between them.
minutes: 15
needs: [veth]
topology: two-bare-hosts      # a shipped one, a file beside this one, or its keys
vary: {net: "10-250"}         # {{net}} below is 10, or another number for another seed
steps:
  - id: cable
    task: Join red and blue by a cable that carries 10.{{net}}.0.0/24.
    check:
      - addr: {node: red, address: "10.{{net}}.0.1/24"}
      - addr: {node: blue, address: "10.{{net}}.0.2/24"}
      - reach: {from: red, to: blue}
    hint: "`ip link add` with `type veth`; each end can be born in its namespace with `netns`."
""",
    "text.md": """\
# A cable

Why the student does this, in a few sentences.

## cable: Lay the cable

What to do, and what to look at. Do not print the command that is to be found.

### What happened

What the kernel did, shown once the step is passed.
""",
    "solution.sh": """\
## cable
ip link add to-blue netns red type veth peer name to-red netns blue
ip -n red address add 10.{{net}}.0.1/24 dev to-blue
ip -n blue address add 10.{{net}}.0.2/24 dev to-red
ip -n red link set to-blue up
ip -n blue link set to-red up
""",
}


def write_template(folder: str) -> list[Path]:
    """The files written. Raises Conflict where the folder holds something already."""
    place = Path(folder)
    if place.exists() and any(place.iterdir() if place.is_dir() else [place]):
        raise Conflict(f"{folder} is not empty", "a lab begins in a folder of its own")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (place / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written", error.strerror or "") from error
    return [place / name for name in FILES]

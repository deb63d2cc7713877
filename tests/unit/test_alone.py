"""One process alone: what it imports, and that its stand-ins do what the real modules do."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug import alone
from netplug.agent import build
from netplug.alone.lean import json as lean_json
from netplug.alone.make import ensure_bundle

PLANTED = f"import sys; sys.path += {build.PATHS!r}; from netplug import alone;"


@pytest.fixture(scope="module", autouse=True)
def bundle() -> None:
    assert ensure_bundle(build.PATHS) == ""


def run(code: str, **options: Any) -> str:
    """stdout of a fresh interpreter, started as engines start the plugin."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"{PLANTED}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert not done.returncode, done.stderr
    return str(done.stdout)


def test_a_stale_bundle_is_not_used(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.py", tmp_path / "bundle"
    source.write_text("x = 1")

    def write(version: int) -> None:
        stamps = {str(source): alone.stamp(str(source))}
        index = marshal.dumps((version, 3, stamps, {}, {}))
        copy.write_bytes(len(index).to_bytes(alone.HEAD, "little") + index + b"abc")

    def used() -> bool:
        found = alone.read_bundle(str(copy))
        if found is not None:
            os.close(found._opened)
        return found is not None

    write(sys.hexversion)
    assert used()
    source.write_text("x = 12")
    assert not used()
    write(sys.hexversion - 1)
    assert not used()
    write(sys.hexversion)
    assert used()
    for length in range(copy.stat().st_size):
        os.truncate(copy, copy.stat().st_size - 1)
        assert not used(), length
    copy.unlink()
    assert not used()


def test_pydantic_is_left_to_the_plain_modules() -> None:
    code = (
        "assert alone.plant()\n"
        "try:\n"
        "    import pydantic\n"
        "except alone.StartOver as reason:\n"
        "    print(reason)\n"
    )
    assert run(code) == "pydantic\n"


DESCRIBE = """
import dataclasses, json, sys
from importlib import import_module
for name in sys.argv[1:]: import_module(name)
kinds = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for name in sys.argv[1:]
    for kind in vars(sys.modules[name]).values()
    if isinstance(kind, type) and "__dataclass_fields__" in vars(kind)
}
found = {}
for name, kind in kinds.items():
    fields = [(f.name, f.type, f.init, f.compare, dict(f.metadata), repr(f.default)
               if f.default is not dataclasses.MISSING else "") for f in dataclasses.fields(kind)]
    blank = {f.name: None for f in dataclasses.fields(kind) if f.init}
    told = []
    try:
        one, other = kind(**blank), kind(*blank.values())
        told += [repr(one), one == other, one == None]
        told += [hash(one) == hash(other), dataclasses.replace(one) == one]
        changed = {name: 1 for name in list(blank)[:1]}
        other = dataclasses.replace(one, **changed)
        told += [other == one, repr(other)]
        try: setattr(one, fields[0][0], 1)
        except AttributeError as error: told += [type(error).__name__, str(error)]
        try: object.__setattr__(one, "no_such_slot", 1)
        except AttributeError: told += ["slots"]
    except Exception as error:
        told += [type(error).__name__]
    try: kind(no_such=1)
    except TypeError as error: told += [str(error)]
    defaults = kind.__init__.__defaults__
    found[name] = [fields, kind.__match_args__, told, len(defaults or ())]
print(json.dumps(found))
"""


def test_stand_in_for_dataclasses_makes_the_same_classes() -> None:
    """Every dataclass of the modules in the bundle, made by both."""
    content = alone.read_bundle()
    assert content is not None
    os.close(content._opened)
    names = sorted(
        name for name in content._modules if name.startswith("netplug.") and ".lean" not in name
    )
    command = f"import sys; sys.argv[1:] = {names!r}"
    real = json.loads(run(f"{command}\n{DESCRIBE}"))
    ours = json.loads(run(f"alone.plant()\n{command}\n{DESCRIBE}"))
    assert real.keys() == ours.keys()
    assert len(real) > 50
    for name, description in real.items():
        assert ours[name] == description, name


def test_stand_in_for_typing_reads_hints_back() -> None:
    """Whatever is stored reads back the same through both."""
    code = """
from netplug.codec import decode, encode, hints_of
from netplug.options import describe_type
from netplug.plugins.bridge_options import BridgeOptions
from netplug import model
import json
hints = {k: describe_type(v) for k, v in hints_of(BridgeOptions).items()}
samples = [
    (model.Attachment, {"network": "a", "container": "b", "ifname": "c",
        "addresses": ["10.0.0.1/8", "fd00::1"],
        "ports": [{"host_port": 1, "container_port": 2, "host_ip": "::1", "protocol": "udp"}]}),
    (model.Result, {"ips": [{"address": "10.0.0.1/8", "gateway": "10.0.0.2", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0", "mtu": 5}], "dns": {"search": ["x"]}}),
    (BridgeOptions, {"bridge": "br0", "is_gateway": True, "sysctl": {"net.a": "1"}}),
]
texts = [(repr(decode(kind, value)), encode(decode(kind, value))) for kind, value in samples]
print(json.dumps([hints, texts]))
"""
    assert run(f"alone.plant()\n{code}") == run(code)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_stand_in_for_json_writes_and_reads_the_same(value: Any) -> None:
    for options in ({}, {"indent": 4}, {"sort_keys": True}):
        text = json.dumps(value, **options)
        assert lean_json.dumps(value, **options) == text
        assert lean_json.loads(f" {text}\n") == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", '{"a"', "nul", "1 2", "[1] x", '"\\ud800', '"\x00"', "{1:2}"]
)
def test_stand_in_for_json_refuses_in_the_same_words(text: str) -> None:
    code = f"""
import json
try: json.loads({text!r})
except json.JSONDecodeError as error: print(error, error.lineno, error.colno)
"""
    assert run(f"alone.plant()\n{code}") == run(code) != ""


def test_stand_in_for_pathlib_turns_to_the_real_one(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
folder = Path({str(tmp_path)!r}, "a") / "b"
folder.mkdir(mode=0o700, parents=True)
(folder / "c").write_text("text")
print(f"{{folder}}", (folder / "c").read_text(), (folder / "c").name, folder.exists())
"""
    assert run(f"alone.plant()\n{code}") == f"{tmp_path}/a/b text c True\n"
    assert os.stat(tmp_path / "a/b").st_mode & 0o777 == 0o700

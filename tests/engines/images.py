"""A 2 MB image made by hand from a static busybox: no registry, no build tool.

The same layer is written in the two formats engines import: a docker-archive and an OCI layout.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

# 'localhost' keeps engines from asking a registry.
NAME = "localhost/netplug-test:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the names images use
FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var", "www")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
    "www/index.html": "ok\n",
}
WEB_SERVER = ("httpd", "-f", "-p", "80", "-h", "/www")


@dataclass(frozen=True, slots=True)
class Images:
    docker_archive: Path
    oci_layout: Path


def make_images(busybox: Path, folder: Path) -> Images:
    """Write both archives into `folder`."""
    layer = render_layer(busybox)
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "86400"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created_by": "netplug tests"}],
        }
    ).encode()
    images = Images(folder / "docker.tar", folder / "oci.tar")
    index = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    archive = {"manifest.json": encode(index), "config.json": config, "layer.tar": layer}
    images.docker_archive.write_bytes(render_tar(archive))
    images.oci_layout.write_bytes(render_tar(compute_oci_layout(config, layer)))
    return images


def compute_oci_layout(config: bytes, layer: bytes) -> dict[str, bytes]:
    """The files of an OCI image layout (image-spec 1.0): blobs named by their digest."""
    kind = "application/vnd.oci.image"
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": describe(config, f"{kind}.config.v1+json"),
            "layers": [describe(layer, f"{kind}.layer.v1.tar")],
        }
    )
    entry = describe(manifest, f"{kind}.manifest.v1+json")
    entry["annotations"] = {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": NAME,
    }
    blobs = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (config, layer, manifest)}
    return {
        "oci-layout": encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": encode({"schemaVersion": 2, "manifests": [entry]}),
        **blobs,
    }


def render_layer(busybox: Path) -> bytes:
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        add_file(tar, "bin/busybox", busybox.read_bytes(), mode=0o755)
        for applet in sorted({*applets.stdout.split()} - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, text in FILES.items():
            add_file(tar, name, text.encode())
    return buffer.getvalue()


def render_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            add_file(tar, name, content)
    return buffer.getvalue()


def add_file(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def describe(blob: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(blob), "size": len(blob)}


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def encode(value: object) -> bytes:
    return json.dumps(value).encode()

"""OCI layouts and `docker save`: refused in words, or layers that lie inside the directory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.sources import oci

COUNT = 5000
TOKENS = (
    b'{"manifests":[{"digest":"@1","size":1}]}', b'"mediaType":', b'"digest":"@2"', b'"layers":[', b'"config":',
    b'"platform":{"architecture":"amd64"}', b'"annotations":null', b"sha256:", b'"size":-1', b"../", b"@1", b"@2",
    b"@3", b"{}", b"[]", b"null", b"1e400", b'"os":"linux"', b"\n--\n",
)  # fmt: skip
ROOM = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


def one(data: bytes) -> None:
    """Documents between lines of `--`: index, manifest, configuration, ...; `@2` is the digest of the third."""
    how, documents = data[0] if data else 0, data[1:].split(b"\n--\n")[:5]
    with tempfile.TemporaryDirectory(dir=ROOM) as name:
        at = Path(name)
        (at / "blobs/sha256").mkdir(parents=True)
        digests: dict[int, bytes] = {}
        for number in range(len(documents) - 1, -1, -1):
            text = documents[number]
            for later, digest in digests.items():
                text = text.replace(b"@%d" % later, b"sha256:" + digest)
            digests[number] = hashlib.sha256(text).hexdigest().encode()
            (at / "blobs/sha256" / digests[number].decode()).write_bytes(text)
            documents[number] = text
        saved = how & 1
        (at / ("manifest.json" if saved else "index.json")).write_bytes(documents[0])
        if not saved:
            (at / "oci-layout").write_text("{}")
        try:
            layers = oci.layers(at, "a:1" if how & 2 else "", "linux/amd64" if how & 4 else "")
        except WwfastError:
            return
        assert all(layer.path.resolve().is_relative_to(at.resolve()) for layer in layers)

"""Images from a real registry, filled by skopeo and umoci: what arrives, and what happens when it does not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from support.oci import Layout, Registry, facts, small_tree, tar_of, tar_with, unreliable
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images.sources.importing import import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system.run import run

pytestmark = [pytest.mark.root, pytest.mark.slow]

PLAIN = Options(plain_http=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("tree") / "rootfs")


@pytest.fixture(scope="module")
def layout(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Tag `v1` has one layer, `v2` changes it by a second, `multi` is an index for two architectures."""
    made = Layout(tmp_path_factory.mktemp("oci") / "layout")
    base = tar_of(tree)
    made.tag("v1", made.image([base]))
    made.tag("v2", made.image([base, tar_with(("srv/.wh.away", b""), ("srv/new", b"two"))]))
    arm = made.image([base, tar_with(("etc/arch", b"arm64"))], "arm64")
    amd = made.image([base, tar_with(("etc/arch", b"amd64"))], "amd64")
    made.tag("multi", made.index({"arm64": arm, "amd64": amd}))
    return made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.stop()


@pytest.fixture
def own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.stop()


def rootfs(paths: Paths, name: str) -> Path:
    return ImageStore(paths).get(name).rootfs


def test_image_from_a_registry_by_tag_is_the_tree(paths: Paths, tree: Path, layout: Layout, registry: Registry) -> None:
    import_image(paths, registry.push(layout, "v1"), "v1", PLAIN)
    assert facts(rootfs(paths, "v1")) == facts(tree)
    import_image(paths, registry.push(layout, "v2"), "v2", PLAIN)
    changed = facts(rootfs(paths, "v2"))
    assert "srv/away" not in changed
    assert (rootfs(paths, "v2") / "srv/new").read_bytes() == b"two"
    assert {k: v for k, v in changed.items() if k != "srv/new"} == {
        k: v for k, v in facts(tree).items() if k != "srv/away"
    }


def test_image_of_many_layers_from_a_registry_is_the_layout(paths: Paths, tree: Path, registry: Registry) -> None:
    made = Layout(paths.root / "many")
    big = [tar_with((f"srv/part{n}", bytes([n]) * 3_000_000), ("srv/last", b"%d" % n)) for n in range(8)]
    made.tag("many", made.image([tar_of(tree), *big, big[3], tar_with(("srv/.wh.part5", b""))]))
    import_image(paths, registry.push(made, "many"), "remote", PLAIN)
    import_image(paths, f"oci:{made.directory}:many", "local", PLAIN)
    found = facts(rootfs(paths, "remote"))
    assert found == facts(rootfs(paths, "local"))
    assert "srv/part4" in found
    assert "srv/part5" not in found
    assert (rootfs(paths, "remote") / "srv/last").read_bytes() == b"3", "the layer that comes twice is applied last"


def test_image_from_a_registry_by_digest(paths: Paths, layout: Layout, registry: Registry) -> None:
    reference = registry.push(layout, "v2")
    raw = run(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", reference]).stdout
    digest = raw.decode().strip()
    import_image(paths, f"{reference.rpartition(':')[0]}@{digest}", "d", PLAIN)
    assert (rootfs(paths, "d") / "srv/new").exists()
    with pytest.raises(WwfastError, match="cannot fetch"):
        import_image(paths, f"{reference.rpartition(':')[0]}@sha256:{'0' * 64}", "e", PLAIN)
    assert ImageStore(paths).names() == ["d"]


def test_image_that_the_policy_of_signatures_refuses_is_not_imported(
    paths: Paths, layout: Layout, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W-22."""
    reference = registry.push(layout, "v1")
    monkeypatch.setenv("HOME", str(tmp_path))
    policy = tmp_path / ".config/containers/policy.json"
    policy.parent.mkdir(parents=True)
    accept, reject = '[{"type": "insecureAcceptAnything"}]', '[{"type": "reject"}]'
    for text in (
        f'{{"default": {reject}}}',
        f'{{"default": {accept}, "transports": {{"docker": {{"{registry.host}": {reject}}}}}}}',
    ):
        policy.write_text(text)
        with pytest.raises(WwfastError, match="rejected by policy"):
            import_image(paths, reference, "x", PLAIN)
    # The rule for this image counts, not the default: it comes by the way that reads the policy, layers and all.
    policy.write_text(f'{{"default": {reject}, "transports": {{"docker": {{"{registry.host}": {accept}}}}}}}')
    import_image(paths, registry.push(layout, "v2"), "x", PLAIN)
    assert (rootfs(paths, "x") / "srv/new").read_bytes() == b"two"
    policy.write_text(f'{{"default": {accept}}}')
    import_image(paths, reference, "y", PLAIN)
    policy.write_text("{")
    with pytest.raises(WwfastError, match=r"policy\.json cannot be read"):
        import_image(paths, reference, "z", PLAIN)


def test_image_by_a_skopeo_that_is_too_old_says_so(
    paths: Paths, layout: Layout, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 1.5 it has no proxy: the real one is asked for a command that it does not know either."""
    reference = registry.push(layout, "v1")
    old = tmp_path / "bin/skopeo"
    old.parent.mkdir()
    rename = 'for word; do shift; set -- "$@" "${word#experimental-}"; done'
    old.write_text(f'#!/bin/sh\n{rename}\nexec {which("skopeo")} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(WwfastError) as caught:
        import_image(paths, reference, "x", PLAIN)
    assert caught.value.message == f"cannot fetch {reference}: Unrecognized command `skopeo image-proxy`"
    assert "older than 1.5" in (caught.value.hint or "")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_image_of_an_index_is_that_of_the_platform(paths: Paths, layout: Layout, registry: Registry, arch: str) -> None:
    options = Options(plain_http=True, platform=f"linux/{arch}")
    import_image(paths, registry.push(layout, "multi", every=True), "remote", options)
    import_image(paths, f"oci:{layout.directory}:multi", "local", options)
    assert (rootfs(paths, "remote") / "etc/arch").read_text() == arch
    assert facts(rootfs(paths, "remote")) == facts(rootfs(paths, "local"))


def test_image_for_a_platform_that_is_not_there(paths: Paths, layout: Layout, registry: Registry) -> None:
    options = Options(plain_http=True, platform="riscv64")
    with pytest.raises(WwfastError, match="cannot fetch"):
        import_image(paths, registry.push(layout, "multi", every=True), "x", options)
    with pytest.raises(NotFoundError, match="riscv64"):
        import_image(paths, f"oci:{layout.directory}:multi", "x", options)
    with pytest.raises(NotFoundError, match="not for linux/arm64"):
        import_image(paths, f"oci:{layout.directory}:v1", "x", Options(platform="arm64"))


def test_image_from_a_registry_that_wants_a_password(
    paths: Paths, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    made = Registry(home, secret=True)
    try:
        reference = made.push(layout, "v1")
        for options in (PLAIN, Options(plain_http=True, username="user", password="wrong")):
            with pytest.raises(WwfastError) as caught:
                import_image(paths, reference, "x", options)
            assert "--password-stdin" in (caught.value.hint or "")
        import_image(paths, reference, "x", Options(plain_http=True, username="user", password="secret"))
        # The same by ~/.docker/config.json.
        (home / ".docker").mkdir()
        auth = "dXNlcjpzZWNyZXQ="
        (home / ".docker/config.json").write_text(f'{{"auths": {{"{made.host}": {{"auth": "{auth}"}}}}}}')
        import_image(paths, reference, "y", PLAIN)
        assert ImageStore(paths).names() == ["x", "y"]
    finally:
        made.stop()


@pytest.mark.parametrize("damage", ["truncated", "wrong"])
def test_image_layer_damaged_at_the_registry_leaves_the_old_image(
    paths: Paths, tree: Path, layout: Layout, own_registry: Registry, damage: str
) -> None:
    import_image(paths, str(tree), "x", PLAIN)
    before = facts(rootfs(paths, "x"))
    reference = own_registry.push(layout, "v1")
    layer = max(own_registry.storage.rglob("data"), key=lambda file: file.stat().st_size)
    data = bytearray(layer.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    layer.write_bytes(data)
    for flag in ("force", "update"):
        with pytest.raises(WwfastError):
            import_image(paths, reference, "x", PLAIN, **{flag: True})
    assert facts(rootfs(paths, "x")) == before
    assert sorted(entry.name for entry in paths.chroots.iterdir()) == ["x"]


def test_image_from_a_registry_that_stalls_is_given_up(
    paths: Paths, tree: Path, layout: Layout, own_registry: Registry
) -> None:
    import_image(paths, str(tree), "x", PLAIN)
    before = facts(rootfs(paths, "x"))
    own_registry.push(layout, "v1")
    begun = time.monotonic()
    options = Options(plain_http=True, stall=2)
    with unreliable(own_registry.port, 200_000, then="stall") as port:
        reference = f"docker://127.0.0.1:{port}/image:v1"
        with pytest.raises(WwfastError, match="sent nothing for 2 s"):
            import_image(paths, reference, "x", options, force=True)
    assert time.monotonic() - begun < 60
    assert facts(rootfs(paths, "x")) == before


def test_image_from_a_registry_that_dies_half_way_comes_with_the_next_try(
    paths: Paths, tree: Path, layout: Layout, own_registry: Registry
) -> None:
    own_registry.push(layout, "v1")
    with unreliable(own_registry.port, 200_000, then="die") as port, pytest.raises(WwfastError, match="cannot fetch"):
        import_image(paths, f"docker://127.0.0.1:{port}/image:v1", "x", PLAIN)
    assert ImageStore(paths).names() == []
    import_image(paths, f"docker://{own_registry.host}/image:v1", "x", PLAIN)
    assert facts(rootfs(paths, "x")) == facts(tree)


def test_image_layers_are_fetched_once_and_a_damaged_one_is_fetched_again(
    paths: Paths, layout: Layout, own_registry: Registry
) -> None:
    reference = own_registry.push(layout, "v1")
    import_image(paths, reference, "a", PLAIN)
    cached = max((paths.cache / "layers/blobs").rglob("*"), key=lambda file: file.stat().st_size)
    data = bytearray(cached.read_bytes())
    data[-1] ^= 0xFF
    cached.write_bytes(data)
    with pytest.raises(WwfastError, match="damaged"):
        import_image(paths, reference, "b", PLAIN)
    import_image(paths, reference, "b", PLAIN)
    # Without the layer at the registry only the cache can have it.
    max(own_registry.storage.rglob("data"), key=lambda file: file.stat().st_size).unlink()
    import_image(paths, reference, "c", PLAIN)
    assert facts(rootfs(paths, "a")) == facts(rootfs(paths, "b")) == facts(rootfs(paths, "c"))


def test_image_made_by_umoci_is_what_umoci_unpacks(paths: Paths, tree: Path, tmp_path: Path) -> None:
    store, bundle = tmp_path / "store", tmp_path / "bundle"
    run(["umoci", "init", "--layout", store], package="umoci")
    run(["umoci", "new", "--image", f"{store}:v1"])
    run(["umoci", "unpack", "--image", f"{store}:v1", bundle])
    run(["cp", "-a", f"{tree}/.", bundle / "rootfs"])
    run(["umoci", "repack", "--image", f"{store}:v1", bundle])
    shutil.rmtree(bundle / "rootfs/srv/deep")
    (bundle / "rootfs/usr/bin/su").unlink()
    (bundle / "rootfs/srv/deep").write_text("now a file")
    run(["umoci", "repack", "--image", f"{store}:v1", bundle])
    run(["umoci", "unpack", "--image", f"{store}:v1", tmp_path / "peer"])
    import_image(paths, f"oci:{store}:v1", "x", PLAIN)

    def but_what_umoci_cannot(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
        return {name: fact for name, fact in found.items() if name != "."}

    assert but_what_umoci_cannot(facts(rootfs(paths, "x"))) == but_what_umoci_cannot(facts(tmp_path / "peer/rootfs"))


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("pack", [[], ["gzip"], ["zstd"]], ids=lambda words: words[0] if words else "plain")
def test_image_archives_of_containers(paths: Paths, layout: Layout, tmp_path: Path, form: str, pack: list[str]) -> None:
    file = tmp_path / "saved.tar"
    run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout.directory}:v2", f"{form}:{file}:image:v2"])
    if pack:
        packed = run([*pack, "-c", file]).stdout
        file.write_bytes(packed)
    import_image(paths, str(file), "plain", PLAIN)
    import_image(paths, f"{form}:{file}:image:v2" if form == "oci-archive" else f"file://{file}", "named", PLAIN)
    assert (rootfs(paths, "plain") / "srv/new").read_bytes() == b"two"
    assert facts(rootfs(paths, "plain")) == facts(rootfs(paths, "named"))

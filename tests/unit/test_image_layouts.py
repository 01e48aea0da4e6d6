"""Layouts and archives of several container images: one is chosen by name, or all are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.oci import Layout, tar_with
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images.sources import oci

FULL = "io.containerd.image.name"
TAG = "org.opencontainers.image.ref.name"


def image(layout: Layout, content: str, arch: str = "amd64") -> dict[str, object]:
    return layout.image([tar_with(("which", content.encode()))], arch)


def write(layout: Layout, *manifests: dict[str, object]) -> None:
    (layout.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def chosen(layout: Layout, reference: str = "", wanted: str = "amd64") -> str:
    """Digest of the only layer."""
    (layer,) = oci.layers(layout.directory, reference, wanted)
    return layer.digest


def named(descriptor: dict[str, object], full: str, tag: str) -> dict[str, object]:
    return {**descriptor, "annotations": {FULL: full, TAG: tag}}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.mark.parametrize("name", ["beta:latest", "beta", "docker.io/library/beta:latest", "docker.io/library/beta"])
def test_image_of_several_repositories_is_chosen_by_its_name(layout: Layout, name: str) -> None:
    alpha, beta = image(layout, "alpha"), image(layout, "beta")
    only = Layout(layout.directory.parent / "only")
    only.tag("x", image(only, "beta"))
    write(
        layout,
        named(alpha, "docker.io/library/alpha:latest", "latest"),
        named(beta, "docker.io/library/beta:latest", "latest"),
    )
    assert chosen(layout, name) == chosen(only)
    assert chosen(layout, str(beta["digest"])) == chosen(only)


@pytest.mark.parametrize("reference", ["", "latest", "gamma"])
def test_image_that_is_not_clear_is_refused_with_all_names(layout: Layout, reference: str) -> None:
    write(
        layout,
        named(image(layout, "alpha"), "docker.io/library/alpha:latest", "latest"),
        named(image(layout, "beta"), "docker.io/library/beta:latest", "latest"),
    )
    with pytest.raises(NotFoundError) as caught:
        oci.layers(layout.directory, reference, "amd64")
    assert "alpha:latest, beta:latest" in str(caught.value.hint)
    assert "docker-archive:FILE:NAME" in str(caught.value.hint)
    assert "platform" not in caught.value.message


def test_image_with_two_tags_is_one_image(layout: Layout) -> None:
    one = image(layout, "x")
    for tag in ("1.0", "latest"):
        layout.tag(tag, one)
    assert chosen(layout) == chosen(layout, "1.0") == chosen(layout, "latest")


def test_image_beside_its_bill_of_materials_is_the_only_one(layout: Layout) -> None:
    one = image(layout, "x")
    bill = layout.blob(b'{"layers": [], "artifactType": "application/spdx+json"}', "application/spdx+json")
    write(layout, one, {**bill, "artifactType": "application/spdx+json"})
    assert chosen(layout)


def test_images_without_names_are_told_by_their_digests(layout: Layout) -> None:
    first, second = image(layout, "x"), image(layout, "y")
    write(layout, first, second)
    with pytest.raises(NotFoundError) as caught:
        oci.layers(layout.directory, "", "amd64")
    assert str(first["digest"]) in str(caught.value.hint)
    assert chosen(layout, str(second["digest"]))


def test_image_for_another_platform_is_told_by_what_there_is(layout: Layout) -> None:
    layout.tag("v1", layout.index({"arm64": image(layout, "x", "arm64"), "s390x": image(layout, "y", "s390x")}))
    assert chosen(layout, wanted="arm64")
    with pytest.raises(NotFoundError, match="no image for linux/amd64") as caught:
        oci.layers(layout.directory, "", "amd64")
    assert "linux/arm64, linux/s390x" in str(caught.value.hint)


def test_image_indexes_in_each_other_have_an_end(layout: Layout) -> None:
    inner = image(layout, "x")
    for depth in range(20):
        inner = layout.index({"amd64": inner})
        if depth == 3:
            layout.tag("fine", inner)
    layout.tag("deep", inner)
    assert chosen(layout, "fine")
    with pytest.raises(WwfastError, match="indexes in each other"):
        oci.layers(layout.directory, "deep", "amd64")


def test_image_index_that_names_itself_is_refused(layout: Layout) -> None:
    """No document holds its own digest, so whatever leads in a circle is damaged."""
    kind = "application/vnd.oci.image.index.v1+json"
    digest = "0" * 64
    itself = {"mediaType": kind, "digest": f"sha256:{digest}", "size": 9, "platform": {"architecture": "amd64"}}
    (layout.directory / "blobs/sha256" / digest).write_text(json.dumps({"manifests": [itself]}))
    write(layout, itself)
    with pytest.raises(WwfastError, match="is damaged"):
        oci.layers(layout.directory, "", "amd64")


def saved(directory: Path, *images: tuple[str, list[str]]) -> Path:
    directory.mkdir()
    for name, _ in images:
        (directory / f"{name}.tar").write_bytes(tar_with(("which", name.encode())))
        (directory / f"{name}.json").write_text('{"architecture": "amd64", "os": "linux"}')
    manifest = [{"Config": f"{name}.json", "Layers": [f"{name}.tar"], "RepoTags": tags} for name, tags in images]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.mark.parametrize("name", ["site/x:1", "docker.io/site/x:1"])
@pytest.mark.parametrize("tag", ["site/x:1", "docker.io/site/x:1"])
def test_image_of_an_old_archive_is_chosen_with_and_without_the_registry(tmp_path: Path, name: str, tag: str) -> None:
    directory = saved(tmp_path / "saved", ("x", [tag]), ("y", ["site/y:1"]))
    (layer,) = oci.layers(directory, name, "amd64")
    assert layer.path.name == "x.tar"


@pytest.mark.parametrize("reference", ["", "site/z:1"])
def test_image_of_an_old_archive_that_is_not_clear_is_refused_with_all_names(tmp_path: Path, reference: str) -> None:
    directory = saved(tmp_path / "saved", ("x", ["site/x:1", "site/x:latest"]), ("y", ["site/y:1"]))
    with pytest.raises(NotFoundError) as caught:
        oci.layers(directory, reference, "amd64")
    assert "site/x:1, site/x:latest, site/y:1" in str(caught.value.hint)

"""Laying out inputs: readable for the container's user, keys for nobody else, paths that work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from local_imager.build.container import ContainerUser
from local_imager.build.staging import (
    MAX_KEY_BYTES,
    StagedInputs,
    locate_input,
    render_document,
    stage_inputs,
)
from local_imager.errors import BuildError, InputError
from local_imager.oci.layout import Layout
from local_imager.profile.model import BaseFile, ImageInput, KeyFile, TarInput
from tests.unit.build.samples import (
    EXTENSION,
    boot_files,
    made_up_images,
    plan,
    real_images,
    secure_plan,
)

CALLER = ContainerUser("0:0", os.geteuid(), os.getegid())
STRANGER = ContainerUser("65532:65532", 65532, 65532)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


def stage(layout: Layout, tmp_path: Path, *, user: ContainerUser = STRANGER) -> StagedInputs:
    files = boot_files(tmp_path / "boot")
    return stage_inputs(plan(), real_images(layout), layout, files, None, tmp_path / "stage", user)


def test_every_path_of_the_profile_is_there(layout: Layout, tmp_path: Path) -> None:
    staged = stage(layout, tmp_path)
    profile = yaml.safe_load(staged.profile)
    paths = [
        profile["input"]["kernel"]["path"],
        profile["input"]["initramfs"]["path"],
        profile["input"]["systemExtensions"][0]["tarballPath"],
        profile["input"]["systemExtensions"][1]["ociPath"],
    ]
    for path in paths:
        assert ":" not in path
        assert (staged.input_dir / path.removeprefix("/in/")).exists()
    assert (staged.input_dir / "schematic/0123-true.tar").read_bytes() == b"tar bytes"
    assert staged.key_dir is None


def test_another_user_can_read_it_and_the_originals_stay_as_they_are(
    layout: Layout, tmp_path: Path
) -> None:
    files = boot_files(tmp_path / "boot")
    files["vmlinuz"].chmod(0o600)
    staged = stage_inputs(
        plan(), real_images(layout), layout, files, None, tmp_path / "stage", STRANGER
    )
    for folder, _, names in os.walk(staged.input_dir):
        assert os.stat(folder).st_mode & 0o005 == 0o005
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & stat.S_IROTH
    assert stat.S_IMODE(files["vmlinuz"].stat().st_mode) == 0o600
    # What could be read already is linked, not copied.
    kept = staged.input_dir / "base/amd64/initramfs.xz"
    assert kept.stat().st_ino == files["initramfs.xz"].stat().st_ino


def test_a_missing_boot_file_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no initramfs\.xz for amd64"):
        stage_inputs(
            plan(),
            real_images(layout),
            layout,
            {"vmlinuz": boot_files(tmp_path / "boot")["vmlinuz"]},
            None,
            tmp_path / "stage",
            CALLER,
        )


def secure(layout: Layout, tmp_path: Path, keys: Path | None) -> StagedInputs:
    files = boot_files(tmp_path / "boot")
    return stage_inputs(
        secure_plan(), real_images(layout), layout, files, keys, tmp_path / "stage", CALLER
    )


def test_keys_are_copies_for_the_containers_user_alone(layout: Layout, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("uki-signing-key.pem", "uki-signing-cert.pem", "unrelated.pem"):
        (keys / name).write_text(name)
        (keys / name).chmod(0o600)
    staged = secure(layout, tmp_path, keys)
    assert staged.key_dir is not None
    assert sorted(os.listdir(staged.key_dir)) == ["uki-signing-cert.pem", "uki-signing-key.pem"]
    assert stat.S_IMODE(staged.key_dir.stat().st_mode) == 0o700
    for path in staged.key_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert path.read_text() == path.name
    assert b"/secureboot/uki-signing-key.pem" in staged.profile


def test_missing_keys_are_an_input_error_with_a_way_out(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        secure(layout, tmp_path, None)
    assert "keygen" in caught.value.hint
    (tmp_path / "keys").mkdir()
    with pytest.raises(InputError) as caught:
        secure(layout, tmp_path, tmp_path / "keys")
    assert caught.value.source.endswith("uki-signing-key.pem")


def test_a_key_of_megabytes_is_no_key(layout: Layout, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "uki-signing-key.pem").write_bytes(bytes(MAX_KEY_BYTES + 1))
    with pytest.raises(InputError, match="too large"):
        secure(layout, tmp_path, keys)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\nb", "x" * 200])
def test_names_cannot_leave_their_directory(name: str) -> None:
    for item in (TarInput(name, b""), BaseFile("amd64", name), KeyFile(name)):
        with pytest.raises(BuildError):
            locate_input(item, {})


def test_an_image_that_was_not_verified_has_no_path() -> None:
    with pytest.raises(BuildError, match="no verified image"):
        locate_input(ImageInput(EXTENSION), {})
    found = locate_input(ImageInput(EXTENSION), made_up_images())
    assert found.startswith("/in/images/amd64-")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_a_rendered_document_means_the_same_to_a_yaml_parser(document: dict[str, object]) -> None:
    rendered = render_document(document)
    assert rendered.isascii()
    assert yaml.safe_load(rendered) == document


@pytest.mark.parametrize("text", ["on", "0o17", "12:30", "1e3", "~", "---", "a: b", "\u2028", "😀"])
def test_texts_stay_texts(text: str) -> None:
    assert yaml.safe_load(render_document({"value": text})) == {"value": text}

"""The build key knows everything that changes the bytes; the record shows no secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from local_imager.build import record
from local_imager.build.record import (
    build_key,
    build_record,
    initramfs_key,
    masked_profile,
    secret_texts,
)
from local_imager.build.request import EngineInfo
from local_imager.errors import BuildError
from local_imager.oci.model import Digest
from local_imager.profile.handed import initramfs_plan
from local_imager.profile.model import Profile, TarInput
from tests.unit.build.samples import (
    BASE,
    BUILDER,
    EXTENSION,
    disk_plan,
    document,
    made_up_images,
    plan,
    secure_plan,
    verified,
    without_extensions,
)

IMAGES = made_up_images()
ENGINE = EngineInfo("docker", "28", "1.51", "linux", "amd64", "classic")


def key(entry: Any = None, images: Any = None, **more: Any) -> str:
    options: dict[str, Any] = {"epoch": 1, "exact": False, **more}
    return build_key(entry or plan(), images or IMAGES, **options)


def test_the_same_build_has_the_same_key() -> None:
    assert key() == key()
    assert len(key()) == 64 and int(key(), 16)


def other(requirement: Any) -> Any:
    return {**IMAGES, requirement: verified(requirement, Digest.of(b"other"))}


def changed_profile(**more: Any) -> Any:
    return plan(profile=Profile(document(**more)))


def with_tar(content: bytes) -> Any:
    changed = document()
    changed["input"] = {
        **changed["input"],
        "systemExtensions": [TarInput("0123-true.tar", content)],
    }
    return plan(profile=Profile(changed))


DIFFERENT = {
    "builder": key(images=other(BUILDER)),
    "base": key(images=other(BASE)),
    "extension": key(images=other(EXTENSION)),
    "epoch": key(epoch=2),
    # A kernel's profile is the same for all schematics; what is kept has the name of one.
    "schematic": key(plan(schematic_id="cd" * 32)),
    "argument": key(changed_profile(customization={"extraKernelArgs": ["loud"]})),
    "version": key(changed_profile(version="v1.12.0")),
    "tar": key(with_tar(b"one")),
    "another tar": key(with_tar(b"two")),
    "disk": key(disk_plan("metal-amd64.raw")),
    "compressed disk": key(disk_plan("metal-amd64.raw.zst", out_format=".zst")),
    "exact disk": key(disk_plan("metal-amd64.raw"), exact=True),
}


def test_whatever_changes_the_bytes_changes_the_key() -> None:
    assert len({key(), *DIFFERENT.values()}) == len(DIFFERENT) + 1


def test_where_the_images_came_from_does_not_matter() -> None:
    moved = {
        requirement: replace(image, policy="another", signer="another key")
        for requirement, image in IMAGES.items()
    }
    assert key(images=moved) == key()


def test_exact_means_something_where_we_have_steps_of_our_own() -> None:
    assert key(exact=True) != key()
    kernel = plan("kernel-amd64", profile=Profile(document("kernel")))
    bare = plan(profile=Profile(without_extensions(document())))
    for entry in (kernel, bare):
        assert key(entry, exact=True) == key(entry)


def test_results_of_the_first_recipe_are_not_taken_for_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = plan("kernel-amd64", profile=Profile(document("kernel")))
    now = [key(), key(disk_plan("metal-amd64.raw")), key(exact=True), key(kernel)]
    monkeypatch.setattr(record, "CONVERSION_RECIPE", 1)
    then = [key(), key(disk_plan("metal-amd64.raw")), key(exact=True), key(kernel)]
    assert [one == other for one, other in zip(now, then, strict=True)] == [
        *(False, False),
        *(True, True),
    ]


def test_another_library_that_packs_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = without_extensions(document())

    def disk(out_format: str) -> Any:
        return disk_plan(f"metal-amd64.raw{out_format}", out_format=out_format or "raw")

    def keys() -> dict[str, str]:
        return {
            "uki": key(),
            "uki, exact": key(exact=True),
            "uki without extensions": key(plan(profile=Profile(bare))),
            "kernel": key(plan("kernel-amd64", profile=Profile(document("kernel")))),
            "initramfs": initramfs_key(initramfs_plan(plan()), IMAGES, epoch=1),
            **{one or "raw": key(disk(one)) for one in ("", ".zst", ".gz", ".tar.gz", ".xz")},
        }

    def changed() -> set[str]:
        return {name for name, one in keys().items() if one != before[name]}

    before = keys()
    monkeypatch.setattr(record, "zstd_version", lambda: "zstd 9")
    assert changed() == {"uki", "initramfs", ".zst"}
    before = keys()
    monkeypatch.setattr(record, "zlib_version", lambda: "zlib 9")
    assert changed() == {".gz", ".tar.gz"}


def test_the_key_of_an_initramfs_is_of_its_own() -> None:
    packing = initramfs_plan(plan())
    found = {
        initramfs_key(packing, IMAGES, epoch=1),
        initramfs_key(packing, IMAGES, epoch=2),
        initramfs_key(packing, other(BUILDER), epoch=1),
        initramfs_key(packing, other(BASE), epoch=1),
        initramfs_key(packing, other(EXTENSION), epoch=1),
        key(packing),
    }
    assert len(found) == 6


def test_keys_count_by_their_content() -> None:
    digests = {"uki-signing-key.pem": "11", "uki-signing-cert.pem": "22"}
    one = key(secure_plan(), key_digests=digests)
    assert one != key(secure_plan(), key_digests={**digests, "uki-signing-key.pem": "33"})
    with pytest.raises(BuildError, match=r"uki-signing-key\.pem"):
        key(secure_plan())


def test_a_missing_image_is_said() -> None:
    with pytest.raises(BuildError, match="hello"):
        key(images={BUILDER: IMAGES[BUILDER], BASE: IMAGES[BASE]})
    with pytest.raises(BuildError, match="builder"):
        key(images={BASE: IMAGES[BASE], EXTENSION: IMAGES[EXTENSION]})


SECRET = {
    "customization": {
        "embeddedMachineConfiguration": "machine:\n  token: battery-staple\n",
        "extraKernelArgs": ["password=correct-horse"],
        "metaContents": [{"key": 10, "value": "staple-battery"}],
    },
    "overlay": {"name": "x", "options": {"password": "horse-correct"}},
}
WORDS = ("battery-staple", "correct-horse", "staple-battery", "horse-correct")


def test_a_record_shows_no_secret_and_can_be_read_as_json() -> None:
    entry = plan(holds_secrets=True)
    record = build_record(
        entry,
        IMAGES,
        engine=ENGINE,
        profile={**SECRET, "arch": "amd64"},
        runs=[{"exit_code": 0}],
        started_at="2026-01-01T00:00:00+00:00",
        duration_s=1.23456,
        exact=False,
        epoch=1,
        workers=3,
    )
    text = json.dumps(record)
    assert not any(word in text for word in WORDS)
    assert record["builder"]["signer"] == "test key"
    assert record["surroundings"]["workers"] == 3
    assert {entry["role"] for entry in record["inputs"]} == {"builder", "base", "extension"}
    assert record["profile"]["arch"] == "amd64"


def test_an_embedded_configuration_is_masked_even_without_a_warning() -> None:
    masked = str(masked_profile(SECRET, holds_secrets=False))
    assert "battery-staple" not in masked
    assert "correct-horse" in masked


def test_the_profile_itself_is_left_alone() -> None:
    before = json.dumps(SECRET)
    masked_profile(SECRET, holds_secrets=True)
    assert json.dumps(SECRET) == before


def test_all_secret_texts_are_known_to_the_log() -> None:
    found = "\n".join(secret_texts(SECRET, holds_secrets=True))
    assert all(word in found for word in WORDS)
    assert secret_texts({"customization": {}}, holds_secrets=True) == ()

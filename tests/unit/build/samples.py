"""Plans, images and a layout for the tests of the build, all made up but well-formed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from local_imager.build.bench import AssetJob
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest, Reference
from local_imager.profile.model import (
    BaseFile,
    BuildPlan,
    ImageInput,
    KeyFile,
    Profile,
    Requirement,
    TarInput,
)
from local_imager.profile.version import TalosVersion
from local_imager.sources.verify import VerifiedImage
from tests.images import put_image

V1_13 = TalosVersion(1, 13, 0)
BUILDER = Requirement("builder", "siderolabs/imager", "v1.13.0")
BASE = Requirement("base", "siderolabs/imager", "v1.13.0", arch="amd64")
EXTENSION = Requirement("extension", "siderolabs/hello", "v1.13.0", arch="amd64")
SCHEMATIC_TAR = TarInput("0123-true.tar", b"tar bytes")


def verified(requirement: Requirement, digest: Digest) -> VerifiedImage:
    """An image that passed a gate which is not part of the test."""
    reference = Reference.parse(f"registry.example/{requirement.name}:{requirement.tag}")
    return VerifiedImage(reference, digest, "test policy", "test key", {"form": "test"})


def made_up_images() -> dict[Requirement, VerifiedImage]:
    """Images of which only the digests exist."""
    return {
        requirement: verified(requirement, Digest.of(requirement.role.encode()))
        for requirement in (BUILDER, BASE, EXTENSION)
    }


def real_images(layout: Layout) -> dict[Requirement, VerifiedImage]:
    """Images that lie in the layout."""
    return {
        item: verified(item, put_image(layout, "amd64", {item.role: b"content"}).digest)
        for item in (BUILDER, BASE, EXTENSION)
    }


def document(kind: str = "uki", **more: Any) -> dict[str, Any]:
    """A profile document with every sort of input."""
    return {
        "arch": "amd64",
        "platform": "metal",
        "secureboot": False,
        "version": "v1.13.0",
        "customization": {"extraKernelArgs": ["quiet"]},
        "input": {
            "kernel": {"path": BaseFile("amd64", "vmlinuz")},
            "initramfs": {"path": BaseFile("amd64", "initramfs.xz")},
            "systemExtensions": [
                {"tarballPath": SCHEMATIC_TAR},
                {"imageRef": "", "ociPath": ImageInput(EXTENSION)},
            ],
        },
        "output": {"kind": kind, "outFormat": "raw"},
        **more,
    }


def without_extensions(document: dict[str, Any]) -> dict[str, Any]:
    """The document without extensions, so that nothing is packed into its initramfs."""
    given = {key: value for key, value in document["input"].items() if key != "systemExtensions"}
    return {**document, "input": given}


def plan(asset: str = "metal-amd64-uki.efi", **more: Any) -> BuildPlan:
    """The plan of a UKI; fields may be given by name."""
    plain = BuildPlan(
        schematic_id="ab" * 32,
        version=V1_13,
        asset=asset,
        profile=Profile(document()),
        requirements=(BUILDER, BASE, EXTENSION),
        builder=V1_13,
        resolved=True,
        output_name=asset,
    )
    return replace(plain, **more)


def disk_plan(
    asset: str, disk_format: str = "raw", out_format: str = "raw", options: str = "", **more: Any
) -> BuildPlan:
    """The plan of a disk image in some format, without extensions: one run makes it."""
    image_options: dict[str, Any] = {"diskFormat": disk_format, "diskSize": 4 << 20}
    if options:
        image_options["diskFormatOptions"] = options
    output = {"kind": "image", "outFormat": out_format, "imageOptions": image_options}
    stem = asset.partition(".")[0]
    profile = Profile(without_extensions({**document("image"), "output": output}))
    return plan(asset, profile=profile, output_name=f"{stem}.{disk_format}", **more)


def secure_plan() -> BuildPlan:
    """A plan that signs."""
    signer = {
        "keyPath": KeyFile("uki-signing-key.pem"),
        "certPath": KeyFile("uki-signing-cert.pem"),
    }
    base = document()
    base["input"] = {**base["input"], "secureboot": {"secureBootSigner": signer}}
    return plan("metal-amd64-secureboot-uki.efi", profile=Profile(base))


def boot_files(folder: Path) -> Mapping[str, Path]:
    """Boot assets as files that everybody may read."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in ("vmlinuz", "initramfs.xz"):
        path = folder / name
        path.write_bytes(name.encode() * 100)
        path.chmod(0o444)
        files[name] = path
    return files


def job(layout: Layout, entry: BuildPlan) -> AssetJob:
    """A job whose images lie in the layout."""
    return AssetJob(entry, real_images(layout))

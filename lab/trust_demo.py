"""What `make trust-demo` shows: trust that needs no network, and what it refuses, in plain words.

Runs inside `lab run --engine` with the project's own interpreter. The program is started in a
network namespace without interfaces; the engine is reached over its Unix socket, which is a file.
The lab itself is never changed: what is refused is made in hard-linked copies of its layout.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, run
from lab.demo import Program, title
from lab.keyless import IDENTITY, IDENTITY_PATTERN, ISSUER, sign_images
from lab.oci import INDEX, REF_NAME, Descriptor, Layout
from lab.place import KEYLESS_PREFIX, Place, find_place
from lab.signing import Signable
from lab.steps import load_result, remove_tree

SCHEMATIC = "schematics/vanilla.yaml"
VERSION = "v1.13.0"
BUILDS = ((VERSION, "metal-amd64-uki.efi"), ("v1.9.0", "cmdline-metal-amd64"))
NAME = f"{KEYLESS_PREFIX}/siderolabs/imager"
IMAGE = f"{NAME}:{VERSION}"
FETCH = ("sources", "fetch", "--version", VERSION)
STRANGER = "mallory@elsewhere.test"
NO_NETWORK = ("unshare", "--net")


class Isolated(Program):
    """The program where no network is; it says what it says, accepted or refused."""

    def __init__(self, config: Path, store: Path) -> None:
        super().__init__(config, store)
        self._argv = [*NO_NETWORK, *self._argv]

    def refused(self, phrase: str, *arguments: str) -> None:
        """Show a refusal; raises LabError unless it has status 3 and says the phrase."""
        print("$ local-imager " + " ".join(arguments), flush=True)
        argv = [*self._argv, *self._options, "-q", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        print("\n".join(f"  {line}" for line in said.strip().splitlines()))
        print(f"  -> exit status {done.returncode}", flush=True)
        if done.returncode != 3 or phrase not in said:
            raise LabError(f"expected status 3 and the words {phrase!r}")

    def holds(self) -> str:
        """Return the digest under which the store has the image of this demo, or nothing."""
        listed = json.loads(self.text("sources", "list", "--json"))
        return next((str(one["digest"]) for one in listed if one["image"] == IMAGE), "")


@dataclass(frozen=True, slots=True)
class Scene:
    """A copy of the lab's layout in a folder of its own, and the program that reads from it."""

    place: Place
    folder: Path
    layout: Layout

    @classmethod
    def make(cls, place: Place, folder: Path) -> "Scene":
        """Copy the layout by hard links; only index.json is a file of the copy's own."""
        copy = folder / "upstream"
        shutil.copytree(place.upstream, copy, copy_function=os.link)
        (copy / "index.json").unlink()
        shutil.copyfile(place.upstream / "index.json", copy / "index.json")
        return cls(place, folder, Layout.open(copy))

    @property
    def image(self) -> Descriptor:
        """The imager of this demo's version."""
        return self.layout.named()[IMAGE]

    def signable(self, image: Descriptor) -> Signable:
        """Return what the signer has to know of an image."""
        return Signable(IMAGE, image["digest"], VERSION)

    def drop(self, reference: str) -> None:
        """Take a name out of the layout."""
        kept = [one for one in self.layout.entries if one["annotations"][REF_NAME] != reference]
        self.layout.entries[:] = kept

    def drop_signature(self) -> None:
        """Take the imager's signature away."""
        self.drop(f"{NAME}:{self.signable(self.image).signature_tag}")

    def sign(self, identity: str, *images: Descriptor) -> Path:
        """Sign with a new Sigstore, in this order; return its trusted root."""
        signer = load_result(self.place, "keyless-signer")
        if signer is None:
            raise LabError("the lab is not built: python3 -m lab build")
        own = Place(self.folder / "sigstore")
        own.ensure()
        wanted = [self.signable(image) for image in images]
        return sign_images(own, signer, self.layout, wanted, identity)

    def program(self, imager_root: Path | None = None) -> Isolated:
        """Write the layout and settings of the lab's shape; return the program over both.

        With `imager_root` the imager has a rule of its own: that trusted root, and no rollback.
        """
        self.layout.save()
        rules = [(f"{KEYLESS_PREFIX}/**", self.place.trusted_root, "warn")]
        if imager_root is not None:
            rules.append((NAME, imager_root, "refuse"))
        text = f'[upstream]\nregistry = "{KEYLESS_PREFIX}"\nsource = "{self.layout.root}"\n'
        for pattern, root, rollback in rules:
            text += f'\n[[trust]]\npattern = "{pattern}"\nissuer = "{ISSUER}"\n'
            text += f"identity_regexp = '{IDENTITY_PATTERN}'\n"
            text += f'trusted_root = "{root}"\nrollback = "{rollback}"\n'
        settings = self.folder / "settings.toml"
        settings.write_text(text, encoding="utf-8")
        return Isolated(settings, self.folder / "store")


def tampered_layer(scene: Scene) -> None:
    """One bit of a layer is another; index, manifest and signature are as they were."""
    child = scene.layout.read(scene.image)["manifests"][0]
    path = scene.layout.blob_path(scene.layout.read(child)["layers"][-1]["digest"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    expect_nothing_kept(scene.program(), "the bytes that came have digest")


def foreign_signer(scene: Scene) -> None:
    """A valid signature, made by somebody else at the same Sigstore."""
    scene.drop_signature()
    program = scene.program(scene.sign(STRANGER, scene.image))
    expect_nothing_kept(program, STRANGER)


def old_signature(scene: Scene) -> None:
    """The image before the one that was accepted turns up again under the same tag."""
    newer = scene.image
    document = {**scene.layout.read(newer), "annotations": {"demo": "the image before"}}
    older = scene.layout.put_json(INDEX, document)
    scene.drop_signature()
    root = scene.sign(IDENTITY, older, newer)
    program = scene.program(root)
    print("First the newer image, which is accepted and remembered:")
    program.show("-q", *FETCH)
    scene.drop(IMAGE)
    scene.layout.name(older, IMAGE)
    print("Then the older one under the same tag, with its own, valid signature:")
    scene.program(root).refused("rolled back", *FETCH)
    if program.holds() != newer["digest"]:
        raise LabError("the store has another image than the one that was accepted")


def no_signature(scene: Scene) -> None:
    """Nobody signed."""
    scene.drop_signature()
    expect_nothing_kept(scene.program(), "no signature")


def expect_nothing_kept(program: Isolated, phrase: str) -> None:
    """Have the image refused; raises LabError when it is in the store nevertheless."""
    program.refused(phrase, *FETCH)
    if program.holds():
        raise LabError("the refused image is in the store")


REFUSED: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("a tampered layer", tampered_layer),
    ("a foreign signer", foreign_signer),
    ("an old signature", old_signature),
    ("no signature", no_signature),
)


def main() -> int:
    """Show all of it; return 0 when everything was as it should be."""
    began_s = time.monotonic()
    place = find_place()
    need_isolation()
    program = Isolated(place.root / "lab-keyless.toml", store_of(place))
    title("1. Builds from keyless-signed images, without a network")
    print(
        "The whole program runs in a network namespace without interfaces;\n"
        "the engine is reached over its Unix socket, which is a file."
    )
    for version, asset in BUILDS:
        program.show("build", SCHEMATIC, asset, "--version", version, "--rebuild")
    title("2. Whom this trust leans on")
    program.show("trust", "show")
    title("3. What is refused")
    for name, act in REFUSED:
        title(f"An image with {name}")
        print((act.__doc__ or "").strip())
        with tempfile.TemporaryDirectory(prefix=".trust-demo-", dir=place.root) as folder:
            act(Scene.make(place, Path(folder)))
    title("4. The evidence that is kept with the image that was built from")
    show_evidence(program)
    title("What was done")
    print(
        "Images signed by an identity, not by a lasting key, were verified and built from without\n"
        "a network: certificate chain, transparency, log entry, timestamp and identity. An image\n"
        "with a changed bit, one that somebody else signed, one older than what was accepted\n"
        "before and one that nobody signed were refused with exit status 3, and not kept."
    )
    print(f"All of it took {time.monotonic() - began_s:.0f} s.")
    return 0


def need_isolation() -> None:
    """Raise LabError unless a namespace without interfaces can be made here."""
    lines = run([*NO_NETWORK, "cat", "/proc/net/dev"]).splitlines()[2:]
    if others := {line.split(":")[0].strip() for line in lines} - {"lo"}:
        raise LabError(f"the network namespace has interfaces: {', '.join(sorted(others))}")


def store_of(place: Place) -> Path:
    """Return the demo's store for the Sigstore in force, and remove those of Sigstores before."""
    own = hashlib.sha256(place.trusted_root.read_bytes()).hexdigest()[:12]
    base = place.root / "trust-demo-store"
    base.mkdir(exist_ok=True)
    for other in base.iterdir():
        if other.name != own:
            remove_tree(other)
    return base / own


def show_evidence(program: Isolated) -> None:
    """Print the evidence document; raises LabError unless the image is accepted now as well."""
    print(f"$ local-imager sources verify {IMAGE} --json")
    (answer,) = json.loads(program.text("sources", "verify", IMAGE, "--json"))
    print(json.dumps(answer["kept_evidence"], indent=2))
    if not answer["accepted"] or not answer["kept_evidence"]:
        raise LabError("the image that was built from has no evidence")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as problem:
        print(f"trust-demo: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

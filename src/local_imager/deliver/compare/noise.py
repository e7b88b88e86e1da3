"""The documented list of differences that say nothing about the content.

Each rule names the facts of the kinds of part that it covers, and why two builds of the same input
may differ there. A rule never covers a part's bytes as a whole, but for those that look at both
sides' bytes first. What no rule covers is a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.compare.align import content_kind
from local_imager.deliver.compare.yamlfolding import same_but_folding
from local_imager.deliver.inspect.isorest import MARKER
from local_imager.deliver.inspect.parts import Fact, Part

# The fact names below that stand for a part's bytes, not for one of its facts.
CONTENT: Final = "content"
# A file system's bytes that no entry and no fact accounts for.
REST: Final = "rest"


@dataclass(frozen=True, slots=True)
class Place:
    """Where two parts differ: the fact's name, both values, both parts and what holds them.

    ``holders`` are the pairs of parts from the outermost to the nearest one.
    """

    fact: str
    left_value: Fact | None
    right_value: Fact | None
    left: Part
    right: Part
    holders: tuple[tuple[Part, Part], ...] = ()

    def within(self, *kinds: str) -> tuple[Part, Part] | None:
        """Return the nearest holders whose kind is one of these, but none beyond a boundary.

        A file system or archive inside another one is a boundary: its entries are its own.
        """
        for left, right in reversed(self.holders):
            if content_kind(left) in kinds and content_kind(right) in kinds:
                return left, right
            if content_kind(left) in _BOUNDARIES:
                return None
        return None

    def of_kind(self, *kinds: str) -> bool:
        """Say whether both parts are of one of these kinds, or places that hold one."""
        return all(kinds_of(part) & set(kinds) for part in (self.left, self.right))


def kinds_of(part: Part) -> frozenset[str]:
    """Return the kind of a part, and of its content where it is a place."""
    return frozenset((part.kind, content_kind(part)))


_BOUNDARIES: Final = frozenset(
    {"fat", "xfs", "squashfs", "erofs", "iso", "cpio", "tar", "disk", "layer", "uki", "pe"}
)
_ENTRIES: Final = frozenset(
    {"file", "directory", "link", "special", "document", "data", "kernel", "initramfs", "cmdline"}
    | {"uki", "pe", "squashfs", "erofs", "fat", "disk", "compressed", "cpio", "tar", "iso"}
)


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """One entry of the list: its stable code, what it covers and the reason, in words.

    ``covers`` answers for one place; it must be symmetric in the two sides.
    """

    code: str
    what: str
    reason: str
    covers: Callable[[Place], bool]


def _facts(kind: str, *names: str) -> Callable[[Place], bool]:
    def covers(place: Place) -> bool:
        return place.fact in names and place.of_kind(kind)

    return covers


def _times_in(*kinds: str) -> Callable[[Place], bool]:
    def covers(place: Place) -> bool:
        return (
            place.fact == "mtime"
            and place.left.kind in _ENTRIES
            and place.within(*kinds) is not None
        )

    return covers


def _cpio_times(place: Place) -> bool:
    """Cover times in what an imager appends; the base archive (with ``init``) comes as it is."""
    if not _times_in("cpio")(place):
        return False
    archives = place.within("cpio")
    return archives is not None and all(one.child("init") is None for one in archives)


def _folded(place: Place) -> bool:
    if place.fact != CONTENT or place.left.name != "extensions.yaml":
        return False
    if place.right.name != "extensions.yaml" or place.within("cpio") is None:
        return False
    left, right = place.left.text, place.right.text
    return left is not None and right is not None and same_but_folding(left, right)


def _same_signer(place: Place) -> bool:
    """Cover a signature's bytes where all that it says (signer, digest, validity) is the same."""
    left, right = place.left, place.right
    if left.kind != "pe-signature" or right.kind != "pe-signature" or place.fact != CONTENT:
        return False
    said = dict(left.facts)
    fits = said.get("verifies") is True and said.get("digest_matches") is True
    return fits and said == dict(right.facts)


def _auth_signature(place: Place) -> bool:
    """Cover time and signature of a signed key, where all else of the file is the same."""
    if place.fact != CONTENT or not all(
        one.name.endswith(".auth") for one in (place.left, place.right)
    ):
        return False
    first = place.left.facts.get("without_signature")
    return first is not None and first == place.right.facts.get("without_signature")


def _iso_owner(place: Place) -> bool:
    """Cover owners where all entries of either ISO have one and the same."""
    if place.fact == "owner":
        return place.of_kind("iso") and None not in (place.left_value, place.right_value)
    if place.fact not in ("uid", "gid") or place.left.kind not in _ENTRIES:
        return False
    volumes = place.within("iso")
    return volumes is not None and all("owner" in one.facts for one in volumes)


def _ova_member(place: Place) -> bool:
    """Cover owner and time in the tar file around a virtual machine's disk."""
    if place.fact not in ("uid", "gid", "mtime") or not place.holders:
        return False
    return all(one.kind == "ova" for one in place.holders[-1])


def _grub_marker(place: Place) -> bool:
    """Cover the name of the marker in an ISO, and that name in GRUB's modules."""
    left, right = place.left, place.right
    if place.fact == "name":
        held = bool(place.holders) and all(one.name == ".disk" for one in place.holders[-1])
        named = all(MARKER.fullmatch(one.name.encode()) for one in (left, right))
        empty = not left.size_bytes and not right.size_bytes
        return held and named and empty and place.within("iso") is not None
    if place.fact != CONTENT or not place.of_kind("pe-section"):
        return False
    first = left.facts.get("without_marker")
    return first is not None and first == right.facts.get("without_marker")


NOISE: Final[tuple[NoiseRule, ...]] = (
    NoiseRule(
        "cpio-times",
        "times of files in the cpio archive that an imager appends to the initramfs",
        "imagers up to v1.14 pack extensions with the time of the run; nothing reads it at boot. "
        "The base archive, the one with /init, is not covered",
        _cpio_times,
    ),
    NoiseRule(
        "yaml-folding",
        "where long lines of extensions.yaml are folded",
        "YAML libraries of different imager versions fold long descriptions at other places; "
        "covered only when both texts have the same words and read as the same document",
        _folded,
    ),
    NoiseRule(
        "gpt-guid",
        "the disk's GUID and the GUIDs of its partitions (not their types)",
        "made at random for each disk; Talos finds its partitions by label",
        lambda place: place.fact == "guid" and place.of_kind("partition", "disk", "iso"),
    ),
    NoiseRule(
        "meta-order",
        "the order of the values in the META partition, and the checksum over them",
        "imagers write them in random order; covered only when all values are equal and nothing "
        "else lies in the partition",
        lambda place: (
            _facts("meta", REST)(place)
            and place.left.facts.get(REST) is not None
            and place.left.facts.get(REST) == place.right.facts.get(REST)
        ),
    ),
    NoiseRule(
        "fat-serial",
        "the serial number of a FAT volume",
        "made from the time of the run, or at random",
        _facts("fat", "serial"),
    ),
    NoiseRule(
        "fat-times",
        "times of files and directories in a FAT file system",
        "the time of the run; firmware does not look at it",
        _times_in("fat"),
    ),
    NoiseRule(
        "xfs-identity",
        "the UUID of an XFS file system",
        "made at random for each file system; Talos finds it by its label",
        _facts("xfs", "uuid"),
    ),
    NoiseRule(
        "xfs-bookkeeping",
        "bytes of an XFS file system outside of its files: log, sequence numbers, inode generation",
        "they follow the order and time of writes; covered only when all files, their modes and "
        "the features of the file system are equal",
        _facts("xfs", REST),
    ),
    NoiseRule(
        "xfs-times",
        "times of files and directories in an XFS file system",
        "the time of the run; the boot loader does not look at it",
        _times_in("xfs"),
    ),
    NoiseRule(
        "iso-dates",
        "the dates of an ISO volume (creation, modification)",
        "the time of the run",
        _facts("iso", "created", "modified"),
    ),
    NoiseRule(
        "iso-times",
        "times of files and directories in an ISO file system",
        "the time of the run; firmware and GRUB do not look at it",
        _times_in("iso"),
    ),
    NoiseRule(
        "iso-owner",
        "the owner of files in an ISO, where all of it has one owner",
        "the user that the imager's container ran as; firmware and boot loaders do not look at it",
        _iso_owner,
    ),
    NoiseRule(
        "grub-marker",
        "the name of the empty file .disk/TIME.uuid in an ISO, and that name in GRUB's modules",
        "grub-mkrescue names it after the time of the run, so that GRUB finds the disk that it was "
        "started from; covered only where all else in the modules is equal",
        _grub_marker,
    ),
    NoiseRule(
        "squashfs-time",
        "the time at which a squashfs was made",
        "the time of the run; the kernel does not use it. Times of its files are not covered",
        _facts("squashfs", "made"),
    ),
    NoiseRule(
        "erofs-identity",
        "the UUID and build time of an erofs",
        "random, or the time of the run. Times of its files are not covered",
        _facts("erofs", "uuid", "made"),
    ),
    NoiseRule(
        "pe-timestamp",
        "the time stamp in the header of a PE file",
        "the time of the link or of the run; firmware does not look at it",
        lambda place: place.fact == "timestamp" and place.of_kind("uki", "pe"),
    ),
    NoiseRule(
        "authenticode-bytes",
        "the bytes of an Authenticode signature by the same signer over the same digest",
        "a signature holds its time, and some schemes hold random numbers; covered only when "
        "signer, digest and validity are equal on both sides",
        _same_signer,
    ),
    NoiseRule(
        "key-signature",
        "the times in a signed Secure Boot key (*.auth), and digest and signature over them",
        "they are signed with the time of the run; covered only when the keys, the signer's "
        "certificate and all else of the file are equal. The signature itself is not checked",
        _auth_signature,
    ),
    NoiseRule(
        "image-created",
        "the time in the configuration of a container image at which it was made",
        "the time of the run; the configuration's other fields are not covered",
        _facts("oci-image", "created"),
    ),
    NoiseRule(
        "ova-members",
        "times and owners of the files that an OVA consists of",
        "the time of the run, and the user that the imager's container ran as; whoever imports a "
        "virtual machine does not look at it. Modes, and files of the disk inside, are not covered",
        _ova_member,
    ),
    NoiseRule(
        "virtual-disk-identity",
        "UUIDs and times in the header of a qcow2, vhd or vmdk file",
        "made at random or from the time of the run by the program that converted the disk",
        lambda place: (
            place.fact in ("uuid", "made", "content_id", "long_content_id")
            and place.left.kind == place.right.kind
            and place.left.kind in ("qcow2", "vhd", "vmdk")
        ),
    ),
)
# What depends on differing bytes and differs for no other reason than noise inside of them.
FOLLOWS_NOISE: Final = NoiseRule(
    "follows-noise",
    "checksums, signed digests, PCR signatures and sizes of what holds noise",
    "they are computed from bytes that differ by noise only; a signature counts only where the "
    "same signer made both",
    lambda place: False,
)
ALL_NOISE: Final = (*NOISE, FOLLOWS_NOISE)


def noise_of(place: Place) -> str:
    """Return the code of the rule that covers a place, or an empty string."""
    return next((rule.code for rule in NOISE if rule.covers(place)), "")

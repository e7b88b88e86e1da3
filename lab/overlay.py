"""The lab's overlay: what a single-board computer's overlay has, small and visible."""

from collections.abc import Sequence
from pathlib import Path

from lab.archives import Entry, write_layer
from lab.oci import Descriptor, Layout
from lab.place import ARCHITECTURES

OVERLAYS = {
    "siderolabs/sbc-lab": ("lab_board", "lab_board_amd64"),
    "siderolabs/sbc-raspberrypi": ("rpi_generic",),
}
"""Overlays by image: an arm64 board as usual upstream, one that boots on amd64, and a stand-in
with the name of an official board, so that example schematics build here too."""

INSTALLER = """\
#!/bin/sh
# Overlay installer of the lab: the imager calls it with `get-options` or `install`, YAML on stdin.
set -eu
options=$(cat)

field() {
  printf '%s\\n' "$options" | sed -n "s/^$1: *//p" | head -n 1 | tr -d "\\"'"
}

case "${1:-}" in
  get-options)
    echo "name: @NAME@"
    echo "kernelArgs:"
    echo "  - lab.overlay=1"
    extra=$(field labArgument)
    [ -n "$extra" ] && echo "  - lab.overlay.option=$extra"
    @OFFSET@
    ;;
  install)
    prefix=$(field mountPrefix)
    artifacts=$(field artifactsPath)
    # Firmware belongs to boot/EFI; a second copy in boot is seen where the imager makes EFI anew.
    for place in boot/EFI/lab boot/lab; do
      mkdir -p "$prefix/$place"
      cp "$artifacts/@ARCH@/lab-board/config.txt" "$prefix/$place/config.txt"
    done
    ;;
  *)
    echo "usage: $0 get-options|install" >&2
    exit 2
    ;;
esac
"""

PROFILE = """\
arch: @ARCH@
platform: metal
secureboot: false
output:
  kind: image
  outFormat: .xz
  imageOptions:
    diskSize: 1306525696
    diskFormat: raw
"""

_ARM64_OFFSET = 'printf "partitionOptions:\\n  offset: 10240\\n"'
"""Boards leave room for firmware in front of the first partition (sectors of 512 bytes)."""


def _arch_of(name: str) -> str:
    return "amd64" if name.endswith("_amd64") else "arm64"


def overlay_entries(names: Sequence[str], arch: str, version: str) -> list[Entry]:
    """Return the files of an image with these overlays for a host of this architecture."""
    entries = []
    for name in names:
        board_arch = _arch_of(name)
        script = INSTALLER.replace("@NAME@", name).replace("@ARCH@", board_arch)
        script = script.replace("@OFFSET@", _ARM64_OFFSET if board_arch == "arm64" else ":")
        profile = PROFILE.replace("@ARCH@", board_arch)
        if board_arch == "arm64":
            profile += "    bootloader: grub\n"
        entries.append(Entry(f"installers/{name}", script.encode(), mode=0o755))
        entries.append(Entry(f"profiles/{name}.yaml", profile.encode()))
    for board in ARCHITECTURES:
        text = (
            f"# lab stand-in for the firmware of a board ({board}), Talos {version}; "
            f"image for {arch} hosts\n"
        )
        entries.append(Entry(f"artifacts/{board}/lab-board/config.txt", text.encode()))
    return entries


def put_overlay(layout: Layout, image: str, version: str, work: Path) -> Descriptor:
    """Store an overlay image for both architectures and return the index."""
    stem = image.rpartition("/")[2]
    children = []
    for arch in ARCHITECTURES:
        layer = write_layer(
            work / f"{stem}-{version}-{arch}.tar.gz",
            overlay_entries(OVERLAYS[image], arch, version),
        )
        children.append(layout.put_image(arch, [layer]))
    return layout.put_index(children)

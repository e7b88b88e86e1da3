"""The commented template of ``schematic init``: as it stands it is the vanilla schematic."""

from __future__ import annotations

from typing import Final

TEMPLATE: Final = """\
# A Talos Linux schematic: what to change in the images. Take away the '#' before what you need.
# As it stands, nothing is changed, and the ID is that of the vanilla schematic.
# 'local-imager schematic id FILE' prints the ID;
# 'local-imager schematic lint FILE' says what will not take effect, and why.

customization:
  # Arguments for the kernel. The order counts; "-name" removes an argument that Talos sets.
  #extraKernelArgs:
  #  - console=ttyS0
  #  - -selinux

  # Values for the META partition: 0xa is the network configuration, 0xc user-defined.
  #meta:
  #  - key: 0xa
  #    value: |
  #      apiVersion: v1alpha1
  #      kind: LinkConfig

  # System extensions, by the names that 'local-imager extensions VERSION' lists.
  #systemExtensions:
  #  officialExtensions:
  #    - siderolabs/qemu-guest-agent
  #    - siderolabs/iscsi-tools

  # The boot loader: dual-boot, sd-boot or grub.
  #bootloader: sd-boot

  # Secure boot: when to enroll keys (if-safe, manual, force, off), and whether to add Microsoft's.
  #secureboot:
  #  enrollKeys: if-safe
  #  includeWellKnownCertificates: true

  # The sector size of disk images in bytes: 512 or 4096.
  #diskImage:
  #  sectorSize: 4096

  # A machine configuration inside the image. It may hold secrets: keep the file and images safe.
  #embeddedMachineConfiguration: |
  #  apiVersion: v1alpha1
  #  kind: HostnameConfig
  #  hostname: worker-1

# An overlay for a single board computer, by the names that 'local-imager overlays VERSION' lists.
#overlay:
#  image: siderolabs/sbc-raspberrypi
#  name: rpi_generic
#  options:
#    configTxtAppend: dtparam=audio=on
"""

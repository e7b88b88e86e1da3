"""The initramfs that stands for Talos: it shows on the serial console what it was started with."""

import lzma
from pathlib import Path

from lab.archives import Entry, cpio_newc, noise

BOOT_MARKER = "LOCAL-IMAGER-LAB BOOT"
DONE_MARKER = "LOCAL-IMAGER-LAB DONE"

EXTENSION_SCRIPTS = "usr/local/lib/lab-boot.d"
"""Folder of an extension whose scripts the lab's init runs."""

SMALL_SIZE_BYTES = 10 * 1000 * 1000
"""Size that the ordinary initramfs is padded to.

The EFI system partition in an ISO is as large as its content, and is made as FAT32 whatever its
size; below 65,525 clusters (34 MB) UEFI firmware refuses it. Official images are far above that.
"""

REALISTIC_SIZE_BYTES = 90 * 1000 * 1000

INIT = f"""\
#!/bin/busybox sh
# Stand-in for Talos: says what it was booted with, runs what extensions brought, powers off.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /ext
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin

show() {{
  echo
  echo "{BOOT_MARKER} $(cat /etc/lab/talos-version)"
  echo "LAB-KERNEL $(uname -m) $(uname -r)"
  echo "LAB-CMDLINE $(cat /proc/cmdline)"
  for entry in /* /.[a-z]*; do [ -e "$entry" ] && echo "LAB-ROOT $entry"; done
  if [ -f /extensions.yaml ]; then
    while IFS= read -r line; do echo "LAB-EXTENSIONS $line"; done < /extensions.yaml
  fi
  for module in $(cat /etc/lab/modules); do insmod "/etc/lab/$module.ko"; done
  for image in $(ls / | grep '\\.sqsh$' | sort -n); do
    layer=${{image%.sqsh}}
    mkdir -p "/ext/$layer"
    if ! mount -t squashfs -o ro,loop "/$image" "/ext/$layer"; then
      echo "LAB-LAYER-FAILED $image"
      continue
    fi
    (cd "/ext/$layer" && find . -type f | sort | head -n 20) | while read -r file; do
      echo "LAB-LAYER $image ${{file#.}}"
    done
    for script in "/ext/$layer/{EXTENSION_SCRIPTS}"/*; do
      [ -f "$script" ] && (cd "/ext/$layer" && sh "$script")
    done
  done
  for early in /kernel/x86/microcode/*; do [ -f "$early" ] && echo "LAB-EARLY $early"; done
  echo "{DONE_MARKER}"
}}

# Userspace output goes to the last console only; it is to be seen on the serial line in any case.
serial=ttyS0
[ "$(uname -m)" = aarch64 ] && serial=ttyAMA0
case " $(cat /sys/class/tty/console/active)" in
  *" $serial") show > /dev/console 2>&1 ;;
  *) show 2>&1 | tee "/dev/$serial" > /dev/console ;;
esac
sync
sleep 1
poweroff -f
"""


def make_initramfs(boot: Path, arch: str, version: str, modules: list[str]) -> bytes:
    """Return the initramfs of one version and architecture (newc cpio in xz with CRC32).

    `boot` is the folder of boot assets with busybox and the kernel modules.
    """
    entries = [
        Entry("bin/busybox", boot / f"{arch}-busybox", mode=0o755),
        Entry("init", INIT.encode(), mode=0o755),
        Entry("etc/lab/talos-version", f"{version}\n".encode()),
        Entry("etc/lab/modules", " ".join(modules).encode() + b"\n"),
    ]
    entries += [Entry(f"etc/lab/{name}.ko", boot / f"{arch}-{name}.ko") for name in modules]
    return lzma.compress(cpio_newc(entries), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32)


def padded(initramfs: bytes, arch: str, size_bytes: int) -> bytes:
    """Return an initramfs with an uncompressed cpio segment of noise, about `size_bytes` in all.

    The kernel unpacks segments one after the other, so the result boots like the small one.
    """
    start = initramfs + b"\0" * (-len(initramfs) % 4)
    ballast = noise(f"initramfs {arch}", size_bytes - len(start))
    return start + cpio_newc([Entry(f"etc/lab/ballast-{size_bytes}", ballast)])

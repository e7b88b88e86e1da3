"""Boot a file in QEMU, cut off from network and host, and read its serial console.

The only module that starts QEMU. The machine has no network card, the disk is opened in snapshot
mode (nothing is written back), QEMU's own seccomp sandbox is on, and the console is bounded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, Protocol

from local_imager.errors import HostError, InputError, Interrupted
from local_imager.events import NULL_SINK, EventSink, Message, printable, step

Firmware = Literal["uefi", "bios"]
Arch = Literal["amd64", "arm64"]

# A boot that prints more than this in a test is looping; real ones stay below 100 kB.
MAX_CONSOLE_BYTES: Final = 4 * 1024 * 1024
_QEMU: Final = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
_PACKAGES: Final = {"amd64": "qemu-system-x86 ovmf", "arm64": "qemu-system-arm qemu-efi-aarch64"}
_FIRMWARE: Final = {
    "amd64": (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ),
    "arm64": (
        ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        (
            "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
            "/usr/share/edk2/aarch64/vars-template-pflash.raw",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class BootReport:
    """What the console said: ``missing`` are the expected texts that never came.

    ``ended`` says why watching stopped: the machine powered off, every text was seen, or the time
    (``duration_s`` seconds of wall clock) was over.
    """

    console: str
    missing: tuple[str, ...]
    ended: Literal["powered-off", "seen", "timeout"]
    duration_s: float

    @property
    def passed(self) -> bool:
        """True when every expected text was seen."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class BootRequest:
    """A file to boot: ISO, disk image (also compressed), or UKI; ``memory_mib`` of RAM."""

    path: Path
    arch: Arch = "amd64"
    firmware: Firmware = "uefi"
    expect: tuple[str, ...] = ()
    timeout_s: float = 300
    memory_mib: int = 1024
    until_poweroff: bool = True


def boot(
    request: BootRequest,
    *,
    sink: EventSink = NULL_SINK,
    cancel: threading.Event | None = None,
) -> BootReport:
    """Boot the file and return what its serial console said.

    Raises :class:`HostError` when QEMU or the firmware is missing, :class:`InputError` for a file
    that is not bootable here, :class:`Interrupted` when ``cancel`` is set. QEMU never outlives
    the call.
    """
    if not request.path.is_file():
        raise InputError(f"there is no file {request.path}", hint="build it first")
    stop = cancel or threading.Event()
    with tempfile.TemporaryDirectory(prefix="local-imager-boot-") as scratch:
        argv = qemu_argv(request, Path(scratch))
        with step(sink, "boot", request.path.name):
            for accelerator in _accelerators(request.arch):
                machine = [*argv, *_machine(request.arch, accelerator)]
                report = _watch(machine, request, sink, stop)
                if report is not None:
                    return report
                sink.emit(Message(f"QEMU does not work with {accelerator} on this host"))
    raise HostError("QEMU did not start", hint="`local-imager -v boot-test …` shows what it says")


def qemu_argv(request: BootRequest, scratch: Path) -> list[str]:
    """Return the QEMU command line but for the machine and its accelerator.

    Decompresses and copies what QEMU may not touch in place.
    """
    binary = shutil.which(_QEMU[request.arch])
    if binary is None:
        raise HostError(
            f"{_QEMU[request.arch]} is not installed",
            hint=f"on Debian: apt-get install {_PACKAGES[request.arch]}",
        )
    argv = [binary, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    argv += ["-m", str(request.memory_mib), "-smp", "2", "-serial", "stdio", "-nic", "none"]
    if request.firmware == "uefi":
        argv += _firmware_argv(request.arch, scratch)
    elif request.arch == "arm64":
        raise InputError("arm64 has no BIOS", hint="use --firmware uefi")
    return argv + _media_argv(request, scratch)


def _accelerators(arch: Arch) -> tuple[str, ...]:
    """KVM first where this user may use it, then emulation, which needs no right at all.

    A KVM that can be opened may still fail (nested virtualisation): QEMU then ends at once.
    """
    native = os.uname().machine == {"amd64": "x86_64", "arm64": "aarch64"}[arch]
    return ("kvm", "tcg") if native and os.access("/dev/kvm", os.R_OK | os.W_OK) else ("tcg",)


def _machine(arch: Arch, accelerator: str) -> list[str]:
    machine = "q35" if arch == "amd64" else "virt"
    if accelerator == "kvm":
        return ["-machine", f"{machine},accel=kvm", "-cpu", "host"]
    # Time goes on with the instructions, not with the host's clock: on a busy host Linux would see
    # no tick where it expects some, and panic ("IO-APIC + timer doesn't work").
    return ["-machine", f"{machine},accel=tcg", "-cpu", "max", "-icount", "shift=auto"]


def _firmware_argv(arch: Arch, scratch: Path) -> list[str]:
    found = [pair for pair in _FIRMWARE[arch] if all(Path(part).is_file() for part in pair)]
    if not found:
        raise HostError(
            f"no UEFI firmware for {arch} is installed",
            hint=f"on Debian: apt-get install {_PACKAGES[arch]}",
        )
    code, variables = found[0]
    own_variables = scratch / "vars.fd"
    shutil.copyfile(variables, own_variables)
    return [
        "-drive",
        f"if=pflash,format=raw,unit=0,readonly=on,file={_escaped(Path(code))}",
        "-drive",
        f"if=pflash,format=raw,unit=1,file={_escaped(own_variables)}",
    ]


def _escaped(path: Path) -> str:
    """QEMU splits option values at commas; a doubled comma stands for one."""
    return str(path).replace(",", ",,")


def _media_argv(request: BootRequest, scratch: Path) -> list[str]:
    name = request.path.name
    path = request.path.resolve()
    if name.endswith(".iso"):
        return [
            "-drive",
            f"if=none,id=media,media=cdrom,readonly=on,format=raw,file={_escaped(path)}",
            *_cdrom(request.arch),
        ]
    if name.endswith(".efi"):
        path = _esp_with(path, request.arch, scratch)
        return _disk(path, "raw")
    for suffix, image_format in ((".qcow2", "qcow2"), (".raw", "raw"), (".vhd", "vpc")):
        if name.endswith(suffix):
            return _disk(path, image_format)
        if name.endswith((f"{suffix}.zst", f"{suffix}.xz", f"{suffix}.gz")):
            return _disk(_unpacked(path, scratch), image_format)
    raise InputError(
        f"{name} is not a file that can be booted",
        hint="boot an .iso, .raw, .qcow2 or .vhd (also .zst, .xz, .gz), or a -uki.efi",
    )


def _cdrom(arch: Arch) -> list[str]:
    if arch == "amd64":
        return ["-device", "ide-cd,drive=media,bootindex=0"]
    return ["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=media,bootindex=0"]


def _disk(path: Path, image_format: str) -> list[str]:
    """Attach the image with writes going to a throw-away overlay.

    A qcow2 may name a backing file of this host; ``backing: null`` keeps QEMU from opening it.
    """
    node: dict[str, object] = {
        "driver": image_format,
        "file": {"driver": "file", "filename": str(path)},
    }
    if image_format == "qcow2":
        node["backing"] = None
    source = "json:" + json.dumps(node)
    drive = f"if=none,id=media,snapshot=on,file={source.replace(',', ',,')}"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=media,bootindex=0"]


def _unpacked(path: Path, scratch: Path) -> Path:
    """Decompress beside nothing else, keeping long runs of zeros as holes."""
    raw = scratch / "disk"
    with _open_compressed(path) as source, raw.open("wb") as target:
        while block := source.read(1 << 20):
            if block.count(0) == len(block):
                target.seek(len(block), os.SEEK_CUR)
            else:
                target.write(block)
        target.truncate(target.tell())
    return raw


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _open_compressed(path: Path) -> AbstractContextManager[_Readable]:
    if path.suffix == ".zst":
        import zstandard

        reader: AbstractContextManager[_Readable] = zstandard.open(path, "rb")
        return reader
    if path.suffix == ".xz":
        import lzma

        return lzma.open(path)
    import gzip

    return gzip.open(path)


def _esp_with(uki: Path, arch: Arch, scratch: Path) -> Path:
    """Put a UKI where firmware looks for it, on a small FAT file system made with mtools."""
    boot_name = {"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}[arch]
    esp = scratch / "esp.img"
    size_kib = (uki.stat().st_size // 1024 + 64 * 1024) // 64 * 64
    steps: tuple[Sequence[str], ...] = (
        ("mformat", "-i", str(esp), "-C", "-F", "-T", str(size_kib * 2), "::"),
        ("mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT"),
        ("mcopy", "-i", str(esp), str(uki), f"::/EFI/BOOT/{boot_name}"),
    )
    for argv in steps:
        if shutil.which(argv[0]) is None:
            raise HostError("mtools is not installed", hint="on Debian: apt-get install mtools")
        done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
        if done.returncode:
            raise HostError(f"{argv[0]} failed: {printable(done.stderr.decode(errors='replace'))}")
    return esp


def _watch(
    argv: list[str], request: BootRequest, sink: EventSink, cancel: threading.Event
) -> BootReport | None:
    """Run QEMU to the end of the boot; None when it failed by itself."""
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    console = _Console(sink)
    reader = threading.Thread(target=console.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        ended = _wait(process, console, request, began, cancel)
    finally:
        process.kill()
        process.wait()
        reader.join(timeout=5)
    text = console.text()
    missing = tuple(wanted for wanted in request.expect if wanted not in text)
    if ended == "powered-off" and process.returncode != 0:
        return None
    return BootReport(text, missing, ended, time.monotonic() - began)


def _wait(
    process: subprocess.Popen[bytes],
    console: _Console,
    request: BootRequest,
    began: float,
    cancel: threading.Event,
) -> Literal["powered-off", "seen", "timeout"]:
    while process.poll() is None:
        if cancel.wait(0.1):
            raise Interrupted("the boot test was interrupted")
        if time.monotonic() - began > request.timeout_s or console.full:
            return "timeout"
        seen = request.expect and all(wanted in console.text() for wanted in request.expect)
        if seen and not request.until_poweroff:
            return "seen"
    return "powered-off"


class _Console:
    """Collects the serial console up to a bound and reports it line by line."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._data = bytearray()
        self.full = False

    def read(self, stream: IO[bytes]) -> None:
        """Read until the machine ends; runs in a thread of its own."""
        for untrusted_line in iter(lambda: stream.readline(4096), b""):
            with self._lock:
                self._data += untrusted_line
                self.full = len(self._data) > MAX_CONSOLE_BYTES
            if self.full:
                return
            line = printable(untrusted_line.decode(errors="replace").rstrip())
            self._sink.emit(Message(line, "log"))

    def text(self) -> str:
        """Return what came so far, with terminal control sequences still in it."""
        with self._lock:
            return self._data.decode(errors="replace")

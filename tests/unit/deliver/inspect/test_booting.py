"""What boots by itself: systemd-boot's order, addons, and copies that nothing boots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from local_imager.deliver.inspect import booting
from local_imager.deliver.inspect.booting import Booting, boot_entries
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.meaning import Meaning
from local_imager.deliver.inspect.parts import Part, PartKind
from local_imager.deliver.inspect.reading import meaning_of
from local_imager.deliver.inspect.remake import remake_of
from local_imager.formats.source import BytesSource
from tests.pebytes import make_pe
from tests.talosfiles import STUB, extensions_yaml, tar, uki

Files = dict[str, Part]


def text(content: str, *, kind: PartKind = "document") -> Part:
    digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
    return Part("", kind, len(content), digest, text=content)


def image(version: str, line: str = "", *, more: Mapping[str, str] = MappingProxyType({})) -> Part:
    """Return a unified kernel image of Talos as a part."""
    release = f'NAME=Talos\nID=talos\nVERSION_ID={version}\nPRETTY_NAME="Talos ({version})"\n'
    sections = {".osrel": release, ".cmdline": line or f"v={version}", **more}
    children = [named(text(content), name) for name, content in sections.items()]
    kernel = Part(".linux", "kernel", 1, facts=MappingProxyType({"version": f"6-{version}"}))
    listed = text(extensions_yaml([("gvisor", version)]).decode())
    initrd = Part(".initrd", "initramfs", 1, children=(named(listed, "extensions.yaml"),))
    facts = MappingProxyType({"stub": f"systemd-stub {version}", "arch": "amd64"})
    digest = f"sha256:{hashlib.sha256(repr(sorted(sections.items())).encode()).hexdigest()}"
    return Part("", "uki", 1, digest, facts, (*children, kernel, initrd))


def addon(line: str, uname: str = "") -> Part:
    sections = {".cmdline": line} | ({".uname": uname} if uname else {})
    children = tuple(named(text(content), name) for name, content in sections.items())
    return Part("", "pe", 1, facts=MappingProxyType({"image": "addon"}), children=children)


def named(part: Part, name: str) -> Part:
    return Part(name, part.kind, part.size_bytes, part.digest, part.facts, part.children, part.text)


def volume(kind: PartKind, name: str, files: Files, *also: Part) -> Part:
    """Return a volume with these files in its directories."""
    folders: dict[str, dict[str, Part]] = {}
    direct = []
    for path, part in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = part
        else:
            direct.append(named(part, path))
    inner = [volume("directory", head, below) for head, below in folders.items()]
    return Part(name, kind, 1, children=(*inner, *direct, *also))


def esp(files: Files) -> Part:
    return volume("disk", "", {}, volume("fat", "ESP", files))


def order(found: Booting) -> list[str]:
    return [entry.path.rpartition("/")[2] for entry in found.entries]


TWO = {
    "EFI/Linux/Talos-v1.12.1.efi": image("v1.9.0"),
    "EFI/Linux/Talos-v1.13.0.efi": image("v1.13.0"),
}


def conf(line: str) -> Files:
    return {"loader/loader.conf": text(f"# text\ntimeout 3\n{line}\n")}


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("", "Talos-v1.13.0.efi"),
        ("default Talos-v1.12.1.efi", "Talos-v1.12.1.efi"),
        ("default talos-v1.12*", "Talos-v1.12.1.efi"),
        ("default\t*.efi", "Talos-v1.13.0.efi"),
        ("default none-*", "Talos-v1.13.0.efi"),
        ("default @saved", "Talos-v1.13.0.efi"),
        ("#default Talos-v1.12.1.efi", "Talos-v1.13.0.efi"),
    ],
)
def test_what_systemd_boot_starts_by_itself(line: str, first: str) -> None:
    found = boot_entries(esp(TWO | conf(line)))
    assert order(found)[0] == first and len(found.entries) == 2
    said = " ".join(found.problems)
    assert f"systemd-boot starts ESP/EFI/Linux/{first} by itself, unless a variable" in said
    assert ("none-* , is none" in said.replace("*,", "* ,")) == ("none-*" in line)
    assert ("leaves to the firmware's variables" in said) == ("@saved" in line)


def test_version_extensions_and_command_are_of_the_image_that_boots() -> None:
    for line, version, other in (
        ("", "v1.13.0", "v1.9.0"),
        ("default Talos-v1.12.1.efi", "v1.9.0", "v1.13.0"),
    ):
        found = meaning_of(esp(TWO | conf(line)))
        assert (found.talos_version, found.system) == (version, f"Talos ({version})")
        assert [one.version for one in found.extensions] == [version]
        assert found.kernel_version == f"6-{version}"
        assert found.imager["stub"] == f"systemd-stub {version}"
        assert found.kernel_arguments == (f"v={version}",)
        why = {one.what: one.why for one in found.unknown}
        assert why["talos_version"].startswith(f"it holds {other} too; {version} is what")
        assert "LoaderEntryDefault" in why["boot"]
        remake = remake_of(found)
        assert remake is not None and remake.version == version
        assert "of the systems in the file it makes the one that" in remake.notes[0]


def test_one_image_leaves_nothing_open() -> None:
    found = meaning_of(esp({"EFI/Linux/Talos-v1.13.0.efi": image("v1.13.0")}))
    assert not [one for one in found.unknown if one.what in ("boot", "talos_version")]


def entry(title: str, *more: str) -> Part:
    return text("\n".join([f"title {title}", "linux /k", f"options o={title}", *more]))


def test_entries_by_name_and_default() -> None:
    files = {"loader/entries/a-old.conf": entry("Old"), "loader/entries/b-new.conf": entry("New")}
    assert order(boot_entries(esp(files))) == ["b-new.conf", "a-old.conf"]
    chosen = boot_entries(esp(files | conf("default a-*")))
    assert order(chosen) == ["a-old.conf", "b-new.conf"]
    assert chosen.entries[0].kernel_arguments == ("o=Old",)
    assert chosen.starts == ("ESP/k",)


def test_the_order_of_the_boot_loader_specification() -> None:
    names = {
        "z.conf": entry("z"),
        "a-2.conf": entry("a2"),
        "a-10.conf": entry("a10"),
        "k1.conf": entry("k1", "sort-key m", "version 1.10"),
        "k2.conf": entry("k2", "sort-key m", "version 1.9"),
        "k3+0.conf": entry("k3", "sort-key a", "version 3"),
        "k4+2-1.conf": entry("k4", "sort-key b", "version 1~rc1"),
        "k5.conf": entry("k5", "sort-key b", "version 1"),
    }
    found = boot_entries(esp({f"loader/entries/{name}": one for name, one in names.items()}))
    assert [one.title for one in found.entries] == [
        *("k5", "k4", "k1", "k2", "z", "a10", "a2", "k3")
    ]


def test_addons_append_to_the_command_line() -> None:
    folder = "EFI/Linux/Talos.efi.extra.d"
    files = {
        "EFI/Linux/Talos.efi": image("v1.13.0", "a=1", more={".uname": "6.1"}),
        "EFI/Linux/Other.efi": image("v1.12.0", "b=1"),
        f"{folder}/2.addon.efi": addon("two=2"),
        f"{folder}/1.ADDON.EFI": addon("one=1 'x"),
        f"{folder}/note.efi": addon("no=1"),
        f"{folder}/3.addon.efi": addon("three=3", "6.2"),
        "loader/addons/all.addon.efi": addon("all=1"),
        "EFI/lone.addon.efi": addon("lone=1"),
    }
    found = boot_entries(esp(files))
    talos, other = found.entries
    assert talos.kernel_arguments == ("a=1", "all=1", "one=1", "'x", "two=2")
    assert [path.rpartition("/")[2] for path in talos.addons] == [
        *("all.addon.efi", "1.ADDON.EFI", "2.addon.efi")
    ]
    assert other.kernel_arguments == ("b=1", "all=1")
    said = "\n".join(found.problems)
    assert "3.addon.efi: an addon for another kernel, 6.2" in said
    assert "EFI/lone.addon.efi: an addon that no unified kernel image" in said
    assert "note.efi: an addon that no" in said and "all.addon" not in said


def test_an_addon_by_itself() -> None:
    data = make_pe([(".sdmagic", STUB), (".cmdline", b"extra=1 more=2")])
    found = inspect_source(BytesSource(data), "x").meaning
    assert (found.kind, found.kernel_arguments) == ("addon", ("extra=1", "more=2"))


def test_an_addon_in_a_real_archive() -> None:
    data = make_pe([(".sdmagic", STUB), (".cmdline", b"extra=1")])
    files = {"EFI/Linux/T.efi": uki(), "EFI/Linux/T.efi.extra.d/x.addon.efi": data}
    entries = inspect_source(BytesSource(tar(files)), "x").meaning.boot_entries
    assert [one.kernel_arguments[-1] for one in entries] == ["extra=1", "extra=1"]
    assert entries[0].addons == ("EFI/Linux/T.efi.extra.d/x.addon.efi",)


def iso(tree: Files, fat: Files) -> Meaning:
    return meaning_of(volume("iso", "", tree, volume("fat", "Appended2", fat)))


def test_of_an_iso_the_volume_that_uefi_reads_counts() -> None:
    path = "EFI/Linux/Talos.efi"
    own, copy = image("v1.13.0", "console=right"), image("v1.13.0", "console=wrong")
    found = iso({path: copy}, {path: own})
    assert [(one.path, one.kernel_arguments) for one in found.boot_entries] == [
        (f"Appended2/{path}", ("console=right",))
    ]
    assert found.unknown[0].why == (
        f"{path} is a copy that nothing boots, and not the same as Appended2/{path}"
    )
    same = iso({path: own}, {path: own})
    assert [one.path for one in same.boot_entries] == [f"Appended2/{path}"]
    assert not [one for one in same.unknown if one.what == "boot"]
    alone = iso({path: copy}, {})
    assert [one.path for one in alone.boot_entries] == [path]


def test_a_folder_that_no_loader_reads() -> None:
    found = boot_entries(esp({"backup/EFI/Linux/Talos.efi": image("v1.13.0")}))
    assert [one.loader for one in found.entries] == ["uki"]


@pytest.mark.parametrize(
    ("facts", "version"),
    [
        ({"volume_set_id": "Talos-v1.9.0", "label": "X"}, "v1.9.0"),
        ({"volume_set_id": "Talos-SB-v1.13.0-alpha.1"}, "v1.13.0-alpha.1"),
        ({"label": "TALOS_V1_9_0"}, "v1.9.0"),
        ({"label": "TALOS_SB_V1_10_0_BETA_2"}, "v1.10.0-beta.2"),
        ({"label": "TALOS_V1_10_0_DIRTY"}, ""),
        ({"volume_set_id": "my Talos-v1.9.0", "label": "TALOS"}, ""),
    ],
)
def test_the_name_of_an_iso_says_its_version(facts: dict[str, str], version: str) -> None:
    found = meaning_of(Part("", "iso", 1, facts=MappingProxyType(dict(facts))))
    assert found.talos_version == version
    said = [one.why for one in found.unknown if one.what == "talos_version"]
    assert bool(said) != bool(version)


def test_entries_that_would_fill_the_memory_are_not_all_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(booting, "_MAX_WORDS", 100)
    profiles = [(".profile", f"ID=p{n}".encode()) for n in range(50)]
    line = (".cmdline", b"a b c d e f g h i j")
    data = make_pe([(".linux", b"k"), (".sdmagic", STUB), line, *profiles])
    found = inspect_source(BytesSource(data), "x").meaning
    assert len(found.boot_entries) == 10
    assert any("more boot entries than are told" in one.why for one in found.unknown)
    many = {f"loader/addons/{n:03}.addon.efi": addon(f"n={n}") for n in range(300)}
    monkeypatch.setattr(booting, "_MAX_WORDS", 10_000)
    told = boot_entries(esp({"EFI/Linux/T.efi": image("v1.13.0")} | many))
    assert len(told.entries[0].addons) == 256
    assert "256.addon.efi: so many addons in a folder are not told" in told.problems[0]

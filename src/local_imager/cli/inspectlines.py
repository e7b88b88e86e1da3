"""An inspection as lines for a terminal: what counts first, long lists cut with a hint."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from local_imager.cli.sizes import counted, human_size
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.deliver.inspect.inspection import Inspection
    from local_imager.deliver.inspect.meaning import BootEntry, Meaning, SecureBoot
    from local_imager.deliver.inspect.parts import Part

_KINDS: Final = {
    "iso": "ISO",
    "disk": "disk image",
    "uki": "unified kernel image",
    "installer": "installer",
    "kernel": "kernel",
    "initramfs": "initramfs",
    "cmdline": "kernel command line",
    "image": "container image",
    "addon": "addon to a unified kernel image",
    "boot-loader": "EFI program",
    "volume": "file system",
    "meta": "META partition",
    "unknown": "file of a kind that is not known",
}
_LOADERS: Final = {"grub": "GRUB", "uki": "UKI", "none": "as it stands"}
_SIGNED: Final = {
    "signed": "signed",
    "partly-signed": "some of its EFI programs are signed and some are not",
    "unsigned": "not signed",
    "broken": "a signature does not fit what it signs",
}
_PACKED_BY: Final = ("extensions_filesystem", "extensions_packing")
# What the factory, and a normalised initramfs, have in place of the time of the run.
_FACTORY_EPOCH: Final = 1559424892
_MAX_ROWS: Final = 40
_MAX_SCHEMATIC_LINES: Final = 60
_MAX_CHILDREN: Final = 30
_MAX_WIDTH: Final = 120


def lines_of(done: Inspection, *, parts: bool = False, depth: int | None = None) -> Iterator[str]:
    """Yield the lines that `inspect` shows; with ``parts`` the tree to ``depth`` levels too."""
    meaning = done.meaning
    yield click.style(_shown(done.tree.name), bold=True)
    yield f"  {headline(meaning)}"
    yield ""
    yield from _rows(done)
    yield from _schematic(meaning)
    yield from _extensions(meaning)
    yield from _arguments(meaning.boot_entries)
    yield from _meta(meaning)
    yield from _again(done)
    yield from _unknown(meaning)
    if parts:
        yield from _heading("parts")
        yield from _tree(done.tree, depth)
        if any(part.size_bytes and not part.digest for _, part in done.tree.walk()):
            yield click.style("  parts above 192 MiB get a digest with --full", dim=True)
    else:
        below = sum(1 for _ in done.tree.walk()) - 1
        if below:
            yield ""
            yield click.style(f"{counted(below, 'part')} inside: --parts shows them", dim=True)


def headline(meaning: Meaning) -> str:
    """Say in a few words what the file is: ``Talos v1.13.0 disk image for metal, amd64``."""
    system = f"Talos {meaning.talos_version}" if meaning.talos_version else meaning.system
    kind = _KINDS[meaning.kind]
    words = f"{_shown(system)} {kind}" if system else kind[:1].upper() + kind[1:]
    words += f" for {meaning.platform}" if meaning.platform else ""
    return words + (f", {meaning.arch}" if meaning.arch else "")


def _rows(done: Inspection) -> Iterator[str]:
    meaning = done.meaning
    rows = [("size", _size(meaning))]
    if done.tree.digest:
        rows.append(("digest", done.tree.digest))
    rows += [
        ("boots with", _boots(meaning)),
        ("secure boot", _secure_boot(meaning.secure_boot)),
        ("kernel", _shown(meaning.kernel_version)),
        ("schematic", meaning.schematic_id),
    ]
    rows.append(("made with", _shown(", ".join(_made_with(meaning)))))
    if done.known is not None:
        known = done.known
        made = f"{known.tool}, {known.started_at}" if known.tool else "local-imager"
        rows.append(("made by", f"{made}, with the imager {known.builder or 'of that version'}"))
        name = f"{known.schematic_id[:12]}/{known.version}/{known.asset}"
        rows.append(("in the store", _shown(name)))
        if known.reproduced is not None:
            rows.append(("built again", "; ".join(known.reproduced.sentences())))
    given = [(name, text) for name, text in rows if text]
    width = max(len(name) for name, _ in given)
    for name, text in given:
        space = max(_width() - width - 4, 60)
        wrapped = textwrap.wrap(text, space, break_on_hyphens=False, break_long_words=False)
        first, *more = wrapped
        yield f"  {click.style(name.ljust(width), fg='cyan')}  {first}"
        yield from (f"  {'':{width}}  {line}" for line in more)


def _made_with(meaning: Meaning) -> Iterator[str]:
    """Say what shows how the imager made it: versions of programs, and when it packed."""
    facts = meaning.imager
    for name in ("loader", "stub", "iso_preparer"):
        if name in facts:
            yield facts[name].partition(",")[0]
    packed = [facts[name] for name in _PACKED_BY if name in facts]
    if packed:
        yield f"extensions as {' in '.join(packed)}{_packed_at(facts.get('extensions_mtime', ''))}"


def _packed_at(mtime: str) -> str:
    """Say when the extensions were packed, unless the time is a fixed one of long ago."""
    from datetime import UTC, datetime

    seconds = int(mtime) if mtime.isdecimal() and len(mtime) < 11 else 0
    if seconds <= _FACTORY_EPOCH:
        return ""
    return f", packed {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _size(meaning: Meaning) -> str:
    size = human_size(meaning.size_bytes)
    if not meaning.packing:
        return size
    return f"{size} ({', '.join(meaning.packing)}), {human_size(meaning.content_bytes)} inside"


def _boots(meaning: Meaning) -> str:
    loaders = dict.fromkeys(entry.loader for entry in meaning.boot_entries)
    efi = [name for name in ("systemd-boot",) if name in loaders]
    ways = []
    if meaning.uefi:
        ways.append("UEFI" + (f" ({', '.join(efi)})" if efi else ""))
    if meaning.bios:
        ways.append("BIOS" + (" (GRUB)" if "grub" in loaders else ""))
    if not ways and (meaning.uefi is not None or meaning.bios is not None):
        return "nothing: neither UEFI nor a BIOS finds a program in it"
    return " and ".join(ways)


def _secure_boot(state: SecureBoot) -> str:
    if state.state == "not-applicable":
        return ""
    words = _SIGNED[state.state]
    if state.signers:
        words += f" by {_names(state.signers)}"
    elif state.not_fitting:
        words += f" (by {_names(state.not_fitting)})"
    if state.pcr_signed:
        words += ", TPM policy signed"
    if state.enrols:
        words += f", enrols {', '.join(map(_shown, state.enrols[:6]))}"
    if state.enroll_keys:
        words += f" (systemd-boot enrols keys: {_shown(state.enroll_keys)})"
    if state.signers and state.not_fitting:
        words += f"; another signature, by {_names(state.not_fitting)}, does not fit"
    return words


def _names(signers: Sequence[str]) -> str:
    return "; ".join(_shown(signer) for signer in signers[:4])


def _schematic(meaning: Meaning) -> Iterator[str]:
    if meaning.schematic is None:
        return
    yield from _heading("schematic")
    lines = meaning.schematic.splitlines()
    for line in lines[:_MAX_SCHEMATIC_LINES]:
        yield f"  {_shown(line)}"
    if len(lines) > _MAX_SCHEMATIC_LINES:
        yield _more(len(lines) - _MAX_SCHEMATIC_LINES, "line", "--schematic writes all")


def _extensions(meaning: Meaning) -> Iterator[str]:
    if not meaning.extensions:
        return
    yield from _heading(f"extensions ({len(meaning.extensions)})")
    rows = [(one.name, one.version, one.author) for one in meaning.extensions]
    yield from _table(rows)


def _arguments(entries: Sequence[BootEntry]) -> Iterator[str]:
    if not entries:
        return
    first, rest = entries[0], entries[1:]
    title = _LOADERS.get(first.loader, first.loader)
    named = f", {first.title}" if first.title else ""
    yield from _heading(f"kernel arguments ({title}{named}{_with_addons(first)})")
    if first.kernel_arguments:
        yield from _wrapped(" ".join(first.kernel_arguments))
    else:
        yield "  (none)"
    if rest:
        yield from _heading(f"other boot entries ({len(rest)})")
        titles = Counter((entry.loader, entry.title) for entry in entries)
        rows = []
        for entry in rest:
            place = f" in {entry.path}" if titles[entry.loader, entry.title] > 1 else ""
            shown = f"{entry.title}{place}{_with_addons(entry) if place else ''}"
            rows.append((_LOADERS.get(entry.loader, entry.loader), shown, _against(first, entry)))
        yield from _table(rows)


def _with_addons(entry: BootEntry) -> str:
    names = [path.rpartition("/")[2] for path in entry.addons[:4]]
    more = f" and {len(entry.addons) - 4} more" if len(entry.addons) > 4 else ""
    return f", with {', '.join(names)}{more}" if names else ""


def _against(first: BootEntry, other: BootEntry) -> str:
    """Say what is different in the arguments of another entry."""
    added = [word for word in other.kernel_arguments if word not in first.kernel_arguments]
    gone = [word for word in first.kernel_arguments if word not in other.kernel_arguments]
    if not added and not gone:
        same = first.kernel_arguments == other.kernel_arguments
        return "the same arguments" if same else "the same arguments in another order"
    if len(added) + len(gone) > 12:
        return " ".join(other.kernel_arguments)
    return " ".join([*(f"+{word}" for word in added), *(f"-{word}" for word in gone)])


def _meta(meaning: Meaning) -> Iterator[str]:
    if not meaning.meta:
        return
    from local_imager.deliver.inspect.arguments import meta_name

    yield from _heading(f"META ({len(meaning.meta)})")
    rows = []
    for key, value in meaning.meta.items():
        lines = value.splitlines() or [""]
        more = f" … ({counted(len(lines), 'line')}, --json has all)" if len(lines) > 1 else ""
        rows.append((key, meta_name(key), lines[0] + more))
    yield from _table(rows)


def _again(done: Inspection) -> Iterator[str]:
    remake = done.remake
    if remake is None:
        return
    yield from _heading("make it again")
    name = _quoted(done.tree.name)
    if remake.guessed:
        yield from _wrapped(f"The schematic is a guess: {remake.guessed}.")
    yield f"  local-imager inspect {name} --schematic > schematic.yaml"
    yield f"  {remake.command}"
    for note in remake.notes:
        yield click.style(f"  {note}", dim=True)


def _unknown(meaning: Meaning) -> Iterator[str]:
    if not meaning.unknown:
        return
    yield from _heading("not told")
    for one in meaning.unknown[:_MAX_ROWS]:
        yield from _wrapped(f"{one.what.replace('_', ' ')}: {one.why}", colour="yellow")
    if len(meaning.unknown) > _MAX_ROWS:
        yield _more(len(meaning.unknown) - _MAX_ROWS, "reason", "--json has all")


def _tree(part: Part, depth: int | None, indent: int = 1) -> Iterator[str]:
    yield _part_line(part, indent)
    if depth is not None and indent > depth:
        below = sum(1 for _ in part.walk()) - 1
        if below:
            yield _more(below, "part", "a larger --depth shows them", indent + 1)
        return
    shown = part.children[:_MAX_CHILDREN]
    for child in shown:
        yield from _tree(child, depth, indent + 1)
    if len(part.children) > len(shown):
        yield _more(len(part.children) - len(shown), "part", "--json has all", indent + 1)


def _part_line(part: Part, indent: int) -> str:
    content = str(part.facts.get("content", ""))
    kind = f"{part.kind}: {content}" if content and content != part.kind else part.kind
    name = "  " * indent + _shown(part.name)
    if part.kind == "directory":
        return f"{name}/"
    if part.kind == "link":
        return f"{name} -> {_shown(str(part.facts.get('link_target', '')))}"
    if part.kind == "boot-entry" and "image" in part.facts:
        return f"{name} -> {_shown(str(part.facts['image']))}"
    digest = part.digest.removeprefix("sha256:")[:12] or "-"
    line = f"{name:<44}  {human_size(part.size_bytes):>10}  {digest:<12}  {kind}"
    return line + (click.style(f"  not read: {part.unread}", fg="yellow") if part.unread else "")


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield click.style(_shown(text), bold=True)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    shown = [[_shown(cell) for cell in row] for row in rows[:_MAX_ROWS]]
    widths = [min(max(len(row[n]) for row in shown), 60) for n in range(len(shown[0]) - 1)]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        start = "  " + "  ".join(cells)
        if len(start) + 2 + len(row[-1]) <= _width():
            yield f"{start}  {row[-1]}".rstrip()
        else:
            yield start.rstrip()
            yield from _wrapped(row[-1], indent=6)
    if len(rows) > len(shown):
        yield _more(len(rows) - len(shown), "row", "--json has all")


def _wrapped(text: str, *, indent: int = 2, colour: str | None = None) -> Iterator[str]:
    space = " " * indent
    for line in textwrap.wrap(
        _shown(text, limit=20_000),
        _width(),
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield click.style(line, fg=colour) if colour else line


def _more(number: int, word: str, hint: str, indent: int = 1) -> str:
    return click.style(f"{'  ' * indent}… and {counted(number, f'more {word}')} ({hint})", dim=True)


def _width() -> int:
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, _MAX_WIDTH))


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(_shown(name))


def _shown(untrusted_text: str, *, limit: int = 400) -> str:
    return printable(untrusted_text, limit=limit)

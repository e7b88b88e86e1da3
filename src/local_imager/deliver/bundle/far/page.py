"""The import report as a page that a person prints and signs: no scripts, nothing loaded.

Every text from outside is escaped, and the page forbids everything but its own style. It names the
SHA-256 of the JSON report, so that paper and file belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Final

from local_imager import __version__
from local_imager.deliver.bundle.far.completing import Outcome
from local_imager.deliver.bundle.far.report import FileReport, ImportReport, PartReport
from local_imager.deliver.bundle.form.words import short_name
from local_imager.deliver.bundle.reading.faults import MAX_AFFECTS, Fault
from local_imager.events import printable
from local_imager.oci.model import Digest

_STYLE: Final = """
@page { size: A4; margin: 16mm 14mm 18mm; }
body { font: 10pt/1.35 sans-serif; color: #000; background: #fff; max-width: 182mm;
  margin: 6mm auto; }
h1 { font-size: 17pt; margin: 0 0 1mm; }
h2 { font-size: 12pt; margin: 7mm 0 2mm; border-bottom: 0.4mm solid #000; break-after: avoid; }
p { margin: 1.5mm 0; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: 1mm 1.5mm; border-bottom: 0.2mm solid #888;
  overflow-wrap: anywhere; }
th { font-weight: bold; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
code, .digest { font: 8pt/1.3 monospace; overflow-wrap: anywhere; }
.verdict { font-size: 12pt; font-weight: bold; border: 0.6mm solid #000; padding: 2mm 3mm;
  margin: 3mm 0; }
.bad { font-weight: bold; }
.small { font-size: 8.5pt; }
td.size, th.size { text-align: right; width: 19mm; }
th.state { width: 24mm; }
.sign td { height: 14mm; border: 0.2mm solid #000; }
""".strip()
# Words of a state, and whether it asks for something to be done.
_STATES: Final = {
    "imported": ("imported", False),
    "present": ("already there", False),
    "ready": ("would be imported", False),
    "carried": ("not written out", False),
    "written": ("written out", False),
    "refused": ("REFUSED", True),
    "waiting": ("WAITS", True),
    "lacking": ("LACKS A BLOB", True),
    "faulty": ("DAMAGED", True),
    "kept-back": ("KEPT BACK", True),
}
_WORDS: Final = {
    "imported": "imported",
    "present": "already there",
    "ready": "would be imported",
    "refused": "refused",
    "waiting": "waiting",
    "lacking": "lacking a blob that never comes",
    "faulty": "damaged",
    "kept-back": "kept back because of faults elsewhere",
}
SizeText = Callable[[int], str]


def verdict_text(report: ImportReport) -> str:
    """Say in a few words how the import ended: what became of how many images and assets."""
    counts = [
        f"{report.counts[state]} {_WORDS[state]}" for state in _WORDS if state in report.counts
    ]
    said = f"Images and assets: {', '.join(counts) or 'none'}."
    missing = [part.number for part in report.parts if part.state == "missing"]
    if missing and len(report.parts) > 1:
        said += f" To come: {_numbers(missing)} of {len(report.parts)}."
    if report.faults:
        said = f"The files are damaged or were changed. {said}"
    return f"Dry run, nothing was written. {said}" if report.dry_run else said


def render_page(report: ImportReport, size_text: SizeText) -> bytes:
    """Return the page (UTF-8 HTML, self-contained) of a report; ``size_text`` writes sizes."""
    return "\n".join(_page(report, size_text)).encode() + b"\n"


def _text(untrusted: str, limit: int = 2000) -> str:
    return escape(printable(untrusted, limit=limit))


def _page(report: ImportReport, size_text: SizeText) -> Iterator[str]:
    title = f"Import of bundle {report.set_digest.short}"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield (
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    yield f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>"
    yield f"<h1>{title}</h1>"
    yield f'<p class="verdict">{_text(verdict_text(report))}</p>'
    yield from _summary(report)
    yield from _items("Images", report, "image", size_text)
    yield from _items("Assets", report, "asset", size_text)
    yield from _items("Documents", report, "document", size_text)
    yield from _parts(report.parts)
    yield from _files(report.files, size_text)
    yield from _problems(report)
    yield from _signatures()
    yield f'<p class="small">local-imager {escape(__version__)}. SHA-256 of the JSON report:<br>'
    yield f"<code>{Digest.of(report.to_json()).hex}</code></p>\n</body>\n</html>"


def _summary(report: ImportReport) -> Iterator[str]:
    yield "<h2>What was imported</h2>\n<table><tbody>"
    yield _row("Bundle (SHA-256 of bundle.json)", f"<code>{report.set_digest.hex}</code>")
    yield _row("Time", _text(report.time))
    signed = report.signed_by
    if signed is not None:
        yield _row("Signed by", _text(str(signed["signer"])))
        yield _row("Accepted by the rule", _text(str(signed["policy"])))
    else:
        yield _row("Signed by", f'<span class="bad">{_text(report.unvouched)}</span>')
    for name, values in report.facts.items():
        yield _row(f"{_text(name)} (the bundle says)", _text(", ".join(values)))
    for root in report.roots:
        where = escape(root.where) + (", kept by this import" if root.kept else "")
        yield _row(f"Trusted root, {where}", f"<code>{_text(root.digest)}</code>")
    yield "</tbody></table>"


def _row(name: str, cell: str) -> str:
    return f'<tr><th style="width: 52mm">{name}</th><td>{cell}</td></tr>'


def _items(title: str, report: ImportReport, kind: str, size_text: SizeText) -> Iterator[str]:
    outcomes = [one for one in report.outcomes if one.item.kind == kind]
    if not outcomes:
        return
    yield f"<h2>{title} ({len(outcomes)})</h2>\n<table>"
    yield (
        '<thead><tr><th class="state">State</th><th>Name, digest, who signed</th>'
        '<th class="size">Size</th></tr></thead>\n<tbody>'
    )
    for one in outcomes:
        word, bad = _STATES[report.state_of(one)]
        state = f'<span class="bad">{word}</span>' if bad else word
        size = size_text(one.size_bytes)
        yield f'<tr><td>{state}</td><td>{_item(one)}</td><td class="size">{size}</td></tr>'
    yield "</tbody></table>"


def _item(one: Outcome) -> str:
    lines = [
        f"<b>{_text(short_name(one.item.name))}</b>"
        + (f" ({_text(', '.join(one.item.arches))})" if one.item.arches else ""),
        f'<span class="digest">{one.item.descriptor.digest}</span>',
    ]
    if one.unverified:
        lines.append('<span class="bad">NOT VERIFIED: the policy says to accept it so</span>')
    elif one.signer:
        rule = f", rule {_text(one.policy)}" if one.policy else ""
        lines.append(f'<span class="small">signed by {_text(one.signer)}{rule}</span>')
    if one.replaces:
        lines.append(f'<span class="bad">was <code>{_text(one.replaces)}</code> before</span>')
    if one.parts:
        lines.append(f"waits for {_numbers(one.parts)}")
    if one.message:
        code = f"{_text(one.code)}: " if one.code else ""
        lines.append(f'<span class="small">{code}{_text(one.message)}</span>')
    if one.hint and one.message:
        lines.append(f'<span class="small">{_text(one.hint)}</span>')
    return "<br>".join(lines)


def _numbers(numbers: Sequence[int]) -> str:
    word = "part" if len(numbers) == 1 else "parts"
    return f"{word} {', '.join(map(str, numbers))}"


def _parts(parts: Sequence[PartReport]) -> Iterator[str]:
    if len(parts) < 2:
        return
    words = {"here": "here", "missing": "MISSING", "not-needed": "not needed"}
    yield f"<h2>Parts ({len(parts)})</h2>\n<table>"
    yield (
        '<thead><tr><th class="state">State</th><th class="size">Part</th>'
        "<th>It holds blobs of</th></tr></thead>\n<tbody>"
    )
    for part in parts:
        state = words[part.state]
        if part.state == "missing":
            state = f'<span class="bad">{state}</span>'
        number = f"{part.number} of {len(parts)}"
        holds = ", ".join(_text(short_name(name)) for name in part.items)
        yield f'<tr><td>{state}</td><td class="size">{number}</td><td>{holds}</td></tr>'
    yield "</tbody></table>"


def _files(files: Iterable[FileReport], size_text: SizeText) -> Iterator[str]:
    yield "<h2>Files that were read</h2>\n<table>"
    yield (
        '<thead><tr><th>File</th><th class="state">Part</th><th class="size">Read</th></tr>'
        "</thead>\n<tbody>"
    )
    for file in files:
        number = f"{file.part} of {file.parts}" if file.part else "unknown"
        read = size_text(file.bytes_read) if file.whole else "its begin"
        yield (
            f"<tr><td>{_text(file.name)}{_faults(file)}</td><td>{number}</td>"
            f'<td class="size">{read}</td></tr>'
        )
    yield "</tbody></table>"


def _faults(file: FileReport) -> str:
    if not file.faults:
        return ""
    shown = [_fault(fault) for fault in file.faults]
    if file.more_faults:
        shown.append(f"<br>and {file.more_faults} more faults")
    return f'<span class="small">{"".join(shown)}</span>'


def _fault(fault: Fault) -> str:
    touched = ", ".join(_text(short_name(name)) for name in fault.affects[:MAX_AFFECTS])
    if len(fault.affects) > MAX_AFFECTS:
        touched += f" and {len(fault.affects) - MAX_AFFECTS} more"
    where = f"{_text(fault.member)}: {_text(fault.text)}"
    more = f" Touches {touched}." if touched else ""
    return f'<br><span class="bad">{escape(fault.kind)}</span> {where}{more}'


def _problems(report: ImportReport) -> Iterator[str]:
    if not report.problems:
        return
    yield "<h2>What else was asked for and not done</h2>"
    for problem in report.problems:
        yield f"<p>{_text(problem.message)}<br>{_text(problem.hint)}</p>"


def _signatures() -> Iterator[str]:
    yield '<h2>Seen by</h2>\n<table class="sign"><thead><tr><th>Name</th><th>Date</th>'
    yield "<th>Signature</th></tr></thead><tbody><tr><td></td><td></td><td></td></tr></tbody>"
    yield "</table>"

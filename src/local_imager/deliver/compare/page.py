"""A comparison as a page: one file, no scripts, nothing loaded, for screen (light, dark) and paper.

Every text from either side is escaped, and the page forbids everything but its own style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from local_imager import __version__
from local_imager.deliver.compare.pagestyle import STYLE
from local_imager.deliver.compare.report import (
    REASONS,
    WORDS,
    expected_text,
    offset_text,
    side_text,
    verdict_text,
)
from local_imager.deliver.compare.sidetable import side_rows
from local_imager.deliver.compare.verdict import Comparison, Difference, Verdict
from local_imager.events import printable

_SIGNS: Final = {
    Verdict.IDENTICAL: "=",
    Verdict.SAME_CONTENT: "≅",
    Verdict.NAMED_NOISE: "≈",
    Verdict.DIFFERENT: "≠",
}
_EXPLAINED: Final = {
    Verdict.IDENTICAL: "Both sides are the same to the byte.",
    Verdict.SAME_CONTENT: "Unpacked, both sides hold the same to the byte; only compression, "
    "container format or layout differ.",
    Verdict.NAMED_NOISE: "Files, command lines, code and settings are the same. All that differs "
    "is on the documented list of noise, each entry with its reason.",
    Verdict.DIFFERENT: "The sides differ in what they hold.",
}


def render_page(comparison: Comparison) -> bytes:
    """Return the page of one comparison (UTF-8 HTML, self-contained)."""
    body = [
        "<header><h1>Comparison</h1></header>",
        f"<main>{''.join(_comparison(comparison, 'c1'))}</main>",
    ]
    return _page("Comparison", comparison.verdict, body)


def render_summary(title: str, results: Sequence[tuple[str, Comparison | str]]) -> bytes:
    """Return one page for many comparisons, a table of verdicts first.

    ``results`` are names with their comparison, or with a sentence that says why there is none.
    """
    done = [result.verdict for _, result in results if isinstance(result, Comparison)]
    failed = len(done) < len(results)
    worst = Verdict.DIFFERENT if failed else max(done, default=Verdict.IDENTICAL)
    body = [f"<header><h1>{_text(title)}</h1></header><main>", *_overview(results)]
    for number, (name, result) in enumerate(results, 1):
        body.append(f'<section class="one" id="r{number}"><h2 class="name">{_text(name)}</h2>')
        if isinstance(result, Comparison):
            body.extend(_comparison(result, f"c{number}"))
        else:
            body.append(f'<div class="banner failed"><p>not compared: {_text(result)}</p></div>')
        body.append("</section>")
    return _page(title, worst, [*body, "</main>"])


def _text(untrusted: str, limit: int = 4000) -> str:
    return escape(printable(untrusted, limit=limit))


def _page(title: str, verdict: Verdict, body: Sequence[str]) -> bytes:
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)}: {WORDS[verdict]}</title>\n<style>\n{STYLE}\n</style>\n</head>\n"
    )
    foot = f"<footer>local-imager {escape(__version__)}</footer>"
    return (head + "<body>\n" + "\n".join(body) + f"\n{foot}\n</body>\n</html>\n").encode()


def _overview(results: Sequence[tuple[str, Comparison | str]]) -> Iterator[str]:
    yield '<table class="overview"><thead><tr><th>Asset</th><th>Verdict</th></tr></thead><tbody>'
    for number, (name, result) in enumerate(results, 1):
        link = f'<a href="#r{number}">{_text(name)}</a>'
        if isinstance(result, Comparison):
            word, mark = verdict_text(result), result.verdict.word
        else:
            word, mark = f"not compared: {result}", "failed"
        yield (
            f'<tr><th scope="row">{link}</th>'
            f'<td><span class="dot {mark}"></span>{_text(word)}</td></tr>'
        )
    yield "</tbody></table>"


def _comparison(comparison: Comparison, mark: str) -> Iterator[str]:
    verdict = comparison.verdict
    yield (
        f'<div class="banner {verdict.word}"><span class="sign" aria-hidden="true">'
        f'{_SIGNS[verdict]}</span><div><p class="verdict">{_text(verdict_text(comparison))}</p>'
        f"<p>{_EXPLAINED[verdict]}</p></div></div>"
    )
    yield '<dl class="asked">'
    for word, side in (("Left", comparison.left), ("Right", comparison.right)):
        yield f"<dt>{word}</dt><dd>{_text(side_text(side))}</dd>"
    yield "</dl>"
    real = [one for one in comparison.differences if one.change not in ("packing", "noise")]
    if real:
        yield "<h2>Differences</h2>"
        yield from (_difference(one, f"{mark}d{n}", n) for n, one in enumerate(real, 1))
        total = sum(comparison.counts.get(key, 0) for key in ("altered", "only-left", "only-right"))
        if total > len(real):
            yield f'<p class="quiet">… and {total - len(real):,} more, cut by the limit.</p>'
    yield from _lesser("Packed differently", comparison, "packing")
    yield from _lesser("Named noise", comparison, "noise")
    yield "<h2>The two sides</h2>"
    yield from _sides(comparison)
    yield "<h2>What was to be expected</h2>"
    sentence = expected_text(comparison)
    yield f"<p>{_text(_sentence(sentence))}</p>"
    if comparison.notes:
        notes = "".join(f"<li>{_text(note)}</li>" for note in comparison.notes)
        yield f"<h2>Notes</h2><ul>{notes}</ul>"


def _difference(one: Difference, mark: str, number: int) -> str:
    lacks = {"only-left": "on the left side only", "only-right": "on the right side only"}
    tag = f' <span class="tag">{lacks[one.change]}</span>' if one.change in lacks else ""
    place = f'<p class="place">{_path(one.path)}</p>' if one.path else ""
    pieces = [
        f'<article class="difference" id="{mark}"><h3><span class="number">{number}</span>'
        f"{_text(one.what)}{tag}</h3>{place}",
        '<div class="values">',
        _value("left", one.left),
        _value("right", one.right),
        "</div>",
    ]
    if offset_text(one):
        pieces.append(f'<p class="quiet">{_text(_sentence(offset_text(one)))}</p>')
    if one.diff:
        pieces.append(f"<details open><summary>Diff</summary>{_diff(one.diff)}</details>")
    if one.consequences:
        pieces.append(_consequences(one.consequences))
    return "".join([*pieces, "</article>"])


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _value(side: str, value: str) -> str:
    shown = _text(value) if value else '<span class="quiet">not there</span>'
    return f'<div class="value {side}"><span class="who">{side}</span><code>{shown}</code></div>'


def _path(path: str) -> str:
    """Return a path that may break at its slashes."""
    return f"<code>{_text(path).replace('/', '/<wbr>')}</code>"


def _diff(diff: str) -> str:
    classes = {"-": "gone", "+": "come", "@": "hunk"}
    rows = []
    for line in diff.split("\n"):
        mark = classes.get(line[:1], "same")
        rows.append(f'<span class="{mark}">{_text(line) or " "}</span>')
    return f'<pre class="diff">{"".join(rows)}</pre>'


def _consequences(consequences: Sequence[Difference]) -> str:
    rows = []
    for one in consequences:
        place = _path(one.path) if one.path else '<span class="quiet">the file as a whole</span>'
        diff = f"<details><summary>Diff</summary>{_diff(one.diff)}</details>" if one.diff else ""
        values = "" if diff else f'<div class="small">{_pair(one)}</div>'
        rows.append(f"<tr><td>{_text(one.what)}</td><td>{place}{values}{diff}</td></tr>")
    count = len(rows)
    word = "1 more goes" if count == 1 else f"{count} more go"
    return (
        f"<details><summary>{word} with this difference</summary>"
        f'<table class="follows"><tbody>{"".join(rows)}</tbody></table></details>'
    )


def _pair(one: Difference) -> str:
    left, right = (_text(value) or "not there" for value in (one.left, one.right))
    return f"<code>{left}</code> → <code>{right}</code>"


def _lesser(title: str, comparison: Comparison, change: str) -> Iterator[str]:
    rows = [one for one in comparison.differences if one.change == change]
    if not rows:
        return
    yield f'<h2>{title}</h2><table class="lesser"><thead><tr>'
    yield "<th>What</th><th>Where</th><th>Left</th><th>Right</th></tr></thead><tbody>"
    for one in rows:
        code = f"<code>{_text(one.noise)}</code><br>" if one.noise else ""
        reason = REASONS.get(one.noise, "")
        why = f'<div class="small">{_text(reason)}</div>' if reason else ""
        place = _path(one.path) if one.path else "the whole file"
        yield (
            f"<tr><td>{code}{_text(one.what)}{why}</td><td>{place}</td>"
            f"<td><code>{_text(one.left)}</code></td><td><code>{_text(one.right)}</code></td></tr>"
        )
    yield "</tbody></table>"


def _sides(comparison: Comparison) -> Iterator[str]:
    yield '<table class="sides"><thead><tr><th></th><th>Left</th><th>Right</th></tr></thead><tbody>'
    for row in side_rows(comparison.left, comparison.right):
        differs = ' class="differs"' if row.left != row.right and row.counts else ""
        cells = "".join(
            f"<td>{'<br>'.join(_text(line) for line in lines) or '–'}</td>"
            for lines in (row.left, row.right)
        )
        yield f'<tr{differs}><th scope="row">{escape(row.title)}</th>{cells}</tr>'
    yield "</tbody></table>"

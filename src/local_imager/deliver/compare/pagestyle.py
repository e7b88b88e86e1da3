"""The style sheet of the comparison's page: light and dark by the reader's choice, and on paper."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1c1e21;
  --quiet: #626a73; --line: #dcdfe3; --soft: #f1f3f5; --link: #1a5fb4;
  --gone: #b3261e; --gone-soft: #fdecea; --come: #1a7037; --come-soft: #e6f4ea;
  --good: #1a7037; --good-soft: #e6f4ea; --noise: #8a5a00; --noise-soft: #fff4dc;
  --bad: #b3261e; --bad-soft: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e6e8ea;
  --quiet: #9aa4ae; --line: #343b43; --soft: #23292f; --link: #8ab8ff;
  --gone: #ff9b92; --gone-soft: #3a2020; --come: #7fd69a; --come-soft: #1a3323;
  --good: #7fd69a; --good-soft: #1a3323; --noise: #f0c36d; --noise-soft: #372c14;
  --bad: #ff9b92; --bad-soft: #3a2020; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .7rem; }
h2.name { font-size: 1.3rem; border-top: 2px solid var(--line); padding-top: 1.6rem; }
h3 { font-size: 1rem; margin: 0; display: flex;
  align-items: baseline; gap: .6rem; flex-wrap: wrap; }
p { margin: .3rem 0; }
a { color: var(--link); }
code, pre { font: .85em/1.45 ui-monospace, "Cascadia Mono", "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.quiet, .small, footer { color: var(--quiet); }
.small { font-size: .85em; margin-top: .2rem; }
.banner { display: flex; gap: 1rem; align-items: center; padding: 1rem 1.25rem; border-radius: 10px;
  border: 1px solid; }
.banner .sign { font-size: 2.4rem; line-height: 1; font-weight: 700; }
.banner p { margin: 0; color: var(--ink); }
.banner .verdict { font-weight: 700; font-size: 1.15rem; color: inherit; }
.identical, .same-content { color: var(--good); background: var(--good-soft); }
.named-noise { color: var(--noise); background: var(--noise-soft); }
.different, .failed { color: var(--bad); background: var(--bad-soft); }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .5em;
  background: currentColor; }
.asked { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; }
.asked dt { font-weight: 600; } .asked dd { margin: 0; overflow-wrap: anywhere; }
.difference { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1.1rem; margin: 0 0 .8rem; break-inside: avoid; }
.number { display: inline-flex; min-width: 1.6em; height: 1.6em; border-radius: 50%;
  align-items: center; justify-content: center; font-size: .8rem; background: var(--soft);
  color: var(--quiet); }
.tag { font-weight: 400; font-size: .8rem; color: var(--quiet); border: 1px solid var(--line);
  border-radius: 99px; padding: 0 .6em; }
.place { margin: .2rem 0 .6rem; color: var(--quiet); }
.values { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; margin-top: .5rem; }
.value { border-radius: 6px; padding: .35rem .7rem .45rem; min-width: 0; }
.value .who { display: block; font-size: .72rem; text-transform: uppercase; letter-spacing: .05em;
  color: var(--quiet); }
.value.left { background: var(--gone-soft); }
.value.right { background: var(--come-soft); }
details { margin-top: .6rem; }
summary { cursor: pointer; color: var(--link); width: fit-content; }
pre.diff { margin: .4rem 0 0; padding: .5rem 0; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); white-space: pre-wrap; max-height: 30rem; overflow: auto; }
pre.diff span { display: block; padding: 0 .8rem; }
.gone { background: var(--gone-soft); color: var(--gone); }
.come { background: var(--come-soft); color: var(--come); }
.hunk { color: var(--quiet); }
table { border-collapse: collapse; width: 100%; table-layout: fixed; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
th, td { text-align: left; vertical-align: top; padding: .45rem .8rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { font-size: .8rem; color: var(--quiet); font-weight: 600; }
th[scope=row] { font-weight: 600; }
.sides th:first-child { width: 11rem; }
.lesser th:first-child { width: 38%; }
.follows { margin-top: .4rem; } .follows td:first-child { width: 32%; }
.overview th:first-child { width: 22rem; }
tr.differs td { background: var(--noise-soft); }
footer { margin-top: 3rem; font-size: .85rem; }
@media (max-width: 44rem) { .values { grid-template-columns: 1fr; }
  .sides th:first-child, .overview th:first-child { width: 30%; } }
@page { size: A4; margin: 14mm; }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --quiet: #444; --line: #999;
    --soft: #eee; --gone: #8c1d18; --come: #14532d; --gone-soft: #fff; --come-soft: #fff;
    --noise-soft: #f3f3f3; --good-soft: #fff; --bad-soft: #fff; --link: #000; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  details::details-content { content-visibility: visible; display: block; }
  pre.diff { max-height: none; } thead { display: table-header-group; } tr { break-inside: avoid; }
  .value { border: 1px solid var(--line); } section.one { break-before: page; } }
""".strip()

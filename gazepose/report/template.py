"""Template: the pages' HTML and their style sheet. What is filled in is page.py and comparison.py."""

STYLE = """
:root { --back: #f3f5f6; --paper: #ffffff; --ink: #1d2327; --muted: #5d676f; --line: #d9dee2; --accent: #0b7a75; }
@media (prefers-color-scheme: dark) {
  :root { --back: #121619; --paper: #1b2024; --ink: #e8ecef; --muted: #98a3ab; --line: #3a4248;
    --accent: #45c7bd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1rem 3rem; max-width: 66rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.02rem; margin: 0 0 .6rem; }
.eyebrow { margin: 0; color: var(--accent); font-weight: 600; font-size: .9rem; }
.lede { margin: 0 0 1rem; color: var(--muted); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1rem; margin: 0 0 1.2rem; }
.tiles div, figure, section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; }
.tiles b { display: block; font-size: 2rem; line-height: 1.1; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles div:first-child b { color: var(--accent); }
.tiles i { font-style: normal; font-size: 1rem; font-weight: 400; color: var(--muted); }
.tiles span { font-weight: 600; }
.tiles small { display: block; margin-top: .3rem; color: var(--muted); font-size: .82rem; line-height: 1.4; }
.columns { columns: 25rem; column-gap: 1rem; margin: 1rem 0; }
figure { margin: 0; break-inside: avoid; }
figure + figure, figure + section { margin-top: 1rem; }
picture img { display: block; width: 100%; height: auto; }
h3 { font-size: .92rem; font-weight: 600; margin: 1rem 0 .6rem; }
.part { margin: 1.6rem 0 .3rem; }
.faces { display: grid; grid-template-columns: repeat(6, 1fr); gap: .9rem .8rem; }
.faces img { display: block; width: 100%; border-radius: 6px; }
.faces b { display: block; margin-top: .25rem; font-size: .9rem; font-variant-numeric: tabular-nums; }
.faces small { display: block; color: var(--muted); font-size: .74rem; line-height: 1.35; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(25rem, 100%), 1fr)); gap: 1rem;
  margin: 0 0 1rem; }
.pairs figure + figure { margin-top: 0; }
section + section { margin-top: 1rem; }
a { color: var(--accent); }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .45em; }
figcaption, .note, .missing { color: var(--muted); font-size: .88rem; }
figcaption { margin-top: .5rem; }
.note, .missing { margin: .5rem 0 0; padding-left: .7rem; border-left: 3px solid var(--line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 500; color: var(--muted); }
.wide td { white-space: nowrap; }
.wide td, .wide th { padding-left: .35rem; padding-right: .45rem; }
.wide th:first-child { min-width: 8.5rem; overflow-wrap: anywhere; }
.own > * { color: var(--ink); font-weight: 600; }
.facts td { text-align: left; overflow-wrap: anywhere; }
.facts th { white-space: nowrap; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.4; }
@media (max-width: 720px) { body { padding: 1.2rem .7rem 2rem; } figure, section, .tiles div { padding: .8rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: .6rem; } .tiles div:first-child { grid-column: 1 / -1; }
  .scroll th:first-child { min-width: 9.5rem; }
  .faces { grid-template-columns: repeat(3, 1fr); }
  .facts th { white-space: normal; } }
"""

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{name} · Looking At Me</title>
<style>{style}</style></head><body>
<p class="eyebrow">Is the camera wearer looked at?</p>
<h1>{name}</h1>
"""

PAGE = HEAD + """{lede}
<section>{table}{notes}</section>
<div class="columns">{cards}</div>
{tracks}
{mistakes}
<section><h2>The run</h2><table class="facts">{facts}</table>{config}</section>
</body></html>
"""

COMPARISON = HEAD + """{lede}
<section>{table}{notes}</section>
<div class="columns">{cards}</div>
<section><h2>What differs</h2>{differing}</section>
</body></html>
"""

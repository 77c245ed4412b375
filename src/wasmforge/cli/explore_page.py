"""The HTML of `wasmforge explore`: columns of lines with positions in, one self-contained page out.

Threat: names and strings of a module are its author's, and the page runs scripts in the reader's browser. So every text
goes through `_escape`, attributes hold numbers only, and the page's own policy allows the one script that it was
written with and no connection: what should get past the escaping would still not run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    Column = Sequence[tuple[str, int | None]]
    """Lines of text, each with its position in the binary."""

__all__ = ["page"]

TITLES: Final = ("WebAssembly", "LLVM IR", "x86-64")

STYLE: Final = """
body { margin: 0; font: 12px/1.45 ui-monospace, Menlo, Consolas, monospace; background: #fff; color: #1b1f24; }
header { position: sticky; top: 0; background: #f6f8fa; border-bottom: 1px solid #d0d7de; padding: 6px 12px; }
h1 { font-size: 14px; margin: 0; } h2 { font-size: 13px; margin: 0; padding: 8px 12px; background: #f6f8fa; }
.columns { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); }
.columns > div { overflow: auto; max-height: 80vh; border-right: 1px solid #d0d7de; padding: 4px 0; }
.columns b { display: block; padding: 0 8px; color: #656d76; font-weight: normal; }
p { margin: 0; padding: 0 8px; white-space: pre; min-height: 1.45em; }
p[data-p] { cursor: default; border-left: 3px solid hsl(var(--h, 210) 70% 60%); padding-left: 5px; }
p:not([data-p]) { color: #656d76; border-left: 3px solid transparent; padding-left: 5px; }
p.lit { background: #fff3b0; } p.kept { background: #ffd866; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } header, h2 { background: #161b22; }
  header, .columns > div { border-color: #30363d; } p.lit { background: #4a3f00; } p.kept { background: #6b5900; }
}
"""

SCRIPT: Final = """
"use strict";
for (const section of document.querySelectorAll("section")) {
  const groups = new Map();
  for (const line of section.querySelectorAll("p[data-p]")) {
    const key = line.dataset.p;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(line);
    line.style.setProperty("--h", String(Number(key) * 47 % 360));
  }
  const group = event => {
    const line = event.target.closest("p[data-p]");
    return line ? groups.get(line.dataset.p) : [];
  };
  section.addEventListener("mouseover", event => { for (const line of group(event)) line.classList.add("lit"); });
  section.addEventListener("mouseout", event => { for (const line of group(event)) line.classList.remove("lit"); });
  section.addEventListener("click", event => {
    const lines = group(event), own = event.target.closest(".columns > div"), seen = new Set([own]);
    for (const line of section.querySelectorAll("p.kept")) line.classList.remove("kept");
    for (const line of lines) {
      line.classList.add("kept");
      const column = line.parentElement;
      if (!seen.has(column)) {
        seen.add(column);
        column.scrollTop = line.offsetTop - column.offsetTop - column.clientHeight / 2;
      }
    }
  });
}
"""


def page(title: str, functions: Sequence[tuple[str, Sequence[Column]]]) -> str:
    """The page for functions: a heading, and a column for each of `TITLES`. Headings and lines may hold anything."""
    return "\n".join(_lines(title, functions)) + "\n"


def _lines(title: str, functions: Sequence[tuple[str, Sequence[Column]]]) -> Iterator[str]:
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(SCRIPT)}'; base-uri 'none'"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{_escape(title)} - wasmforge explore</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield f"<header><h1>{_escape(title)}</h1></header>"
    for name, columns in functions:
        yield f'<section>\n<h2>{_escape(name)}</h2>\n<div class="columns">'
        for heading, column in zip(TITLES, columns, strict=True):
            yield f"<div><b>{heading}</b>"
            for text, position in column:
                attribute = "" if position is None else f' data-p="{position:d}"'
                yield f"<p{attribute}>{_escape(text)}</p>"
            yield "</div>"
        yield "</div>\n</section>"
    yield f"<script>{SCRIPT}</script>\n</body>\n</html>"


def _digest(text: str) -> str:
    from base64 import b64encode
    from hashlib import sha256

    return b64encode(sha256(text.encode()).digest()).decode()


def _escape(text: str) -> str:
    """Text for HTML."""
    from html import escape

    from wasmforge.cli.printable import printable

    return escape(printable(text), quote=True)

"""The table of `wasmforge run --tiers`: which functions ran in which tier, with sizes, counts and times. `run` prints
it when the program has ended, however it did."""

from __future__ import annotations

from wasmforge.cli.printable import shortened
from wasmforge.runtime.lazy_code import BASELINE, NO_FUNCTION, OPTIMISED
from wasmforge.runtime.lazy_module import LazyModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from wasmforge.module import Module
    from wasmforge.runtime.lazy_code import Piece

__all__ = ["report"]

NAMES: Final = {BASELINE: "baseline", OPTIMISED: "llvm"}
HEADER: Final[tuple[str, ...]] = ("function", "tiers", "wasm", "code", "counted", "compiled in")


def report(named: Sequence[tuple[str, Module]]) -> str:
    """The tables of some modules with their names, as lines of text.

    `wasm` and `code` are bytes; of code, that of each tier. `counted` are the calls and iterations that baseline code
    counted: where there is no tier-up it counts nothing, nor do small functions that only compute.
    """
    return "".join("\n".join(_module_lines(name, module)) + "\n" for name, module in named)


def _module_lines(name: str, module: Module) -> Iterator[str]:
    compiled = module._open()
    yield f"{name}:"
    if not isinstance(compiled, LazyModule):
        text = compiled.engine_code.text_range()
        size = text.end.raw() - text.start.raw()
        yield f"  {len(compiled.info.functions)} functions, compiled ahead of time: {size:,} bytes of code"
        return
    pieces: dict[int, list[Piece]] = {}
    for piece in list(compiled.code.pieces.values()):
        if piece.function != NO_FUNCTION:
            pieces.setdefault(piece.function, []).append(piece)
    rows: list[tuple[str, ...]] = [HEADER]
    counts = {x: compiled.count(x) for x in pieces}
    rows += [_row(compiled, x, pieces[x], counts[x]) for x in sorted(pieces, key=lambda x: (-counts[x], x))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADER))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[:2] = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        yield "  " + "  ".join(cells).rstrip()
    yield from _totals(compiled, [piece for group in pieces.values() for piece in group])


def _row(compiled: LazyModule, defined: int, pieces: list[Piece], count: int) -> tuple[str, ...]:
    pieces = sorted(pieces, key=lambda piece: piece.tier)
    index = compiled.num_imported_functions + defined
    name = compiled.func_name(index)
    return (
        f"{index} {shortened(name, 48)}" if name else str(index),
        " ".join(NAMES[piece.tier] for piece in pieces),
        f"{compiled.wasm_size(defined):,}",
        " ".join(f"{piece.length:,}" for piece in pieces),
        f"{count:,}" if count else "-",
        " ".join(f"{1000 * piece.seconds:.2f}" for piece in pieces) + " ms",
    )


def _totals(compiled: LazyModule, pieces: list[Piece]) -> Iterator[str]:
    for tier, name in NAMES.items():
        mine = [piece for piece in pieces if piece.tier == tier]
        wasm = sum(compiled.wasm_size(piece.function) for piece in mine)
        code = sum(piece.length for piece in mine)
        seconds = sum(piece.seconds for piece in mine)
        yield (
            f"  {name}: {len(mine):,} of {len(compiled.info.functions):,} functions, {wasm:,} bytes of wasm, "
            f"{code:,} bytes of code, compiled in {1000 * seconds:.1f} ms"
        )

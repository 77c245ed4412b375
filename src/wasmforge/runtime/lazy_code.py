"""`LazyCode`: the machine code of a module whose functions are compiled one by one, with all that must be known of it.
What `code_memory.CodeMemory` is to a complete image; `lazy_module.LazyModule` makes one and fills it.

One record a piece of code (`Piece`) says which function it is of, which compiler made it, where it lies and what its
addresses mean. A function may have several: code that was replaced stays where it is, since frames may be in it, and
backtraces still find it.

Order of publication, for other threads: the bytes, the record, then one aligned store of 8 bytes into the function's
slot. Whoever can jump to code can also look it up.
"""

from __future__ import annotations

from _struct import iter_unpack

from wasmforge.compiler.image import MEMORY_SECTION
from wasmforge.compiler.info import CodeRange
from wasmforge.runtime.code_region import CodeRegion
from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable
    from typing import Final

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.code_memory import CodeMemory, FileSource
    from wasmforge.runtime.grown_image import Originals

__all__ = ["BASELINE", "NO_FUNCTION", "OPTIMISED", "LazyCode", "Piece"]

NO_FUNCTION: Final = -1
"""`Piece.function` of trampolines, stubs and constants."""

BASELINE: Final = 0
OPTIMISED: Final = 1
"""`Piece.tier`."""

_NO_POSITION: Final = 0xFFFFFFFF


class Piece:
    """Machine code in the text: `length` bytes at offset `start`, of defined function `function` (or `NO_FUNCTION`),
    made by the compiler of `tier`.

    `rows` are triples of offset from `start`, position in the module's binary (`NO_POSITION` for none), and trap code
    (1 + TrapKind, 0 where nothing may fault), ascending by offset; a row holds up to the next one's offset.
    """

    __slots__ = ("function", "length", "rows", "seconds", "start", "tier")

    def __init__(self, function: int, tier: int, start: int, length: int, rows: array[int] | memoryview) -> None:
        self.function = function
        self.tier = tier
        self.start = start
        self.length = length
        self.rows = rows
        self.seconds = 0.0  # that compiling it took

    def row_at(self, offset: int) -> tuple[int, int] | None:
        """Position and trap code of the instruction at an offset from `start`."""
        from _bisect import bisect_right  # 0.2 ms, for backtraces and traps only

        k = bisect_right(memoryview(self.rows)[::3], offset) - 1
        return None if k < 0 else (self.rows[3 * k + 1], self.rows[3 * k + 2])


class LazyCode:
    """The code of one module. `sections` are the contents of the sections of an image that instances read; the memory
    images are in the file of `originals`, if that has one. `saved` is the packed pieces of an image
    (`grown_image.Growth`), and their rows; records are made of them when somebody asks for one.

    `text_address` and `text_length` are those of the whole reservation: they never change, and all of it is registered
    as the module's.
    """

    __slots__ = (
        "__weakref__",
        "_current",
        "_pieces",
        "_saved",
        "_sections",
        "_starts",
        "originals",
        "region",
        "text_address",
        "text_length",
    )

    def __init__(
        self,
        functions: int,
        capacity: int,
        sections: dict[str, memoryview],
        originals: Originals,
        saved: tuple[bytes, memoryview] | None = None,
    ) -> None:
        """Room for `functions` functions and `capacity` bytes of text. Raises WasmtimeError when there is none."""
        with LOCK:
            self.region = CodeRegion(functions, capacity)
        self.text_address = self.region.text_address
        self.text_length = self.region.text_length
        self._sections = sections
        self.originals = originals
        self._pieces: dict[int, Piece] = {}
        self._starts: list[int] = []
        self._current: dict[int, Piece] = {}
        self._saved = saved

    @property
    def pieces(self) -> dict[int, Piece]:
        """By `start`."""
        if self._saved is not None:
            self._unpack()
        return self._pieces

    @property
    def current(self) -> dict[int, Piece]:
        """By defined function index, the code that its slot leads to."""
        if self._saved is not None:
            self._unpack()
        return self._current

    def _unpack(self) -> None:
        """Makes records of the code that an image came with: milliseconds for thousands of functions, which programs
        do without that call no new function and have no backtrace."""
        saved = self._saved
        if saved is None:
            return
        packed, rows = saved
        pieces: dict[int, Piece] = {}
        current: dict[int, Piece] = {}
        for start, length, function, tier, rows_at, count in iter_unpack("<6I", packed):
            function = NO_FUNCTION if function == _NO_POSITION else function
            piece = pieces[start] = Piece(function, tier, start, length, rows[rows_at : rows_at + count])
            if function != NO_FUNCTION and (function not in current or tier == OPTIMISED):
                current[function] = piece
        # Another thread, or a finaliser, may have been here meanwhile and added something. No call from here on.
        if self._saved is not None:
            self._pieces, self._current, self._saved = pieces, current, None

    def packed_pieces(self) -> tuple[bytes, bytes]:
        """All pieces for an image, and their rows. The caller holds `lock.LOCK`."""
        from array import array

        out = array("I")
        rows = bytearray()
        for start in sorted(self.pieces):
            piece = self.pieces[start]
            function = _NO_POSITION if piece.function == NO_FUNCTION else piece.function
            out.extend((start, piece.length, function, piece.tier, len(rows) // 4, len(piece.rows)))
            rows += piece.rows
        return out.tobytes(), bytes(rows)

    def add(
        self, start: int, code: bytes, rows: array[int] | memoryview, function: int = NO_FUNCTION, tier: int = BASELINE
    ) -> Piece:
        """Adds code, for a place that was reserved with `region.reserve`, that nothing leads to yet. The caller holds
        `lock.LOCK`."""
        self.region.write(start, code)
        piece = self.pieces[start] = Piece(function, tier, start, len(code), rows)
        return piece

    def add_group(
        self, start: int, code: bytes, functions: Iterable[tuple[int, int, int, array[int]]], tier: int
    ) -> list[Piece]:
        """As `add`, for code of several functions: (defined index, offset from `start`, length, rows) of each."""
        self.region.write(start, code)
        pieces = [Piece(function, tier, start + offset, length, rows) for function, offset, length, rows in functions]
        for piece in pieces:
            self.pieces[piece.start] = piece
        return pieces

    def publish(self, pieces: Iterable[Piece]) -> None:
        """Makes calls of the functions go to these pieces, from now on and on all threads."""
        slots = self.region.slots
        for piece in pieces:
            self.current[piece.function] = piece
            slots[piece.function] = self.text_address + piece.start

    def find(self, text_offset: int) -> Piece | None:
        """What lies at an offset into the text."""
        starts = self._starts
        if len(starts) != len(self.pieces):  # sorted only now: there are more calls than backtraces
            starts = self._starts = sorted(self.pieces)
        from _bisect import bisect_right

        k = bisect_right(starts, text_offset) - 1
        if k < 0:
            return None
        piece = self.pieces[starts[k]]
        return piece if text_offset < piece.start + piece.length else None

    def function_at(self, text_offset: int) -> int | None:
        """The defined function whose code holds an offset into the text."""
        piece = self.find(text_offset)
        return None if piece is None or piece.function == NO_FUNCTION else piece.function

    def function_range(self, defined: int) -> CodeRange | None:
        piece = self.current.get(defined)
        return None if piece is None else CodeRange(piece.start, piece.length)

    def position_at(self, text_offset: int) -> int | None:
        """The position in the binary of the instruction that the code at an offset into the text belongs to."""
        row = self._row_at(text_offset)
        return None if row is None or row[0] == _NO_POSITION else row[0]

    def trap_at(self, text_offset: int) -> TrapKind | None:
        """What a fault of the instruction at an offset into the text means; None where none can happen."""
        row = self._row_at(text_offset)
        if row is None or not row[1]:
            return None
        from wasmforge.compiler.trap import TrapKind

        return TrapKind(row[1] - 1)

    def _row_at(self, text_offset: int) -> tuple[int, int] | None:
        piece = self.find(text_offset)
        return None if piece is None else piece.row_at(text_offset - piece.start)

    # --- As of an image -----------------------------------------------------------------------------------------

    def text(self) -> memoryview:
        """What there is of the text by now."""
        return self.region.text()

    def section(self, name: str) -> memoryview:
        return self._sections.get(name, memoryview(b""))

    def section_offset(self, name: str) -> int:
        if name != MEMORY_SECTION or self.originals.file is None:
            raise ValueError("of a module that is compiled lazily only memory images lie in a file")
        return self.originals.offset + self.originals.pages_at

    def file_source(self) -> FileSource | None:
        """The file of the memory images."""
        return self.originals.file

    def image(self) -> memoryview:
        raise ValueError("code that is compiled lazily has no image; LazyModule.serialize compiles one")

    def deep_clone(self) -> CodeMemory:
        raise WasmtimeError("functions that are compiled at their first call cannot be debugged yet: use strategy llvm")

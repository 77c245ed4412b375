"""`VMTable`: a WebAssembly table. Instances and the embedder create it; compiled code reads and writes its elements in
line through the VMTableDefinition, and comes here to grow, fill and initialise (`libcalls`).

An element is 8 bytes: the address of a VMFuncRef or an externref handle, 0 for null. Raw methods take and give those
words; `get`, `set`, `grow` and `fill` take and give Python objects.
"""

from __future__ import annotations

from struct import Struct

from wasmforge.compiler.environ import VMTableDefinition
from wasmforge.runtime.mapping import Mmap
from wasmforge.runtime.vm.limits import MAX_TABLE_ELEMENTS
from wasmforge.runtime.vm.traps import table_out_of_bounds
from wasmforge.syntax.types import Limits, TableType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from wasmforge.runtime.store import VMStore
    from wasmforge.syntax.types import ValType

__all__ = ["VMTable"]

_DEFINITION: Final = Struct("<QQ")
_ELEMENT: Final = VMTableDefinition.ELEMENT_SIZE
_SMALL: Final = 256  # elements; up to here they stand in the store's arena, since a mapping costs 5 µs


class VMTable:
    """A table of a store.

    `definition` is the address of its VMTableDefinition, `element` the type of its elements, `size` their number,
    `store_id` the store it belongs to. It does not keep its store alive.
    """

    EXTERN_KIND: ClassVar = 1  # ExternKind.TABLE
    __slots__ = (
        "__weakref__",
        "_arena",
        "_capacity",
        "_limits",
        "_mapping",
        "_maximum",
        "_minimum",
        "_store",
        "_words",
        "definition",
        "element",
        "size",
        "store_id",
    )

    def __init__(self, store: VMStore, table_type: TableType) -> None:
        minimum = table_type.limits.minimum
        store.limits.check_table(minimum)
        self._arena = store.arena
        self._limits = store.limits
        self._store = store.weak
        self._minimum = minimum
        self._maximum = table_type.limits.maximum
        self._mapping: Mmap | None = None
        self.store_id = store.id
        self.element: ValType = table_type.element
        self.definition = self._arena.allocate(VMTableDefinition.SIZE)
        self.size = 0
        self._capacity = 0
        self._words = memoryview(b"").cast("Q")
        self._resize(minimum)

    def _resize(self, size: int) -> None:
        """Changes the size, moving the elements when they need more room; new ones are null."""
        if size > self._capacity or not self._capacity:
            old = self._words
            self._words, base = self._storage(max(size, min(2 * self._capacity, MAX_TABLE_ELEMENTS)))
            self._words[: self.size] = old[: self.size]
        else:
            base = self._arena.read_u64(self.definition)
        self.size = size
        # Threat: compiled code trusts base and length. The elements are in place before both change together, and
        # no wasm of this store runs meanwhile; it reloads both after every call.
        self._arena.write(self.definition, _DEFINITION.pack(base, size))

    def _storage(self, capacity: int) -> tuple[memoryview, int]:
        if capacity <= _SMALL:
            capacity = max(capacity, 1)
            base = self._arena.allocate(capacity * _ELEMENT)
            words = self._arena.view(base, capacity * _ELEMENT).cast("Q")
        else:
            self._mapping = Mmap.zeroed(capacity * _ELEMENT)
            base = self._mapping.address
            words = memoryview(self._mapping.owner).cast("Q")
        self._capacity = capacity
        return words, base

    @property
    def type(self) -> TableType:
        """The type with the current size as minimum, which is what an import is compared with."""
        return TableType(self.element, Limits(self.size, self._maximum))

    @property
    def declared_type(self) -> TableType:
        """The type it was created with."""
        return TableType(self.element, Limits(self._minimum, self._maximum))

    # --- Raw words ----------------------------------------------------------------------------------------------

    def raw_words(self) -> memoryview:
        """All elements; read-only, valid until the table grows."""
        return self._words[: self.size].toreadonly()

    def get_raw(self, index: int) -> int:
        """The word of an element. Traps out of bounds."""
        if not 0 <= index < self.size:
            raise table_out_of_bounds()
        word: int = self._words[index]
        return word

    def set_raw(self, index: int, word: int) -> None:
        if not 0 <= index < self.size:
            raise table_out_of_bounds()
        self._words[index] = word

    def grow_raw(self, delta: int, word: int) -> int:
        """Adds `delta` elements; returns the old size, or -1, changing nothing, when a limit does not allow it."""
        old = self.size
        new = old + delta
        if delta < 0 or (self._maximum is not None and new > self._maximum) or not self._limits.allows_table(new):
            return -1
        if delta:
            self._resize(new)
            self._fill(old, word, delta)
        return old

    def _fill(self, start: int, word: int, count: int) -> None:
        if count:
            self._words[start : start + count].cast("B")[:] = word.to_bytes(8, "little") * count

    def fill_raw(self, start: int, word: int, count: int) -> None:
        """Sets `count` elements. Traps, changing nothing, when they do not all exist (section 4.4.7)."""
        if not 0 <= start <= start + count <= self.size:
            raise table_out_of_bounds()
        self._fill(start, word, count)

    def init_raw(self, target: int, words: memoryview, source: int, count: int) -> None:
        """Copies `count` words from a segment. Traps, changing nothing, when the segment or the table is too short."""
        if not (0 <= source <= source + count <= len(words) and 0 <= target <= target + count <= self.size):
            raise table_out_of_bounds()
        if count:
            self._words[target : target + count] = words[source : source + count]

    # --- Python objects -----------------------------------------------------------------------------------------

    @property
    def store(self) -> VMStore:
        """The store, which must be alive for references to mean something. Raises WasmtimeError when it is gone."""
        from wasmforge.runtime.store import require

        return require(self._store)

    def get(self, index: int) -> object:
        """The element as an object: a function or None, or the object of an externref. Traps out of bounds."""
        return self.store.box(self.element, self.get_raw(index))

    def set(self, index: int, value: object) -> None:
        """Raises TypeError for a value of another type, the trap out of bounds."""
        self.set_raw(index, self.store.unbox(self.element, value))

    def grow(self, delta: int, value: object) -> int:
        """Adds `delta` elements; returns the old size, or -1 when a limit does not allow it. Raises WasmtimeError while
        another thread runs the store."""
        store = self.store
        word = store.unbox(self.element, value)
        store.context.check_thread()
        return self.grow_raw(delta, word)

    def fill(self, start: int, value: object, count: int) -> None:
        self.fill_raw(start, self.store.unbox(self.element, value), count)

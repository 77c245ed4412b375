"""`VMTable`: a WebAssembly table. Instances and the embedder create it; compiled code reads and writes its elements in
line through the VMTableDefinition, and comes here to grow, fill and initialise (`libcalls`).

An element is 8 bytes: the address of a VMFuncRef or an externref handle, 0 for null. Raw methods take and give those
words; `get`, `set`, `grow` and `fill` take and give Python objects.
"""

from __future__ import annotations

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
        "_definition",
        "_limits",
        "_mapping",
        "_maximum",
        "_retired",
        "_store",
        "_words",
        "declared_type",
        "definition",
        "element",
        "size",
        "store_id",
    )

    def __init__(self, store: VMStore, table_type: TableType) -> None:
        minimum = table_type.limits.minimum
        store.limits.check_table(minimum, table_type.limits.maximum)
        self._arena = store.arena
        self._limits = store.limits
        self._store = store.weak
        self.declared_type = table_type
        """The type it was created with."""
        self._maximum = table_type.limits.maximum
        self._mapping: Mmap | None = None
        self.store_id = store.id
        self.element: ValType = table_type.element
        self.definition = self._arena.allocate(VMTableDefinition.SIZE)
        self.size = 0
        self._capacity = 0
        self._words = memoryview(b"").cast("Q")
        self._definition = self._arena.view(self.definition, VMTableDefinition.SIZE).cast("Q")
        self._retired: Mmap | None = None
        self._resize(minimum)

    def _resize(self, size: int, word: int | None = None) -> None:
        """Grows to a size, moving the elements when they need more room; `word` is in the new ones, or they are null in
        a table that never had them."""
        old = self.size
        words, capacity, mapping = self._words, self._capacity, self._mapping
        base = self._definition[0]
        if size > capacity or not capacity:
            words, base, capacity, mapping = self._storage(max(size, min(2 * capacity, MAX_TABLE_ELEMENTS)))
            words[:old] = self._words[:old]
        if word is not None:
            _fill(words, old, word, size - old)
        self._retired = self._mapping
        # Threat: compiled code trusts base and length. The elements are in place before both change, and no wasm of
        # this store runs meanwhile; it reloads both after every call. The handler of a signal (Ctrl-C) may raise after
        # any call and at the start of any function. So there is none from here on, the table changes as a whole or not
        # at all; and should there be one some day, then base never names storage that is gone (`_retired`) or smaller
        # than the capacity.
        self._mapping = mapping
        self._words = words
        self._definition[0] = base
        self._capacity = capacity
        self.size = size
        self._definition[1] = size
        self._retired = None

    def _storage(self, capacity: int) -> tuple[memoryview, int, int, Mmap | None]:
        """Room for elements: its words, its address, how many there are, and the mapping if it has one of its own."""
        if capacity <= _SMALL:
            capacity = max(capacity, 1)
            base = self._arena.allocate(capacity * _ELEMENT)
            return self._arena.view(base, capacity * _ELEMENT).cast("Q"), base, capacity, None
        mapping = Mmap.zeroed(capacity * _ELEMENT)
        return memoryview(mapping.owner).cast("Q"), mapping.address, capacity, mapping

    @property
    def type(self) -> TableType:
        """The type with the current size as minimum, which is what an import is compared with."""
        return TableType(self.element, Limits(self.size, self._maximum), self.declared_type.is_64)

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
        if delta < 0 or not self._may_have(self.size + delta):
            return -1
        if delta and self._limits.limiter is not None:
            if not self._limits.limiter.table_growing(self.size, self.size + delta, self._maximum):
                return -1
            if not self._may_have(self.size + delta):  # it may have grown the table itself
                return -1
        old = self.size
        if delta:
            self._resize(old + delta, word)
        return old

    def _may_have(self, elements: int) -> bool:
        return (self._maximum is None or elements <= self._maximum) and self._limits.allows_table(elements)

    def fill_raw(self, start: int, word: int, count: int) -> None:
        """Sets `count` elements. Traps, changing nothing, when they do not all exist (section 4.4.7)."""
        if not 0 <= start <= start + count <= self.size:
            raise table_out_of_bounds()
        _fill(self._words, start, word, count)

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


def _fill(words: memoryview, start: int, word: int, count: int) -> None:
    if count:
        words[start : start + count].cast("B")[:] = word.to_bytes(8, "little") * count

"""`StoreLimits`: how much a store's guests may take (Wasmtime's type of this name). The embedder sets it on the store;
memories and tables ask it when they are created and when they grow, the store when it instantiates.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    class ResourceLimiter(Protocol):
        """Who decides what may grow, besides the numbers (Wasmtime's trait of this name)."""

        def memory_growing(self, current: int, desired: int, maximum: int | None) -> bool: ...

        def table_growing(self, current: int, desired: int, maximum: int | None) -> bool: ...


__all__ = ["MAX_TABLE_ELEMENTS", "StoreLimits"]

MAX_TABLE_ELEMENTS: Final = 10_000_000
"""No table grows beyond this even without limits, 80 MB of host memory: table elements are written, not just reserved,
so a guest with a loop around table.grow would otherwise exhaust the host silently. The initial size has the
same limit in the validator, and in browsers (WebAssembly JavaScript interface, section 9)."""


class StoreLimits:
    """Limits of one store; None is no limit. `memory_size` is bytes a memory, `table_elements` elements a table;
    the others count what instances may create. With `trap_on_grow_failure` a guest whose memory or table cannot grow
    ends with an error instead of seeing -1. The `limiter`, if any, is asked about what is possible otherwise; it is
    Python code of the embedder, which may do anything meanwhile, also to what is about to grow."""

    # Of the class, since a store without limits need not write seven attributes to say so.
    memory_size: int | None = None
    table_elements: int | None = None
    instances: int | None = None
    tables: int | None = None
    memories: int | None = None
    limiter: ResourceLimiter | None = None
    trap_on_grow_failure = False

    def allows_memory(self, size: int) -> bool:
        """Whether a memory may have `size` bytes."""
        return self.memory_size is None or size <= self.memory_size

    def allows_table(self, elements: int) -> bool:
        limit = self.table_elements
        return elements <= MAX_TABLE_ELEMENTS and (limit is None or elements <= limit)

    def check_shared_memory(self, pages: int, page_size_log2: int) -> None:
        """Raises WasmtimeError when the store may not have a shared memory, of which the limiter is not asked: its
        size is not the store's own."""
        if not self.allows_memory(pages << page_size_log2):
            raise WasmtimeError(f"memory minimum size of {pages} pages exceeds memory limits")

    def check_memory(self, pages: int, maximum: int | None, page_size_log2: int) -> None:
        most = None if maximum is None else maximum << page_size_log2
        allowed = self.allows_memory(pages << page_size_log2)
        if not allowed or (
            self.limiter is not None and not self.limiter.memory_growing(0, pages << page_size_log2, most)
        ):
            raise WasmtimeError(f"memory minimum size of {pages} pages exceeds memory limits")

    def check_table(self, elements: int, maximum: int | None) -> None:
        allowed = self.allows_table(elements)
        if not allowed or (self.limiter is not None and not self.limiter.table_growing(0, elements, maximum)):
            raise WasmtimeError(f"table minimum size of {elements} elements exceeds table limits")

    def check_counts(self, instances: int, memories: int, tables: int) -> None:
        """Raises WasmtimeError when a store may not have so many."""
        if self.instances is self.memories is self.tables is None:
            return
        for name, wanted, limit in (
            ("instance", instances, self.instances),
            ("memory", memories, self.memories),
            ("table", tables, self.tables),
        ):
            if limit is not None and wanted > limit:
                raise WasmtimeError(f"resource limit exceeded: {name} count too high at {wanted}")

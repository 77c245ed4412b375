"""Externs: what instances import and export. The embedder's objects and the runtime's, and how one is found from the
other."""

from __future__ import annotations

from wasmforge.syntax.types import ExternKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from wasmforge.func_ import Func
    from wasmforge.globals_ import Global
    from wasmforge.memory import Memory
    from wasmforge.runtime import LinearMemory, VMFunction, VMGlobal, VMTable
    from wasmforge.sharedmemory import SharedMemory
    from wasmforge.table import Table

    Extern: TypeAlias = Func | Table | Memory | SharedMemory | Global
    """What an instance exports, and takes as an import."""

    Entity: TypeAlias = VMFunction | LinearMemory | VMTable | VMGlobal
    """The same in the runtime's terms."""
else:
    # A process that calls one function of an image needs none of the classes for tables and globals.
    Extern = Entity = object

__all__ = ["Entity", "Extern", "entity_of", "store_id_of", "wrap_extern"]


def wrap_extern(entity: Entity) -> Extern:
    """The embedder's object for something of the runtime."""
    found: Any = entity
    if entity.EXTERN_KIND == ExternKind.FUNC:
        from wasmforge.func_ import Func

        return Func._wrap(found)
    if entity.EXTERN_KIND == ExternKind.MEMORY:
        if found.declared_type.shared:
            from wasmforge.sharedmemory import SharedMemory

            return SharedMemory._wrap(found if found.ENGINE_WIDE else found.shared)
        from wasmforge.memory import Memory

        return Memory._wrap(found)
    if entity.EXTERN_KIND == ExternKind.TABLE:
        from wasmforge.table import Table

        return Table._wrap(found)
    from wasmforge.globals_ import Global

    return Global._wrap(found)


def store_id_of(entity: Entity) -> int:
    """The number of the store that something of the runtime belongs to; 0 for a shared memory, which has none."""
    found: Any = entity
    store_id: int = found.store.id if entity.EXTERN_KIND == ExternKind.FUNC else found.store_id
    return store_id


def entity_of(item: object) -> Entity:
    """The runtime's object behind an extern. Raises TypeError for anything else."""
    from wasmforge.func_ import Func
    from wasmforge.globals_ import Global
    from wasmforge.memory import Memory
    from wasmforge.table import Table

    if isinstance(item, Func):
        return item._function
    if isinstance(item, Global):
        return item._global
    if isinstance(item, Memory):
        return item._memory
    if isinstance(item, Table):
        return item._table
    from wasmforge.sharedmemory import SharedMemory

    if isinstance(item, SharedMemory):
        return item._open()
    raise TypeError("expected a Func, Global, Memory, or Table")

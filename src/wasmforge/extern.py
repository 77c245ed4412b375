"""Externs: what instances import and export. The embedder's objects and the runtime's, and how one is found from the
other."""

from __future__ import annotations

from wasmforge.func import Func
from wasmforge.globals_ import Global
from wasmforge.memory import Memory
from wasmforge.runtime import LinearMemory, VMFunction, VMGlobal, VMTable
from wasmforge.table import Table

__all__ = ["Entity", "Extern", "entity_of", "store_id_of", "wrap_extern"]

Extern = Func | Table | Memory | Global
"""What an instance exports, and takes as an import."""

Entity = VMFunction | LinearMemory | VMTable | VMGlobal
"""The same in the runtime's terms."""


def wrap_extern(entity: Entity) -> Extern:
    """The embedder's object for something of the runtime."""
    if isinstance(entity, VMFunction):
        return Func._wrap(entity)
    if isinstance(entity, LinearMemory):
        return Memory._wrap(entity)
    if isinstance(entity, VMTable):
        return Table._wrap(entity)
    return Global._wrap(entity)


def store_id_of(entity: Entity) -> int:
    """The number of the store that something of the runtime belongs to."""
    return entity.store.id if isinstance(entity, VMFunction) else entity.store_id


def entity_of(item: object) -> Entity:
    """The runtime's object behind an extern. Raises TypeError for anything else."""
    if isinstance(item, Func):
        return item._function
    if isinstance(item, Global):
        return item._global
    if isinstance(item, Memory):
        return item._memory
    if isinstance(item, Table):
        return item._table
    raise TypeError("expected a Func, Global, Memory, or Table")

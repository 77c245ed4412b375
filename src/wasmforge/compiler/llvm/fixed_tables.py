"""Tables that keep what the module's element segments put into them: neither imported nor exported, and no instruction
of the module changes them. Nearly every table of a C program is one; `CallEmitters.call_indirect` asks less of them.

A segment whose offset or items are not known here leaves the contents unknown. A segment that does not fit traps before
any code of the instance runs that could not find less in the table than is assumed here, which is harmless.
"""

from __future__ import annotations

from wasmforge.syntax.module import Module
from wasmforge.syntax.record import NamedTuple
from wasmforge.syntax.types import FUNCREF, ExternKind

__all__ = ["FixedTable", "fixed_tables"]


class FixedTable(NamedTuple):
    """A table that never changes.

    - `elements`: its size for ever.
    - `own`: its functions are all defined by the module itself and make no tail calls, so that they run on the caller's
      vmctx and leave it in its register.
    - `signature`: the canonical type index of all its functions, -1 when they have several or are not known.
    """

    elements: int
    own: bool
    signature: int


def fixed_tables(
    module: Module, changed: frozenset[int], tail_callers: frozenset[int], canonical: list[int]
) -> dict[int, FixedTable]:
    """The fixed tables of a module by index. `changed` are the tables that instructions write to or let
    grow."""
    imported = module.num_imported(ExternKind.TABLE)
    exported = {e.index for e in module.exports if e.kind == ExternKind.TABLE}
    kept = [
        x
        for x, table in enumerate(module.tables, imported)
        if x not in changed and x not in exported and table.type.element == FUNCREF
    ]
    if not kept:
        return {}
    functions = module.all_functions()
    imported_functions = module.num_imported(ExternKind.FUNC)
    signatures: dict[int, set[int]] = {x: set() for x in kept}
    known = {x: module.tables[x - imported].init is None for x in kept}
    own = dict(known)
    for segment in module.elements:
        # Passive segments do not count: only `table.init`, which changes tables, applies them.
        if segment.table_offset is None or segment.table not in signatures:
            continue
        if segment.uses_expressions:
            known[segment.table] = own[segment.table] = False
            continue
        for item in segment.items:
            if not isinstance(item, int):
                known[segment.table] = own[segment.table] = False
                break
            signatures[segment.table].add(canonical[functions[item]])
            if item < imported_functions or item in tail_callers:
                own[segment.table] = False
    return {
        x: FixedTable(
            module.tables[x - imported].type.limits.minimum,
            own[x],
            next(iter(signatures[x])) if known[x] and len(signatures[x]) == 1 else -1,
        )
        for x in kept
    }

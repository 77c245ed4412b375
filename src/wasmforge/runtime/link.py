"""Link-time checks: whether the entities given to an instance fit the imports of its module (specification, section
4.5.4 and the matching rules of 3.4.2). Instantiation calls `check_imports`; the texts are those of the wasmtime
package.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.subtyping import matches
from wasmforge.syntax.types import ExternKind, value_type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, TypeAlias

    from wasmforge.runtime.compiled_module import CompiledModule
    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.func import VMFunction
    from wasmforge.runtime.vm.globals import VMGlobal
    from wasmforge.runtime.vm.memory import LinearMemory
    from wasmforge.runtime.vm.table import VMTable
    from wasmforge.syntax.externs import Import
    from wasmforge.syntax.types import FuncType, GlobalType, Limits, MemoryType, TableType

    Extern: TypeAlias = VMFunction | LinearMemory | VMTable | VMGlobal

__all__ = ["Extern", "LinkError", "check_imports", "extern_type", "unknown_import"]

if not TYPE_CHECKING:
    Extern = object


class LinkError(WasmtimeError):
    """A module's imports are missing or do not fit."""


# By ExternKind: what an import of the kind is called, and what an entity of it.
_WANTED: Final = ("func", "table", "memory", "global")
_FOUND: Final = ("function", "table", "memory", "global")


def unknown_import(module: str, name: str) -> LinkError:
    """For an import that nobody defines."""
    return LinkError(f"unknown import: `{module}::{name}` has not been defined")


def extern_type(entity: Extern) -> FuncType | MemoryType | TableType | GlobalType:
    """The type of an entity; of a memory or table with its current size as minimum."""
    return entity.type


def check_imports(store: VMStore, module: CompiledModule, imports: Sequence[Extern]) -> None:
    """Raises LinkError unless `imports` fit the imports of `module`, one by one.

    Threat: everything that compiled code assumes about an import is what is checked here: the signature that a call
    uses, the width of a global, that it does not change if immutable, the element type of a table, and that the
    entity lives as long as the importing store.
    """
    wanted = module.info.imports
    if len(imports) != len(wanted):
        raise LinkError(f"expected {len(wanted)} imports, found {len(imports)}")
    for i, entity in zip(wanted, imports, strict=True):
        problem = _mismatch(store, module, i, entity)
        if problem:
            raise LinkError(f"incompatible import type for `{i.module}::{i.name}`\n\nCaused by:\n    {problem}\n")


def _mismatch(store: VMStore, module: CompiledModule, i: Import, entity: Any) -> str | None:
    kind = getattr(type(entity), "EXTERN_KIND", None)
    if kind is None:
        raise TypeError(f"import `{i.module}::{i.name}`: expected an extern, got {type(entity).__name__}")
    if (entity.store.id if kind == ExternKind.FUNC else entity.store_id) != store.id:
        raise LinkError("cross-`Store` instantiation is not currently supported")
    if kind != i.kind:
        return f"expected {_WANTED[i.kind]}, but found {_FOUND[kind]}"
    wanted: Any = i.type
    if kind == ExternKind.FUNC:
        return _function_mismatch(module, wanted, entity)
    wanted = module.engine_code.signatures().close_extern(wanted)
    if kind == ExternKind.GLOBAL:
        return _global_mismatch(wanted, entity.type)
    if kind == ExternKind.MEMORY:
        return _memory_mismatch(wanted, entity.type)
    return _table_mismatch(wanted, entity.type)


def _function_mismatch(module: CompiledModule, type_index: int, function: VMFunction) -> str | None:
    if function.type_index() == module.engine_code.signatures().shared_type(type_index):
        return None
    expected = module.engine_code.signatures().function_type(type_index)
    return f"types incompatible: expected type `{_describe(expected)}`, found type `{_describe(function.type)}`"


def _describe(t: FuncType) -> str:
    params = "".join(f" {value_type_name(p)}" for p in t.params)
    results = "".join(f" {value_type_name(r)}" for r in t.results)
    return f"(func{' (param' + params + ')' if params else ''}{' (result' + results + ')' if results else ''})"


def _global_mismatch(expected: GlobalType, found: GlobalType) -> str | None:
    if expected.mutable != found.mutable:
        names = ("immutable", "mutable")
        return (
            f"global types incompatible: expected {names[expected.mutable]} global, found {names[found.mutable]} global"
        )
    # What may be written from both sides must be of the same type on both (section 3.3.13).
    if expected.content != found.content and (expected.mutable or not matches(found.content, expected.content)):
        return (
            f"global types incompatible: expected global of type `{value_type_name(expected.content)}`, "
            f"found global of type `{value_type_name(found.content)}`"
        )
    return None


def _table_mismatch(expected: TableType, found: TableType) -> str | None:
    if expected.element != found.element:
        return (
            f"table types incompatible: expected table of type `{value_type_name(expected.element)}`, "
            f"found table of type `{value_type_name(found.element)}`"
        )
    if expected.is_64 != found.is_64:
        return _width_mismatch("table", expected.is_64)
    return _limits_mismatch("table", expected.limits, found.limits)


def _memory_mismatch(expected: MemoryType, found: MemoryType) -> str | None:
    """Threat: compiled code leaves out checks by the address type, the page size and the least size of a memory."""
    if expected.is_64 != found.is_64:
        return _width_mismatch("memory", expected.is_64)
    if expected.shared != found.shared:
        names = ("unshared", "shared")
        return (
            f"memory types incompatible: expected {names[expected.shared]} memory, found {names[found.shared]} memory"
        )
    if expected.page_size_log2 != found.page_size_log2:
        return (
            f"memory types incompatible: expected a memory with pages of {1 << expected.page_size_log2} bytes, "
            f"found a memory with pages of {1 << found.page_size_log2} bytes"
        )
    return _limits_mismatch("memory", expected.limits, found.limits)


def _width_mismatch(kind: str, wants_64: bool) -> str:
    expected, found = (64, 32) if wants_64 else (32, 64)
    return f"{kind} types incompatible: expected {expected}-bit {kind}, found {found}-bit {kind}"


def _limits_mismatch(kind: str, expected: Limits, found: Limits) -> str | None:
    if found.minimum >= expected.minimum and (
        expected.maximum is None or (found.maximum is not None and found.maximum <= expected.maximum)
    ):
        return None

    def text(limits: Limits) -> str:
        return f"(min: {limits.minimum}, max: {'none' if limits.maximum is None else limits.maximum})"

    return (
        f"{kind} types incompatible: expected {kind} limits {text(expected)} "
        f"doesn't match provided {kind} limits {text(found)}"
    )

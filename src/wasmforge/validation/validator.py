"""The validator of modules (specification, section 3.4): everything outside of function bodies, and the loop over them.

`validate` takes what the decoder or the text parser made and is the gate before the compilers, which rely on
everything that it checks. It returns the facts that fell out on the way, so that no later phase walks the bodies
for them again.
"""

from __future__ import annotations

from wasmforge.binary.instructions import instructions
from wasmforge.binary.leb128 import read_signed, read_unsigned
from wasmforge.syntax import limits as limit
from wasmforge.syntax.canonical import canonical_types, groups, rename
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.features import DEFAULT_FEATURES, KNOBS, Feature, switched_off
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.module import ElementSegment, Expression, FunctionBody, Module, SegmentMode
from wasmforge.syntax.subtyping import matches
from wasmforge.syntax.types import (
    CONCRETE,
    FUNCREF,
    I32,
    NON_NULL,
    V128,
    ExternKind,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    concrete_type,
    has_default,
    is_reference,
    type_index,
    value_type_name,
    with_index,
)
from wasmforge.validation.body import Context, Locals, check_body
from wasmforge.validation.errors import Invalid, InvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

__all__ = ["ModuleValidation", "validate"]


class ModuleValidation:
    """What validation found out on the way, for the compilers and the runtime.

    `declared_references` are the functions that `ref.func` may name in a body (C.refs of section 3.1.1): those in
    exports, element segments and the constant expressions of globals.

    `escaping` are the functions that something other than a direct call inside the module can reach: the declared
    ones and the start function. Only they need a funcref and an entry trampoline.

    `instruction_counts` has the number of instructions of every defined function, for cutting a module into chunks
    of equal work.

    `tail_callers` are the functions with a tail call, whose code follows the calling convention in a way of its own.
    `used_features` are bits of `syntax.features.Feature` for the switchable proposals that the module needs; only those
    whose use is not found out by an opcode alone are complete.

    `changed_tables` are those that some instruction writes to or lets grow.
    """

    def __init__(
        self,
        declared_references: frozenset[int],
        escaping: frozenset[int],
        instruction_counts: list[int],
        tail_callers: frozenset[int],
        used_features: int,
        changed_tables: frozenset[int],
    ) -> None:
        self.declared_references: Final = declared_references
        self.escaping: Final = escaping
        self.instruction_counts: Final = instruction_counts
        self.tail_callers: Final = tail_callers
        self.used_features: Final = used_features
        self.changed_tables: Final = changed_tables


def validate(module: Module, features: int = DEFAULT_FEATURES) -> ModuleValidation:
    """Validates a module, which may use the proposals in `features` (bits of `syntax.features.Feature`).

    Returns facts about it. Raises `InvalidError` when it breaks a rule; also `MalformedError` and
    `UnsupportedFeatureError` for the encoding of function bodies, which `binary.decode` leaves to this walk.
    """
    return _Validator(module, features).validate()


_START_TYPE: Final = ((), ())


class _Validator:
    def __init__(self, module: Module, features: int) -> None:
        self.module: Final = module
        self.context: Final = Context()
        self.context.allow(features)
        self.all_types: Final = bool(features >> Feature.SIMD & 1 and features >> Feature.REFERENCE_TYPES & 1)
        """Whether `check_value_types` has nothing to refuse."""
        self.imported_functions = 0
        self.tail_callers: list[int] = []

    def validate(self) -> ModuleValidation:
        self.check_counts()
        self.check_types()
        self.check_imports()
        self.check_functions()
        self.check_tables_and_memories()
        self.check_globals()
        self.check_exports()
        self.check_start()
        self.check_elements()
        self.check_data()
        counts = self.check_bodies()
        declared = frozenset(self.context.declared)
        start = self.module.start
        escaping = declared if start is None else declared | {start}
        c = self.context
        return ModuleValidation(
            declared,
            escaping,
            counts,
            frozenset(self.tail_callers),
            c.used_features,
            frozenset(c.changed_tables),
        )

    def invalid(self, reason: str, offset: int = 0, function: int | None = None) -> InvalidError:
        """Modules from text have no offsets; zero means none, for nothing but the header stands there."""
        names = self.module.names
        name = names.functions.get(function) if names is not None and function is not None else None
        return InvalidError(reason, offset or None, function, name)

    def check_counts(self) -> None:
        m = self.module
        imported = len(m.imports)
        for what, count, maximum in (
            ("types", len(m.types), limit.TYPES),
            ("imports", imported, limit.IMPORTS),
            ("functions", m.num_imported(ExternKind.FUNC) + len(m.functions), limit.FUNCTIONS),
            ("tables", m.num_imported(ExternKind.TABLE) + len(m.tables), limit.TABLES),
            ("memories", m.num_imported(ExternKind.MEMORY) + len(m.memories), limit.MEMORIES),
            ("globals", m.num_imported(ExternKind.GLOBAL) + len(m.globals), limit.GLOBALS),
            ("exports", len(m.exports), limit.EXPORTS),
            ("element segments", len(m.elements), limit.ELEMENT_SEGMENTS),
            ("data segments", len(m.data), limit.DATA_SEGMENTS),
        ):
            if count > maximum:
                raise self.invalid(f"too many {what}: {count}, the limit is {maximum}")

    def require(self, feature: int, offset: int) -> None:
        """Refuses the module if the proposal that it needs is switched off."""
        c = self.context
        if not c.features >> feature & 1:
            raise self.invalid(switched_off(feature), offset)
        c.used_features |= 1 << feature

    def check_types(self) -> None:
        c = self.context
        for x, ft in enumerate(self.module.types):
            if len(ft.params) > limit.PARAMS:
                raise self.invalid(f"too many parameters: {len(ft.params)} in type {x}, the limit is {limit.PARAMS}")
            if len(ft.results) > limit.RESULTS:
                raise self.invalid(f"too many results: {len(ft.results)} in type {x}, the limit is {limit.RESULTS}")
            self.check_value_types(ft.params + ft.results, 0)
        self.check_type_references()
        c.canonical = canonical_types(self.module.types, self.module.rec_groups)
        for ft in self.module.types:
            c.type_params.append(list(rename(ft.params, c.canonical)))
            c.type_results.append(list(rename(ft.results, c.canonical)))

    def check_type_references(self) -> None:
        """Types refer to those of their own group and of groups before it (section 3.2.6)."""
        m = self.module
        if m.rec_groups:
            self.require(Feature.FUNCTION_REFERENCES, 0)
        for start, end in groups(len(m.types), m.rec_groups):
            for ft in m.types[start:end]:
                for t in ft.params + ft.results:
                    if t >= NON_NULL:
                        self.require(Feature.FUNCTION_REFERENCES, 0)
                        if type_index(t) >= end:
                            raise self.invalid(
                                f"unknown type {type_index(t)}: a type may refer to those before {end} and to itself"
                            )

    def value_type(self, t: int, offset: int) -> int:
        """Checks a value type and returns it with a canonical index."""
        if t < NON_NULL:
            self.check_value_types((t,), offset)
            return t
        self.require(Feature.FUNCTION_REFERENCES, offset)
        if t < CONCRETE:
            return t
        canonical = self.context.canonical
        x = type_index(t)
        if x >= len(canonical):
            raise self.invalid(f"unknown type {x}: the module has {len(canonical)} types", offset)
        return with_index(t, canonical[x])

    def check_imports(self) -> None:
        c = self.context
        for i in self.module.imports:
            self.check_name(i.module, i.offset)
            self.check_name(i.name, i.offset)
            if isinstance(i.type, TableType):
                c.table_elements.append(self.check_table_type(i.type, i.offset))
                c.table_addresses.append(i.type.address_type)
            elif isinstance(i.type, MemoryType):
                self.check_memory_type(i.type, i.offset)
                c.memory_addresses.append(i.type.address_type)
            elif isinstance(i.type, GlobalType):
                self.add_global(i.type, self.value_type(i.type.content, i.offset))
            else:
                self.check_type_index(i.type, i.offset)
                c.function_types.append(i.type)
        self.imported_functions = len(c.function_types)

    def check_functions(self) -> None:
        m = self.module
        if len(m.functions) != len(m.code):
            raise MalformedError(
                f"function and code section have inconsistent lengths: {len(m.functions)} functions, "
                f"{len(m.code)} bodies",
                0,
            )
        type_count = len(m.types)
        for k, x in enumerate(m.functions):
            if x >= type_count:
                raise self.invalid(
                    f"unknown type {x}: the module has {type_count} types",
                    m.code[k].offset,
                    self.imported_functions + k,
                )
        self.context.function_types.extend(m.functions)

    def check_tables_and_memories(self) -> None:
        c = self.context
        for table in self.module.tables:
            element = self.check_table_type(table.type, 0)
            if table.init is not None:
                self.require(Feature.FUNCTION_REFERENCES, table.init.offset)
                self.check_expression(table.init, element)
            elif not has_default(element):
                raise self.invalid(
                    f"type mismatch: a table of {value_type_name(element)}, which has no null, needs an initializer"
                )
            c.table_elements.append(element)
            c.table_addresses.append(table.type.address_type)
        if not c.features >> Feature.REFERENCE_TYPES & 1 and (
            len(c.table_elements) > 1 or any(t != FUNCREF for t in c.table_elements)
        ):
            raise self.invalid(f"multiple tables, or tables of other types: {switched_off(Feature.REFERENCE_TYPES)}", 0)
        for memory in self.module.memories:
            self.check_memory_type(memory, 0)
            c.memory_addresses.append(memory.address_type)
        if len(c.memory_addresses) > 1:
            self.require(Feature.MULTI_MEMORY, 0)

    def check_globals(self) -> None:
        for g in self.module.globals:
            # Later globals are not in the context yet: an initializer sees earlier ones only.
            content = self.value_type(g.type.content, g.init.offset)
            self.check_expression(g.init, content)
            self.add_global(g.type, content)

    def check_exports(self) -> None:
        c = self.context
        sizes = {
            ExternKind.FUNC: ("function", len(c.function_types)),
            ExternKind.TABLE: ("table", len(c.table_elements)),
            ExternKind.MEMORY: ("memory", len(c.memory_addresses)),
            ExternKind.GLOBAL: ("global", len(c.global_types)),
        }
        seen: set[str] = set()
        for e in self.module.exports:
            self.check_name(e.name, e.offset)
            what, size = sizes[e.kind]
            if e.index >= size:
                raise self.invalid(f'unknown {what} {e.index} in the export "{e.name}"', e.offset)
            if e.name in seen:
                raise self.invalid(f'duplicate export name "{e.name}"', e.offset)
            seen.add(e.name)
            if e.kind == ExternKind.FUNC:
                c.declared.add(e.index)

    def check_start(self) -> None:
        m = self.module
        if m.start is None:
            return
        self.check_function_index(m.start, m.start_offset)
        ft = m.types[self.context.function_types[m.start]]
        if (ft.params, ft.results) != _START_TYPE:
            raise self.invalid(f"start function {m.start} must have the type [] -> [], found {ft}", m.start_offset)

    def check_elements(self) -> None:
        c = self.context
        for e in self.module.elements:
            # Function indices are not null whatever WebAssembly says of it, so such segments need no feature.
            t = int(e.type) if not e.uses_expressions else self.value_type(e.type, e.offset)
            if e.mode is SegmentMode.ACTIVE:
                self.check_active_element(e, t)
            for item in e.items:
                if isinstance(item, Expression):
                    self.check_expression(item, t)
                else:
                    if not matches(t, FUNCREF):
                        raise self.invalid(f"type mismatch: expected {value_type_name(t)}, found funcref", e.offset)
                    self.check_function_index(item, e.offset)
                    c.declared.add(item)
            c.element_types.append(t)

    def check_active_element(self, e: ElementSegment, t: int) -> None:
        c = self.context
        if e.table >= len(c.table_elements):
            raise self.invalid(f"unknown table {e.table}: the module has {len(c.table_elements)} tables", e.offset)
        if not matches(t, c.table_elements[e.table]):
            raise self.invalid(
                f"type mismatch: expected elements of type {value_type_name(c.table_elements[e.table])} for table "
                f"{e.table}, found {value_type_name(t)}",
                e.offset,
            )
        if e.table_offset is None:
            raise self.invalid("constant expression required: an active element segment has an offset", e.offset)
        self.check_expression(e.table_offset, c.table_addresses[e.table])

    def check_data(self) -> None:
        m = self.module
        c = self.context
        for d in m.data:
            if d.mode is not SegmentMode.ACTIVE:
                continue
            if d.memory >= len(c.memory_addresses):
                raise self.invalid(
                    f"unknown memory {d.memory}: the module has {len(c.memory_addresses)} memories", d.offset
                )
            if d.memory_offset is None:
                raise self.invalid("constant expression required: an active data segment has an offset", d.offset)
            self.check_expression(d.memory_offset, c.memory_addresses[d.memory])
        if m.data_count is not None:
            c.data_count = m.data_count

    def check_bodies(self) -> list[int]:
        m = self.module
        c = self.context
        counts: list[int] = []
        tail_calls = 0
        functions = m.functions
        for k, body in enumerate(m.code):
            x = functions[k]
            params = c.type_params[x]
            index = self.imported_functions + k
            code = body.code  # of a record, which is slow to ask when this is compiled
            offset = body.offset
            runs = self.check_body_limits(body.locals, len(params), len(code), body, index)
            try:
                counts.append(check_body(c, code, offset, Locals(params, runs), c.type_results[x]))
            except Invalid as error:
                raise self.invalid(error.reason, offset + error.at, index) from None
            if c.tail_calls != tail_calls:
                tail_calls = c.tail_calls
                self.tail_callers.append(index)
        return counts

    def check_body_limits(
        self, runs: tuple[tuple[int, int], ...], params: int, size: int, body: FunctionBody, index: int
    ) -> tuple[tuple[int, int], ...]:
        """Returns the local declarations of a body, types checked and with canonical indices."""
        if size > limit.BODY_SIZE:
            raise self.invalid(
                f"function body too big: {size} bytes, the limit is {limit.BODY_SIZE}", body.offset, index
            )
        count = params
        references = False
        for n, t in runs:
            count += n
            if t >= NON_NULL:
                references = True
        if count > limit.LOCALS:
            raise self.invalid(f"too many locals: {count}, the limit is {limit.LOCALS}", body.offset, index)
        if not self.all_types:
            self.check_value_types([t for _, t in runs], body.offset, index)
        if references:
            return tuple([(n, self.value_type(t, body.start)) for n, t in runs])
        return runs

    # Parts

    def check_value_types(self, types: Iterable[int], offset: int, function: int | None = None) -> None:
        """Refuses value types of proposals that are switched off."""
        if V128 in types and not self.context.features >> Feature.SIMD & 1:
            raise self.invalid(switched_off(Feature.SIMD), offset, function)
        if not self.context.features >> Feature.REFERENCE_TYPES & 1 and any(map(is_reference, types)):
            raise self.invalid(switched_off(Feature.REFERENCE_TYPES), offset, function)

    def check_name(self, name: str, offset: int) -> None:
        # No character takes more than four bytes, so that short names need not be encoded.
        if len(name) * 4 > limit.NAME_BYTES and len(name.encode(errors="replace")) > limit.NAME_BYTES:
            raise self.invalid(f"name too long: the limit is {limit.NAME_BYTES} bytes", offset)

    def check_type_index(self, x: int, offset: int) -> None:
        if x >= len(self.module.types):
            raise self.invalid(f"unknown type {x}: the module has {len(self.module.types)} types", offset)

    def check_function_index(self, x: int, offset: int) -> None:
        count = len(self.context.function_types)
        if x >= count:
            raise self.invalid(f"unknown function {x}: the module has {count} functions", offset)

    def check_table_type(self, t: TableType, offset: int) -> int:
        """Returns the type of the elements, with a canonical index."""
        if t.is_64:
            self.require(Feature.MEMORY64, offset)
            self.check_limits(t.limits, limit.TABLE_MAXIMUM_64, "table size must be at most 2^64-1 entries", offset)
        else:
            self.check_limits(t.limits, limit.TABLE_MAXIMUM, "table size must be at most 2^32-1 entries", offset)
        # Tables of functions are older than references as values.
        return FUNCREF if t.element == FUNCREF else self.value_type(t.element, offset)

    def check_memory_type(self, t: MemoryType, offset: int) -> None:
        if t.page_size_log2 != 16:
            self.require(Feature.CUSTOM_PAGE_SIZES, offset)
            if t.page_size_log2 != 0:
                raise self.invalid(
                    f"invalid custom page size: {1 << t.page_size_log2} bytes, only 1 and 65536 are possible", offset
                )
        if t.is_64:
            self.require(Feature.MEMORY64, offset)
        if t.shared:
            self.require(Feature.THREADS, offset)
            if t.limits.maximum is None:
                raise self.invalid("shared memory must have maximum", offset)
        size = limit.MEMORY_BYTES_64 if t.is_64 else limit.MEMORY_BYTES
        # With pages of one byte the size itself must fit the address type.
        bound = size - 1 if t.page_size_log2 == 0 else size >> t.page_size_log2
        known = "" if t.is_64 else " (4GiB)"
        self.check_limits(t.limits, bound, f"memory size must be at most {bound} pages{known}", offset)

    def check_limits(self, limits: Limits, bound: int, message: str, offset: int) -> None:
        """Section 3.2.1: both numbers within the range of the kind, and in order."""
        for size in (limits.minimum, limits.maximum):
            if size is not None and size > bound:
                raise self.invalid(f"{message}, found {size}", offset)
        if limits.maximum is not None and limits.minimum > limits.maximum:
            raise self.invalid(
                f"size minimum must not be greater than maximum: {limits.minimum} and {limits.maximum}", offset
            )

    def add_global(self, t: GlobalType, content: int) -> None:
        self.context.global_types.append(content)
        self.context.global_mutable.append(t.mutable)

    def check_expression(self, e: Expression, expected: int) -> None:
        """A constant expression (section 3.3.10) that must leave one value of type `expected`.

        The functions that it references become declared.
        """
        c = self.context
        code = e.code
        # Element and data segments hold tens of thousands of these, so the usual forms have their own paths.
        if expected == I32 and len(code) >= 3 and code[0] == Opcode.I32_CONST and code[-1] == Opcode.END:
            _, at = read_signed(code, 1, 32, e.offset)
            if at == len(code) - 1:
                return
        if expected == FUNCREF and len(code) >= 3 and code[0] == Opcode.REF_FUNC and code[-1] == Opcode.END:
            x, at = read_unsigned(code, 1, 32, e.offset)
            if at == len(code) - 1:
                self.check_function_index(x, e.offset)
                c.declared.add(x)
                return
        stack: list[int] = []
        for i in instructions(code, e.offset):
            row = i.row
            if row.opcode == Opcode.END:
                break
            if row.feature in KNOBS:
                self.require(row.feature, i.offset)
            if not row.constant:
                raise self.invalid(f"constant expression required, found {row.mnemonic}", i.offset)
            if row.extended_constant:
                self.require(Feature.EXTENDED_CONST, i.offset)
            if row.opcode == Opcode.GLOBAL_GET:
                stack.append(self.constant_global(i.immediates[0], i.offset))
            elif row.opcode == Opcode.REF_NULL:
                stack.append(self.value_type(i.immediates[0], i.offset))
            elif row.opcode == Opcode.REF_FUNC:
                self.check_function_index(i.immediates[0], i.offset)
                c.declared.add(i.immediates[0])
                stack.append(concrete_type(c.canonical[c.function_types[i.immediates[0]]], False))
            else:
                for t in reversed(row.params or ()):
                    found = stack.pop() if stack else None
                    if found != t:
                        raise self.mismatch((t,), () if found is None else (found,), i.offset)
                stack.extend(row.results or ())
        if len(stack) != 1 or not matches(stack[0], expected):
            raise self.mismatch((expected,), stack, e.offset)

    def mismatch(self, expected: Iterable[int], found: Iterable[int], offset: int) -> InvalidError:
        wanted = " ".join(map(value_type_name, expected))
        had = " ".join(map(value_type_name, found)) or "nothing"
        return self.invalid(f"type mismatch: expected {wanted}, found {had} in a constant expression", offset)

    def constant_global(self, x: int, offset: int) -> int:
        c = self.context
        if x >= len(c.global_types):
            raise self.invalid(
                f"unknown global {x}: {len(c.global_types)} globals are defined before this expression", offset
            )
        if c.global_mutable[x]:
            raise self.invalid(f"constant expression required, found global.get of the mutable global {x}", offset)
        return c.global_types[x]

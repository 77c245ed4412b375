"""The type checker of function bodies: the algorithm of the specification's appendix A.3 in one walk over the bytes.

`validate` calls `check_body` for every body with a `Context` that it made once for the module. The walk also finds
what is malformed in a body, since the decoder only cuts bodies out.

This is the hot loop of the front end, so it is one plain `while` over the bytes with tables for the ordinary
instructions (`validation.tables`), written for both CPython and mypyc: no closures, no objects per instruction, the
frequent instructions first (the order is that of their share in clang's output, from `local.get` with a quarter).

The operand stack holds value types, and below the operands of each open block a marker: `BASE`, or `POLYMORPHIC` when
the rest of the block is unreachable and the stack yields whatever is asked for. A marker equals no type, so that the
comparison with the expected type is at once the check for underflow and for unreachable code; only when it fails
does a function take over that tells these cases apart.
"""

from __future__ import annotations

from wasmforge.binary.features import opcode_error
from wasmforge.binary.leb128 import read_signed, read_unsigned
from wasmforge.binary.types import read_heap_type, read_value_type
from wasmforge.syntax import types as value_types
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.features import Feature, switched_off
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.limits import NESTING, OPERANDS
from wasmforge.syntax.subtyping import all_match, matches
from wasmforge.syntax.types import concrete_type, is_reference, value_type_name, with_index
from wasmforge.validation import atomics, vectors
from wasmforge.validation.atomics import ATOMIC_ALIGNMENT, ATOMIC_PARAMS, ATOMIC_RESULTS
from wasmforge.validation.errors import Invalid
from wasmforge.validation.tables import (
    BINARY,
    BLOCK_RESULT,
    KIND,
    LOAD,
    NATURAL_ALIGNMENT,
    OPERAND,
    PREFIXED,
    RESULT,
    UNARY,
    VALUE_TYPE,
    VALUE_TYPE_WITHOUT_V128,
)
from wasmforge.validation.vectors import (
    VECTOR_ALIGNMENT,
    VECTOR_KIND,
    VECTOR_LANES,
    VECTOR_PARAMS,
    VECTOR_RESULTS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["Context", "Locals", "check_body", "require", "unknown_type"]

I32: Final = 0x7F
I64: Final = 0x7E
F32: Final = 0x7D
F64: Final = 0x7C
V128: Final = 0x7B
FUNCREF: Final = 0x70
EXTERNREF: Final = 0x6F
"""The value types as literals, which mypyc puts into the code; those of `syntax.types` it looks up each time."""
assert (value_types.I32, value_types.I64, value_types.F32, value_types.F64) == (I32, I64, F32, F64)
assert value_types.V128 == V128
assert (value_types.FUNCREF, value_types.EXTERNREF) == (FUNCREF, EXTERNREF)

NON_NULL: Final = 0x80
CONCRETE: Final = 0x100
INDEX_SHIFT: Final = 10
BOTTOM_REFERENCE: Final = NON_NULL
assert (value_types.NON_NULL, value_types.CONCRETE, value_types.INDEX_SHIFT) == (NON_NULL, CONCRETE, INDEX_SHIFT)

BOTTOM: Final = 0
"""The type of an operand that unreachable code took from a polymorphic stack: it matches every type."""
BASE: Final = 1
POLYMORPHIC: Final = 2

_FUNCTION: Final = -1
"""Stands for the opcode of the outermost block."""
_PREFIX: Final = 0xFC
_VECTOR_PREFIX: Final = 0xFD
_ATOMIC_PREFIX: Final = 0xFE
_EMPTY_BLOCK_TYPE: Final = 0x40
_MEMORY_INDEX_FOLLOWS: Final = 0x40
_NO_TYPES: Final[list[int]] = []
_UNEXPECTED_END: Final = "unexpected end of section or function"


class Context:
    """The context C of section 3.1.1, as lists of plain integers indexed by the index spaces."""

    def __init__(self) -> None:
        self.features = 0
        """The proposals that are allowed, bits of `syntax.features.Feature`; `require` asks."""
        self.type_params: list[list[int]] = []
        self.type_results: list[list[int]] = []
        self.canonical: list[int] = []
        """The smallest of the equal type indices of each; all value types here are made of these."""
        self.function_types: list[int] = []
        self.table_elements: list[int] = []
        self.table_addresses: list[int] = []
        """The type of the indices of each table, i32 or i64."""
        self.memory_addresses: list[int] = []
        """The type of the addresses of each memory."""
        self.global_types: list[int] = []
        self.global_mutable: list[bool] = []
        self.element_types: list[int] = []
        self.data_count = -1
        """The number of data segments, or -1 when there is no data count section."""
        self.declared: set[int] = set()
        """C.refs: the functions that `ref.func` may name inside a body."""
        self.tail_calls = 0
        """How many there have been, in all bodies so far."""
        self.used_features = 0
        """The proposals that `require` was asked for."""
        self.changed_tables: set[int] = set()
        self.value_types = VALUE_TYPE
        """1 for bytes that are value types, without those that are switched off."""

    def allow(self, features: int) -> None:
        """Allows what belongs to these proposals, and nothing else."""
        self.features = features
        if not features >> Feature.SIMD & 1:
            self.value_types = VALUE_TYPE_WITHOUT_V128
        if not features >> Feature.REFERENCE_TYPES & 1:
            self.value_types = bytes(0 if t in (FUNCREF, EXTERNREF) else ok for t, ok in enumerate(self.value_types))


def require(c: Context, feature: int, at: int) -> None:
    """Refuses an instruction whose proposal is switched off. `at` is its position in the code."""
    if not c.features >> feature & 1:
        raise Invalid(switched_off(feature), at)
    c.used_features |= 1 << feature


class Locals:
    """The locals of one function, parameters first.

    Threat: a few bytes declare 50,000 locals, and a module has a million functions. Only the first `EXPANDED` are
    written out, the others are found by bisection in the run-length encoding.

    Locals without an initial value must be set before they are read (section 3.1.5, "C.locals"). So that nobody else
    pays for it, a function that has some writes out only the locals before the first of them; `type_of` and `assign`,
    the slow ways, keep track of what has been set, and `leave` forgets what was set in a block.
    """

    EXPANDED: Final = 256

    def __init__(self, params: list[int], runs: tuple[tuple[int, int], ...]) -> None:
        self.types = list(params)
        self.parameters = len(params)
        self.run_ends: list[int] = [self.parameters]
        self.run_types: list[int] = [BOTTOM]  # of the parameters, which are all written out
        self.tracked = False
        self.initialised: set[int] = set()
        self.order: list[int] = []
        """The locals that were set, in order; those of blocks that have ended are gone."""
        total = len(params)
        for count, t in runs:
            room = 0 if self.tracked else self.EXPANDED - len(self.types)
            if t >= NON_NULL and t & NON_NULL and count:
                self.tracked = True
                room = 0
            if room > 0:
                self.types.extend([t] * min(count, room))
            total += count
            self.run_ends.append(total)
            self.run_types.append(t)
        self.count = total

    def type_of(self, x: int, at: int) -> int:
        """The type of local `x`, about to be read, when it is not one of `types`. `at` is the position for the
        error."""
        t = self._find(x, at)
        if t >= NON_NULL and t & NON_NULL and x not in self.initialised:
            raise Invalid(f"uninitialized local {x}: it has no initial value and is not set before", at)
        return t

    def assign(self, x: int, at: int) -> int:
        """The type of local `x`, which is about to be set, when it is not one of `types`."""
        t = self._find(x, at)
        if t >= NON_NULL and t & NON_NULL and x not in self.initialised:
            self.initialised.add(x)
            self.order.append(x)
        return t

    def leave(self, height: int) -> None:
        """Forgets what was set since `order` had `height` entries."""
        while len(self.order) > height:
            self.initialised.discard(self.order.pop())

    def _find(self, x: int, at: int) -> int:
        if x >= self.count:
            raise Invalid(f"unknown local {x}: the function has {self.count} locals", at)
        low = 0
        high = len(self.run_ends)
        while low < high:
            middle = (low + high) // 2
            if self.run_ends[middle] <= x:
                low = middle + 1
            else:
                high = middle
        return self.run_types[low]


def _name(t: int) -> str:
    return "nothing" if t == BASE else value_type_name(t)


def _names(types: list[int]) -> str:
    return "[" + " ".join([value_type_name(t) for t in types]) + "]"


def _pop(stack: list[int], expected: int, at: int) -> int:
    """Pops an operand of type `expected` (of any type when that is `BOTTOM`) and returns its type."""
    t = stack[-1]
    if t == POLYMORPHIC:
        return expected
    if t == BASE:
        wanted = "a value" if expected == BOTTOM else value_type_name(expected)
        raise Invalid(f"type mismatch: expected {wanted}, found nothing on the stack of the block", at)
    if t != expected and t != BOTTOM and expected != BOTTOM and not matches(t, expected):
        raise Invalid(f"type mismatch: expected {value_type_name(expected)}, found {value_type_name(t)}", at)
    stack.pop()
    return expected if t == BOTTOM else t


def _pop_all(stack: list[int], types: list[int], at: int) -> None:
    n: i64 = len(types)
    if n > 4 and stack[-n:] == types:
        # Threat: calls with a thousand parameters, two bytes each. The comparison of slices runs in C.
        del stack[-n:]
        return
    while n > 0:
        n -= 1
        t = stack[-1]
        if t == types[n]:
            stack.pop()
        elif t == POLYMORPHIC:
            return
        else:
            _pop(stack, types[n], at)


def _push_all(stack: list[int], types: list[int], at: int) -> None:
    """Threat: two bytes of body push a thousand results, again and again, or in unreachable code the parameters of
    nested blocks. Single results need no check, since a body has at most 7.7 million instructions."""
    if len(stack) + len(types) > OPERANDS:
        raise Invalid(f"too many operands: more than {OPERANDS} on the stack", at)
    stack.extend(types)


def _pop_and_push(stack: list[int], types: list[int], at: int) -> None:
    """What a conditional branch does to the operands of its label, which both paths have afterwards."""
    if stack[-len(types) :] != types:
        _pop_all(stack, types, at)
        _push_all(stack, types, at)


def _check_top(stack: list[int], types: list[int], at: int) -> None:
    """Checks that `types` could be popped, and leaves the stack alone (`br_table` does this for every label)."""
    n: i64 = len(types)
    if stack[-n:] == types:
        return
    depth: i64 = len(stack)
    while n > 0:
        n -= 1
        depth -= 1
        t = stack[depth]
        if t == POLYMORPHIC:
            return
        if t != types[n] and t != BOTTOM and not matches(t, types[n]):
            raise Invalid(f"type mismatch: expected {value_type_name(types[n])}, found {_name(t)}", at)


def _set_unreachable(stack: list[int], base: i64) -> None:
    del stack[base + 1 :]
    stack[base] = POLYMORPHIC


def _check_memory_argument(c: Context, code: bytes, pc: int, natural: int, base: int, at: int) -> tuple[int, int]:
    """Checks a memarg at `pc`; returns the type of the memory's addresses and the index after it (section 5.4.6)."""
    align, after = read_unsigned(code, pc, 32, base)
    memory = 0
    if align >= 2 * _MEMORY_INDEX_FOLLOWS:
        raise MalformedError("malformed memop flags", base + pc)
    if align >= _MEMORY_INDEX_FOLLOWS:
        align -= _MEMORY_INDEX_FOLLOWS
        memory, after = read_unsigned(code, after, 32, base)
    memory_offset, after = read_unsigned(code, after, 64, base)
    address = _memory_address(c, memory, at)
    if align > natural:
        raise Invalid(
            f"alignment must not be larger than natural: 2**{align} for an access of {1 << natural} bytes", at
        )
    if memory_offset > 0xFFFFFFFF and address == I32:
        raise Invalid(f"offset out of range: {memory_offset:#x} for a 32-bit memory", at)
    return address, after


def _memory_address(c: Context, memory: int, at: int) -> int:
    """The type of a memory's addresses."""
    if memory >= len(c.memory_addresses):
        raise Invalid(f"unknown memory {memory}: the module has {len(c.memory_addresses)} memories", at)
    return c.memory_addresses[memory]


def _narrower(a: int, b: int) -> int:
    """The type of a length that two address types bound (section 3.3.7)."""
    return I64 if a == I64 and b == I64 else I32


def _check_function(c: Context, x: int, at: int) -> None:
    if x >= len(c.function_types):
        raise Invalid(f"unknown function {x}: the module has {len(c.function_types)} functions", at)


def _table_element(c: Context, x: int, at: int) -> int:
    if x >= len(c.table_elements):
        raise Invalid(f"unknown table {x}: the module has {len(c.table_elements)} tables", at)
    return c.table_elements[x]


def _check_global(c: Context, x: int, at: int) -> None:
    if x >= len(c.global_types):
        raise Invalid(f"unknown global {x}: the module has {len(c.global_types)} globals", at)


def _check_data_segment(c: Context, x: int, at: int, base: int) -> None:
    if c.data_count < 0:
        raise MalformedError("data count section required", base + at)
    if x >= c.data_count:
        raise Invalid(f"unknown data segment {x}", at)


def _element_type(c: Context, x: int, at: int) -> int:
    if x >= len(c.element_types):
        raise Invalid(f"unknown elem segment {x}", at)
    return c.element_types[x]


def _read_block_type(c: Context, code: bytes, pc: int, base: int, at: int) -> tuple[int, int]:
    """A block type that is not one byte: returns the type index, or what `block_type_of` makes of a reference type, and
    the index after it (section 5.4.1)."""
    x, after = read_signed(code, pc, 33, base)
    if x < 0:
        if after != pc + 1:
            raise MalformedError("malformed block type", base + pc)
        t, after = read_value_type(code, pc, base, "malformed block type")
        return -_value_type(c, t, at), after
    if x >= len(c.type_params):
        raise unknown_type(x, len(c.type_params), at)
    return x, after


def unknown_type(x: int, count: int, at: int) -> Invalid:
    return Invalid(f"unknown type {x}: the module has {count} types", at)


def _type_index(c: Context, x: int, at: int) -> int:
    """Checks a type index."""
    if x >= len(c.type_params):
        raise unknown_type(x, len(c.type_params), at)
    return x


def _value_type(c: Context, t: int, at: int) -> int:
    """Checks a value type and returns it with a canonical index."""
    if t == V128:
        require(c, Feature.SIMD, at)
    if t >= NON_NULL:
        require(c, Feature.FUNCTION_REFERENCES, at)
        if t >= CONCRETE:
            x = t >> INDEX_SHIFT
            if x >= len(c.canonical):
                raise unknown_type(x, len(c.canonical), at)
            return with_index(t, c.canonical[x])
    return t


def _unknown_label(x: int, depth: int, at: int) -> Invalid:
    return Invalid(f"unknown label {x}: {depth} labels are in scope", at)


def _remaining(stack: list[int], types: list[int], at: int) -> Invalid:
    """The error for a block that leaves more on the stack than its results, which are popped already."""
    return Invalid(
        f"type mismatch: values remaining on stack at end of block: expected {_names(types)}, "
        f"found {value_type_name(stack[-1])} below",
        at,
    )


def check_body(c: Context, code: bytes, base: int, local_variables: Locals, results: list[int]) -> int:
    """Validates the body `code` of a function with the given locals and results.

    `base` is the position of `code[0]` in the module, for the offsets of malformed encodings. Returns the number of
    instructions. Raises `Invalid` with a position in `code`, `MalformedError` and `UnsupportedFeatureError`.
    """
    try:
        return _check_body(c, code, base, local_variables, results)
    except IndexError:
        # Only reads of immediates go unchecked: operands lie above a marker, and every index is compared with
        # the size of its index space first.
        raise MalformedError(_UNEXPECTED_END, base + len(code)) from None


def _check_body(c: Context, code: bytes, base: int, local_variables: Locals, results: list[int]) -> int:
    pc: i64 = 0
    start: i64 = 0
    mark: i64 = 0
    op: i64
    kind: i64
    x: i64
    y: i64
    t: i64
    n: i64
    end: i64 = len(code)
    count: i64 = 0
    local_types = local_variables.types
    expanded: i64 = len(local_types)
    value_type: bytes = c.value_types
    has_memory: bool = len(c.memory_addresses) > 0
    default_address: i64 = c.memory_addresses[0] if has_memory else I32
    address: i64
    stack: list[int] = [BASE]
    # The control stack, one list a field. `bases` are the positions of the markers in `stack`.
    opcodes: list[int] = [_FUNCTION]
    labels: list[list[int]] = [results]
    block_params: list[list[int]] = [_NO_TYPES]
    block_results: list[list[int]] = [results]
    bases: list[int] = [0]
    # Of locals without an initial value: how many had been set when the block began.
    tracked: bool = local_variables.tracked
    heights: list[int] = [0]

    while pc < end:
        start = pc
        op = code[pc]
        pc += 1
        count += 1

        if op == 0x20:  # local.get
            x = code[pc]
            pc += 1
            if x >= 0x80:
                y = code[pc]
                if y < 0x80:
                    x = x - 0x80 + (y << 7)
                    pc += 1
                else:
                    x, pc = read_unsigned(code, pc - 1, 32, base)
            if x < expanded:
                stack.append(local_types[x])
            else:
                stack.append(local_variables.type_of(x, start))
            continue

        if op == 0x41:  # i32.const
            mark = pc
            while code[pc] >= 0x80:
                pc += 1
            pc += 1
            if pc - mark > 4:
                read_signed(code, mark, 32, base)
            stack.append(I32)
            continue

        if op == _VECTOR_PREFIX:
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            pc = _check_vector(c, stack, code, pc, x, base, start)
            continue

        kind = KIND[op]

        if kind == BINARY:
            t = OPERAND[op]
            if stack[-1] == t and stack[-2] == t:
                stack.pop()
                stack[-1] = RESULT[op]
            else:
                _pop(stack, t, start)
                _pop(stack, t, start)
                stack.append(RESULT[op])
            continue

        if op == 0x21 or op == 0x22:  # local.set, local.tee
            x = code[pc]
            pc += 1
            if x >= 0x80:
                y = code[pc]
                if y < 0x80:
                    x = x - 0x80 + (y << 7)
                    pc += 1
                else:
                    x, pc = read_unsigned(code, pc - 1, 32, base)
            if x < expanded:
                t = local_types[x]
            else:
                t = local_variables.assign(x, start)
            if stack[-1] == t:
                if op == 0x21:
                    stack.pop()
            else:
                _pop(stack, t, start)
                if op == 0x22:
                    stack.append(t)
            continue

        if kind >= LOAD:  # and STORE, which is the last
            mark = pc + 1
            address = default_address
            if has_memory and code[pc] <= NATURAL_ALIGNMENT[op]:
                pc = mark
                while code[pc] >= 0x80:
                    pc += 1
                pc += 1
                if pc - mark > 4:
                    address, pc = _check_memory_argument(c, code, mark - 1, NATURAL_ALIGNMENT[op], base, start)
            else:
                address, pc = _check_memory_argument(c, code, pc, NATURAL_ALIGNMENT[op], base, start)
            if kind == LOAD:
                if stack[-1] == address:
                    stack[-1] = RESULT[op]
                else:
                    _pop(stack, address, start)
                    stack.append(RESULT[op])
            elif stack[-1] == OPERAND[op] and stack[-2] == address:
                stack.pop()
                stack.pop()
            else:
                _pop(stack, OPERAND[op], start)
                _pop(stack, address, start)
            continue

        if op == 0x0D:  # br_if
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if stack[-1] == I32:
                stack.pop()
            else:
                _pop(stack, I32, start)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            types = labels[-1 - x]
            if types:
                _pop_and_push(stack, types, start)
            continue

        if op == 0x0B:  # end
            types = block_results[-1]
            if types:
                _pop_all(stack, types, start)
            if stack[-1] != BASE and stack[-1] != POLYMORPHIC:
                raise _remaining(stack, types, start)
            if opcodes[-1] == Opcode.IF and block_params[-1] != types and not all_match(block_params[-1], types):
                raise Invalid(
                    f"type mismatch: an if without else has the type {_names(block_params[-1])} -> {_names(types)}, "
                    "whose results must be its parameters",
                    start,
                )
            stack.pop()
            opcodes.pop()
            labels.pop()
            block_params.pop()
            block_results.pop()
            bases.pop()
            if tracked:
                local_variables.leave(heights.pop())
            if opcodes:
                if types:
                    _push_all(stack, types, start)
                continue
            if pc != end:
                raise MalformedError("section size mismatch: the body goes on behind its END opcode", base + pc)
            return count

        if kind == UNARY:
            t = OPERAND[op]
            if stack[-1] == t:
                stack[-1] = RESULT[op]
            else:
                _pop(stack, t, start)
                stack.append(RESULT[op])
            continue

        if op == 0x02 or op == 0x03 or op == 0x04:  # block, loop, if
            x = code[pc]
            params = _NO_TYPES
            if x == _EMPTY_BLOCK_TYPE or value_type[x]:
                pc += 1
                types = BLOCK_RESULT[x]
            else:
                x, pc = _read_block_type(c, code, pc, base, start)
                if x >= 0:
                    params = c.type_params[x]
                    types = c.type_results[x]
                else:
                    types = [-x]
            if op == 0x04:
                if stack[-1] == I32:
                    stack.pop()
                else:
                    _pop(stack, I32, start)
            if params:
                _pop_all(stack, params, start)
            if len(opcodes) > NESTING:
                raise Invalid(f"nesting too deep: more than {NESTING} blocks are open", start)
            opcodes.append(op)
            labels.append(params if op == 0x03 else types)
            block_params.append(params)
            block_results.append(types)
            bases.append(len(stack))
            if tracked:
                heights.append(len(local_variables.order))
            stack.append(BASE)
            if params:
                _push_all(stack, params, start)
            continue

        if op == 0x10:  # call
            x = code[pc]
            pc += 1
            if x >= 0x80:
                y = code[pc]
                if y < 0x80:
                    x = x - 0x80 + (y << 7)
                    pc += 1
                else:
                    x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(c.function_types):
                _check_function(c, x, start)
            y = c.function_types[x]
            types = c.type_params[y]
            if types:
                _pop_all(stack, types, start)
            types = c.type_results[y]
            if types:
                _push_all(stack, types, start)
            continue

        if op == 0x42:  # i64.const
            mark = pc
            while code[pc] >= 0x80:
                pc += 1
            pc += 1
            if pc - mark > 9:
                read_signed(code, mark, 64, base)
            stack.append(I64)
            continue

        if op == 0x0C:  # br
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            _pop_all(stack, labels[-1 - x], start)
            _set_unreachable(stack, bases[-1])
            continue

        if op == 0x1A:  # drop
            if stack[-1] == BASE or stack[-1] == POLYMORPHIC:
                _pop(stack, BOTTOM, start)
            else:
                stack.pop()
            continue

        if op == 0x1B:  # select
            _pop(stack, I32, start)
            t = _pop(stack, BOTTOM, start)
            t = _pop(stack, t, start)
            if t != BOTTOM and is_reference(t):
                raise Invalid(
                    f"type mismatch: select without a type takes numbers, found {value_type_name(t)}; "
                    "write (result ...) on it",
                    start,
                )
            stack.append(t)
            continue

        if op == 0x11:  # call_indirect
            x, pc = read_unsigned(code, pc, 32, base)
            y, pc = read_unsigned(code, pc, 32, base)
            _check_call_indirect(c, x, y, start)
            _pop(stack, c.table_addresses[y], start)
            _pop_all(stack, c.type_params[x], start)
            _push_all(stack, c.type_results[x], start)
            continue

        if op == 0x23:  # global.get
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(c.global_types):
                _check_global(c, x, start)
            stack.append(c.global_types[x])
            continue

        if op == 0x24:  # global.set
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(c.global_types):
                _check_global(c, x, start)
            if not c.global_mutable[x]:
                raise Invalid(f"immutable global {x}: it was declared without mut", start)
            t = c.global_types[x]
            if stack[-1] == t:
                stack.pop()
            else:
                _pop(stack, t, start)
            continue

        if op == 0x05:  # else
            if opcodes[-1] != Opcode.IF:
                raise MalformedError("END opcode expected, found an else outside of an if", base + start)
            types = block_results[-1]
            _pop_all(stack, types, start)
            if stack[-1] != BASE and stack[-1] != POLYMORPHIC:
                raise _remaining(stack, types, start)
            stack[-1] = BASE
            stack.extend(block_params[-1])
            opcodes[-1] = Opcode.ELSE
            if tracked:
                local_variables.leave(heights[-1])
            continue

        if op == 0x00:  # unreachable
            _set_unreachable(stack, bases[-1])
            continue

        if op == 0x0F:  # return
            _pop_all(stack, results, start)
            _set_unreachable(stack, bases[-1])
            continue

        if op == 0x44:  # f64.const
            pc += 8
            stack.append(F64)
            continue

        if op == 0x43:  # f32.const
            pc += 4
            stack.append(F32)
            continue

        if op == 0x0E:  # br_table
            n, pc = read_unsigned(code, pc, 32, base)
            if n >= end - pc:
                raise MalformedError(_UNEXPECTED_END, base + end)
            _pop(stack, I32, start)
            pc = _check_br_table(stack, labels, code, pc, n, base, start)
            _set_unreachable(stack, bases[-1])
            continue

        if op == 0x3F:  # memory.size
            x, pc = read_unsigned(code, pc, 32, base)
            stack.append(_memory_address(c, x, start))
            continue

        if op == 0x40:  # memory.grow
            x, pc = read_unsigned(code, pc, 32, base)
            address = _memory_address(c, x, start)
            _pop(stack, address, start)
            stack.append(address)
            continue

        if op == 0x01:  # nop
            continue

        if op == _PREFIX:
            x, pc = read_unsigned(code, pc, 32, base)
            pc = _check_prefixed(c, stack, code, pc, x, base, start)
            continue

        if op == 0x12 or op == 0x13 or op == 0x15:  # return_call, return_call_indirect, return_call_ref
            pc = _check_tail_call(c, stack, code, pc, op, base, start, results)
            _set_unreachable(stack, bases[-1])
            continue

        if op == 0xD5 or op == 0xD6:  # br_on_null, br_on_non_null
            require(c, Feature.FUNCTION_REFERENCES, start)
            x, pc = read_unsigned(code, pc, 32, base)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            _check_branch_on_null(stack, labels[-1 - x], op == 0xD5, start)
            continue

        if op == _ATOMIC_PREFIX:
            x, pc = read_unsigned(code, pc, 32, base)
            pc = _check_atomic(c, stack, code, pc, x, base, start)
            continue

        pc = _check_rare(c, stack, code, pc, op, base, start)

    raise MalformedError(_UNEXPECTED_END, base + end)


def _check_call_indirect(c: Context, x: int, table: int, at: int) -> None:
    """The type index `x` and the table of a call through a table; its operands are left to the caller."""
    t = _table_element(c, table, at)
    if not matches(t, FUNCREF):
        raise Invalid(f"type mismatch: call_indirect needs a table of funcref, found {value_type_name(t)}", at)
    _type_index(c, x, at)


def _check_tail_call(
    c: Context, stack: list[int], code: bytes, pc: int, op: int, base: int, at: int, results: list[int]
) -> int:
    """Checks return_call, return_call_indirect or return_call_ref and returns the index after it (section 3.4.1)."""
    x, pc = read_unsigned(code, pc, 32, base)
    require(c, Feature.TAIL_CALL, at)
    c.tail_calls += 1
    if op == 0x12:
        _check_function(c, x, at)
        x = c.function_types[x]
    elif op == 0x13:
        y, pc = read_unsigned(code, pc, 32, base)
        _check_call_indirect(c, x, y, at)
        _pop(stack, c.table_addresses[y], at)
    else:
        require(c, Feature.FUNCTION_REFERENCES, at)
        _pop(stack, concrete_type(c.canonical[_type_index(c, x, at)], True), at)
    _pop_all(stack, c.type_params[x], at)
    if not all_match(c.type_results[x], results):
        raise Invalid(
            f"type mismatch: a tail call of a function that returns {_names(c.type_results[x])} in one that returns "
            f"{_names(results)}",
            at,
        )
    return pc


def _pop_reference(stack: list[int], at: int) -> int:
    """Pops a reference of any type; `BOTTOM_REFERENCE` when unreachable code does not say which."""
    t = _pop(stack, BOTTOM, at)
    if t == BOTTOM:
        return BOTTOM_REFERENCE
    if not is_reference(t):
        raise Invalid(f"type mismatch: expected a reference, found {value_type_name(t)}", at)
    return t


def _check_branch_on_null(stack: list[int], types: list[int], on_null: bool, at: int) -> None:
    """br_on_null, whose label has `types`, and br_on_non_null, whose label also takes the reference (section 3.4.3)."""
    t = _pop_reference(stack, at) | NON_NULL
    if on_null:
        if types:
            _pop_and_push(stack, types, at)
        stack.append(t)
        return
    if not types or not matches(t, types[-1]):
        raise Invalid(f"type mismatch: br_on_non_null to a label of type {_names(types)} with {value_type_name(t)}", at)
    if len(types) > 1:
        _pop_and_push(stack, types[:-1], at)


def _check_br_table(
    stack: list[int], labels: list[list[int]], code: bytes, pc: int, count: int, base: int, at: int
) -> int:
    """Checks the labels of a `br_table` at `pc`, `count` of them and the default, against the operands and each
    other. Returns the index after them.

    Threat: millions of labels with a thousand types each. Labels share the type lists of the module, so each list
    is compared once however many labels have it.
    """
    checked: set[int] = set()
    previous: list[int] | None = None
    arity = -1
    while count >= 0:
        x, pc = code[pc], pc + 1
        if x >= 0x80:
            x, pc = read_unsigned(code, pc - 1, 32, base)
        if x >= len(labels):
            raise _unknown_label(x, len(labels), at)
        count -= 1
        types = labels[-1 - x]
        if types is previous:
            continue
        previous = types
        if arity < 0:
            arity = len(types)
        elif len(types) != arity:
            raise Invalid(
                f"type mismatch: the labels of a br_table differ in arity: label {x} takes {_names(types)}, "
                f"the first {arity} operands",
                at,
            )
        if arity and id(types) not in checked:
            checked.add(id(types))
            _check_top(stack, types, at)
    return pc


def _check_prefixed(c: Context, stack: list[int], code: bytes, pc: int, number: int, base: int, at: int) -> int:
    """Checks an instruction with the prefix 0xFC whose number has been read. Returns the index after it."""
    op = _PREFIX << 12 | min(number, 0xFFF)
    if op <= 0xFC007:  # saturating truncations
        pass
    elif op == Opcode.MEMORY_INIT:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, y, at)
        _check_data_segment(c, x, at, base)
        return _pop_range(stack, pc, address, I32, I32, at)
    elif op == Opcode.DATA_DROP:
        x, pc = read_unsigned(code, pc, 32, base)
        _check_data_segment(c, x, at, base)
    elif op == Opcode.MEMORY_COPY:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, x, at)
        source = _memory_address(c, y, at)
        return _pop_range(stack, pc, address, source, _narrower(address, source), at)
    elif op == Opcode.MEMORY_FILL:
        x, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, x, at)
        return _pop_range(stack, pc, address, I32, address, at)
    elif op == Opcode.TABLE_INIT:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        _check_same_element(_table_element(c, y, at), _element_type(c, x, at), at)
        c.changed_tables.add(y)
        return _pop_range(stack, pc, c.table_addresses[y], I32, I32, at)
    elif op == Opcode.ELEM_DROP:
        x, pc = read_unsigned(code, pc, 32, base)
        _element_type(c, x, at)
    elif op == Opcode.TABLE_COPY:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        _check_same_element(_table_element(c, x, at), _table_element(c, y, at), at)
        c.changed_tables.add(x)
        address = c.table_addresses[x]
        source = c.table_addresses[y]
        return _pop_range(stack, pc, address, source, _narrower(address, source), at)
    elif op in (Opcode.TABLE_GROW, Opcode.TABLE_SIZE, Opcode.TABLE_FILL):
        require(c, Feature.REFERENCE_TYPES, at)
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        address = c.table_addresses[x]
        if op != Opcode.TABLE_SIZE:
            c.changed_tables.add(x)
        if op == Opcode.TABLE_FILL:
            return _pop_range(stack, pc, address, t, address, at)
        if op == Opcode.TABLE_GROW:
            _pop(stack, address, at)
            _pop(stack, t, at)
        stack.append(address)
        return pc
    signature = PREFIXED.get(op)
    if signature is None:
        raise opcode_error(op, base + at)
    if op >= Opcode.I64_ADD128:
        require(c, Feature.WIDE_ARITHMETIC, at)
    _pop_all(stack, signature[0], at)
    stack.extend(signature[1])
    return pc


_SIMD: Final = int(Feature.SIMD)
_RELAXED_SIMD: Final = int(Feature.RELAXED_SIMD)


def _check_vector(c: Context, stack: list[int], code: bytes, pc: int, number: int, base: int, at: int) -> int:
    """Checks an instruction with the prefix 0xFD whose number has been read. Returns the index after it."""
    n: i64 = number
    kind: i64 = VECTOR_KIND[n] if n < vectors.COUNT else vectors.NO_INSTRUCTION
    if kind == vectors.NO_INSTRUCTION:
        raise opcode_error(_VECTOR_PREFIX << 12 | min(number, 0xFFF), base + at)
    require(c, _RELAXED_SIMD if n >= vectors.FIRST_RELAXED else _SIMD, at)
    if kind == vectors.LITERAL:
        pc += 16
        stack.append(V128)
        return pc
    params = VECTOR_PARAMS[n]
    if kind >= vectors.ACCESS:
        address, pc = _check_memory_argument(c, code, pc, VECTOR_ALIGNMENT[n], base, at)
        if address != I32:
            params = [address, *params[1:]]
    if kind == vectors.LANE or kind == vectors.ACCESS_LANE:
        _check_lane(code[pc], VECTOR_LANES[n], at)
        pc += 1
    elif kind == vectors.SHUFFLE:
        end = pc + 16
        while pc < end:
            _check_lane(code[pc], VECTOR_LANES[n], at)
            pc += 1
    if len(params) == 2 and stack[-1] == params[1] and stack[-2] == params[0]:
        stack.pop()
        stack.pop()
    else:
        _pop_all(stack, params, at)
    results = VECTOR_RESULTS[n]
    if results:
        stack.append(results[0])
    return pc


_THREADS: Final = int(Feature.THREADS)


def _check_atomic(c: Context, stack: list[int], code: bytes, pc: int, number: int, base: int, at: int) -> int:
    """Checks an instruction with the prefix 0xFE whose number has been read. Returns the index after it."""
    n: i64 = number
    alignment: i64 = ATOMIC_ALIGNMENT[n] if n < atomics.COUNT else atomics.NO_INSTRUCTION
    if alignment == atomics.NO_INSTRUCTION:
        raise opcode_error(_ATOMIC_PREFIX << 12 | min(number, 0xFFF), base + at)
    require(c, _THREADS, at)
    if alignment == atomics.FENCE:
        return pc + 1
    if code[pc] & ~_MEMORY_INDEX_FOLLOWS < alignment:
        raise Invalid(f"alignment must be natural: 2**{alignment} bytes for this atomic instruction", at)
    params = ATOMIC_PARAMS[n]
    address, pc = _check_memory_argument(c, code, pc, alignment, base, at)
    if address != I32:
        params = [address, *params[1:]]
    _pop_all(stack, params, at)
    stack.extend(ATOMIC_RESULTS[n])
    return pc


def _check_lane(lane: int, lanes: int, at: int) -> None:
    if lane >= lanes:
        raise Invalid(f"invalid lane index {lane}: the instruction selects from {lanes} lanes", at)


def _pop_range(stack: list[int], pc: int, target: int, value: int, count: int, at: int) -> int:
    """Pops the operands of a bulk instruction: where to, what or where from, how many. Returns `pc`."""
    _pop(stack, count, at)
    _pop(stack, value, at)
    _pop(stack, target, at)
    return pc


def _check_same_element(target: int, source: int, at: int) -> None:
    if not matches(source, target):
        raise Invalid(
            f"type mismatch: expected elements of type {value_type_name(target)}, found {value_type_name(source)}", at
        )


_OF_REFERENCE_TYPES: Final = frozenset(
    {
        Opcode.REF_NULL,
        Opcode.REF_IS_NULL,
        Opcode.REF_FUNC,
        Opcode.TABLE_GET,
        Opcode.TABLE_SET,
        Opcode.SELECT_TYPED,
    }
)


def _check_rare(c: Context, stack: list[int], code: bytes, pc: int, op: int, base: int, at: int) -> int:
    """Checks the one-byte instructions that hardly occur: references, table accesses, typed select; everything
    else is no instruction. Returns the index after it."""
    if op in _OF_REFERENCE_TYPES:
        require(c, Feature.REFERENCE_TYPES, at)
    if op == Opcode.REF_NULL:
        t, pc = read_heap_type(code, pc, base)
        stack.append(_value_type(c, t, at))
        return pc
    if op == Opcode.REF_IS_NULL:
        _pop_reference(stack, at)
        stack.append(I32)
        return pc
    if op == Opcode.REF_AS_NON_NULL:
        require(c, Feature.FUNCTION_REFERENCES, at)
        stack.append(_pop_reference(stack, at) | NON_NULL)
        return pc
    if op == Opcode.CALL_REF:
        x, pc = read_unsigned(code, pc, 32, base)
        require(c, Feature.FUNCTION_REFERENCES, at)
        _pop(stack, concrete_type(c.canonical[_type_index(c, x, at)], True), at)
        _pop_all(stack, c.type_params[x], at)
        _push_all(stack, c.type_results[x], at)
        return pc
    if op == Opcode.REF_FUNC:
        x, pc = read_unsigned(code, pc, 32, base)
        _check_function(c, x, at)
        if x not in c.declared:
            raise Invalid(
                f"undeclared function reference {x}: name the function in an element segment, an export or a global",
                at,
            )
        stack.append(concrete_type(c.canonical[c.function_types[x]], False))
        return pc
    if op == Opcode.TABLE_GET:
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        _pop(stack, c.table_addresses[x], at)
        stack.append(t)
        return pc
    if op == Opcode.TABLE_SET:
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        c.changed_tables.add(x)
        _pop(stack, t, at)
        _pop(stack, c.table_addresses[x], at)
        return pc
    if op == Opcode.SELECT_TYPED:
        return _check_typed_select(c, stack, code, pc, base, at)
    raise opcode_error(op, base + at)


def _check_typed_select(c: Context, stack: list[int], code: bytes, pc: int, base: int, at: int) -> int:
    count, pc = read_unsigned(code, pc, 32, base)
    if count > len(code) - pc:
        raise MalformedError(_UNEXPECTED_END, base + len(code))
    n = count
    t = BOTTOM
    while n > 0:
        t, pc = read_value_type(code, pc, base)
        n -= 1
    if count != 1:
        raise Invalid(f"invalid result arity: select has one result, found {count}", at)
    t = _value_type(c, t, at)
    _pop(stack, I32, at)
    _pop(stack, t, at)
    _pop(stack, t, at)
    stack.append(t)
    return pc

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

The stack is an array of words (`validation.words`) that only grows, with the index of the top in a variable: so its
items are machine integers when compiled. Functions that pop or push take the array and that index, and return the
new index.
"""

from __future__ import annotations

from wasmforge.binary.features import opcode_error
from wasmforge.binary.leb128 import read_signed, read_unsigned
from wasmforge.binary.types import read_heap_type, read_value_type
from wasmforge.syntax import types as value_types
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.features import Feature, switched_off
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.limits import NESTING, OPERANDS, PARAMS, RESULTS
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
from wasmforge.validation.words import i64, interpreted, put, same, vec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

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

_IF: Final = 0x04
_ELSE: Final = 0x05
_FUNCTION: Final = -1
"""Stands for the opcode of the outermost block."""
_PREFIX: Final = 0xFC
_VECTOR_PREFIX: Final = 0xFD
_ATOMIC_PREFIX: Final = 0xFE
_EMPTY_BLOCK_TYPE: Final = 0x40
_MEMORY_INDEX_FOLLOWS: Final = 0x40
_NO_TYPES: Final[list[int]] = []
_NO_LOCALS: Final[set[int]] = set()
_MARGIN: Final = PARAMS + RESULTS
"""More words than one instruction pushes: a marker and the parameters of a block."""
_LONG: Final = 16
"""From this number of types on, slices are faster than a loop where Python interprets this."""
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
        self.operands: vec[i64] = vec[i64]([0] * (2 * _MARGIN))
        """The operand stack, the same for all bodies."""
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
        self.parameters = len(params)
        self.run_ends: list[int] = [self.parameters]
        self.run_types: list[int] = [BOTTOM]  # of the parameters, which are all written out
        self.tracked = False
        types = params
        total = self.parameters
        for count, t in runs:
            if t >= NON_NULL and t & NON_NULL and count:
                self.tracked = True
            elif not self.tracked and len(types) < self.EXPANDED:
                types = types + [t] * min(count, self.EXPANDED - len(types))
            total += count
            self.run_ends.append(total)
            self.run_types.append(t)
        self.count = total
        # Only functions that are tracked write to these.
        self.initialised: set[int] = set() if self.tracked else _NO_LOCALS
        self.order: list[int] = [] if self.tracked else _NO_TYPES
        """The locals that were set, in order; those of blocks that have ended are gone."""
        self.types: vec[i64] = vec[i64](types)

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


def _pop(stack: vec[i64], top: i64, expected: i64, at: i64) -> i64:
    """Pops an operand of type `expected` (of any type when that is `BOTTOM`)."""
    t: i64 = stack[top]
    if t == POLYMORPHIC:
        return top
    if t == BASE:
        wanted = "a value" if expected == BOTTOM else value_type_name(expected)
        raise Invalid(f"type mismatch: expected {wanted}, found nothing on the stack of the block", at)
    if t != expected and t != BOTTOM and expected != BOTTOM and not matches(t, expected):
        raise Invalid(f"type mismatch: expected {value_type_name(expected)}, found {value_type_name(t)}", at)
    return top - 1


def _type_of_top(stack: vec[i64], top: i64, otherwise: i64) -> i64:
    """The type of the operand that `_pop` is about to take, `otherwise` when unreachable code does not say which."""
    t: i64 = stack[top]
    return t if t != POLYMORPHIC and t != BOTTOM else otherwise


def _pop_all(stack: vec[i64], top: i64, types: list[int], at: i64) -> i64:
    n: i64 = len(types)
    if n > _LONG and _INTERPRETED and top >= n and same(stack, top + 1 - n, types):
        # Threat: calls with a thousand parameters, two bytes each. The comparison of slices runs in C.
        return top - n
    while n > 0:
        n -= 1
        t: i64 = stack[top]
        if t == types[n]:
            top -= 1
        elif t == POLYMORPHIC:
            return top
        else:
            top = _pop(stack, top, types[n], at)
    return top


def _push_all(stack: vec[i64], top: i64, types: list[int], at: i64) -> i64:
    """Threat: two bytes of body push a thousand results, again and again, or in unreachable code the parameters of
    nested blocks. Single results need no check, since a body has at most 7.7 million instructions."""
    n: i64 = len(types)
    if top + n >= OPERANDS:
        raise Invalid(f"too many operands: more than {OPERANDS} on the stack", at)
    if n > _LONG and _INTERPRETED:
        put(stack, top + 1, types)
        return top + n
    k: i64 = 0
    while k < n:
        top += 1
        stack[top] = types[k]
        k += 1
    return top


def _pop_and_push(stack: vec[i64], top: i64, types: list[int], at: i64) -> i64:
    """What a conditional branch does to the operands of its label, which both paths have afterwards."""
    return _push_all(stack, _pop_all(stack, top, types, at), types, at)


def _check_top(stack: vec[i64], top: i64, types: list[int], at: i64) -> None:
    """Checks that `types` could be popped, and leaves the stack alone (`br_table` does this for every label)."""
    n: i64 = len(types)
    while n > 0:
        n -= 1
        t: i64 = stack[top]
        if t == POLYMORPHIC:
            return
        if t != types[n] and t != BOTTOM and not matches(t, types[n]):
            raise Invalid(f"type mismatch: expected {value_type_name(types[n])}, found {_name(t)}", at)
        top -= 1


def _grown(stack: vec[i64]) -> vec[i64]:
    """A copy with more room."""
    n: i64 = len(stack)
    larger = vec[i64]([0] * (2 * n))
    k: i64 = 0
    while k < n:
        larger[k] = stack[k]
        k += 1
    return larger


def _set_unreachable(stack: vec[i64], base: i64) -> i64:
    stack[base] = POLYMORPHIC
    return base


_INTERPRETED: Final = interpreted(_set_unreachable)


_MULTI_MEMORY: Final = int(Feature.MULTI_MEMORY)


def _check_memory_argument(c: Context, code: bytes, pc: int, natural: int, base: int, at: int) -> tuple[int, int]:
    """Checks a memarg at `pc`; returns the type of the memory's addresses and the index after it (section 5.4.6)."""
    align, after = read_unsigned(code, pc, 32, base)
    memory = 0
    if align >= 2 * _MEMORY_INDEX_FOLLOWS:
        raise MalformedError("malformed memop flags", base + pc)
    if align >= _MEMORY_INDEX_FOLLOWS:
        require(c, _MULTI_MEMORY, at)  # without it the flag is no form at all, whatever the index
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


def _remaining(found: i64, types: list[int], at: i64) -> Invalid:
    """The error for a block that leaves more on the stack than its results, which are popped already."""
    return Invalid(
        f"type mismatch: values remaining on stack at end of block: expected {_names(types)}, "
        f"found {value_type_name(found)} below",
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
    local_types: vec[i64] = local_variables.types
    expanded: i64 = len(local_types)
    value_type: bytes = c.value_types
    has_memory: bool = len(c.memory_addresses) > 0
    default_address: i64 = c.memory_addresses[0] if has_memory else I32
    address: i64
    stack: vec[i64] = c.operands
    room: i64 = len(stack) - _MARGIN
    top: i64 = 0
    stack[0] = BASE
    kinds: bytes = KIND
    operands: bytes = OPERAND
    operation_results: bytes = RESULT
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
        if top > room:
            stack = c.operands = _grown(stack)
            room = len(stack) - _MARGIN
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
                top += 1
                stack[top] = local_types[x]
            else:
                top += 1
                stack[top] = local_variables.type_of(x, start)
            continue

        if op == 0x41:  # i32.const
            mark = pc
            while code[pc] >= 0x80:
                pc += 1
            pc += 1
            if pc - mark > 4:
                x = code[pc - 1] & 0x78  # of the fifth byte, the sign and what must repeat it
                if pc - mark > 5 or (x != 0 and x != 0x78):
                    read_signed(code, mark, 32, base)
            top += 1
            stack[top] = I32
            continue

        if op == _VECTOR_PREFIX:
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            pc, top = _check_vector(c, stack, top, code, pc, x, base, start)
            continue

        kind = kinds[op]

        if kind == BINARY:
            t = operands[op]
            if stack[top] == t and stack[top - 1] == t:
                top -= 1
                stack[top] = operation_results[op]
            else:
                top = _pop(stack, top, t, start)
                top = _pop(stack, top, t, start)
                top += 1
                stack[top] = operation_results[op]
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
            if stack[top] == t:
                if op == 0x21:
                    top -= 1
            else:
                top = _pop(stack, top, t, start)
                if op == 0x22:
                    top += 1
                    stack[top] = t
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
                if stack[top] == address:
                    stack[top] = operation_results[op]
                else:
                    top = _pop(stack, top, address, start)
                    top += 1
                    stack[top] = operation_results[op]
            elif stack[top] == operands[op] and stack[top - 1] == address:
                top -= 2
            else:
                top = _pop(stack, top, operands[op], start)
                top = _pop(stack, top, address, start)
            continue

        if op == 0x0D:  # br_if
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if stack[top] == I32:
                top -= 1
            else:
                top = _pop(stack, top, I32, start)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            types = labels[-1 - x]
            if types:
                top = _pop_and_push(stack, top, types, start)
            continue

        if op == 0x0B:  # end
            types = block_results[-1]
            if types:
                top = _pop_all(stack, top, types, start)
            if stack[top] != BASE and stack[top] != POLYMORPHIC:
                raise _remaining(stack[top], types, start)
            if opcodes[-1] == _IF and block_params[-1] != types and not all_match(block_params[-1], types):
                raise Invalid(
                    f"type mismatch: an if without else has the type {_names(block_params[-1])} -> {_names(types)}, "
                    "whose results must be its parameters",
                    start,
                )
            top -= 1
            opcodes.pop()
            labels.pop()
            block_params.pop()
            block_results.pop()
            bases.pop()
            if tracked:
                local_variables.leave(heights.pop())
            if opcodes:
                if types:
                    top = _push_all(stack, top, types, start)
                continue
            if pc != end:
                raise MalformedError("section size mismatch: the body goes on behind its END opcode", base + pc)
            return count

        if kind == UNARY:
            t = operands[op]
            if stack[top] == t:
                stack[top] = operation_results[op]
            else:
                top = _pop(stack, top, t, start)
                top += 1
                stack[top] = operation_results[op]
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
                if stack[top] == I32:
                    top -= 1
                else:
                    top = _pop(stack, top, I32, start)
            if params:
                top = _pop_all(stack, top, params, start)
            if len(opcodes) > NESTING:
                raise Invalid(f"nesting too deep: more than {NESTING} blocks are open", start)
            opcodes.append(op)
            labels.append(params if op == 0x03 else types)
            block_params.append(params)
            block_results.append(types)
            bases.append(top + 1)
            if tracked:
                heights.append(len(local_variables.order))
            top += 1
            stack[top] = BASE
            if params:
                top = _push_all(stack, top, params, start)
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
                top = _pop_all(stack, top, types, start)
            types = c.type_results[y]
            if types:
                top = _push_all(stack, top, types, start)
            continue

        if op == 0x42:  # i64.const
            mark = pc
            while code[pc] >= 0x80:
                pc += 1
            pc += 1
            if pc - mark > 9:
                read_signed(code, mark, 64, base)
            top += 1
            stack[top] = I64
            continue

        if op == 0x0C:  # br
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            top = _pop_all(stack, top, labels[-1 - x], start)
            top = _set_unreachable(stack, bases[-1])
            continue

        if op == 0x1A:  # drop
            if stack[top] == BASE or stack[top] == POLYMORPHIC:
                top = _pop(stack, top, BOTTOM, start)
            else:
                top -= 1
            continue

        if op == 0x1B:  # select
            top = _pop(stack, top, I32, start)
            t = _type_of_top(stack, top, BOTTOM)
            top = _pop(stack, top, BOTTOM, start)
            n = _type_of_top(stack, top, t)
            top = _pop(stack, top, t, start)
            t = n
            if t != BOTTOM and is_reference(t):
                raise Invalid(
                    f"type mismatch: select without a type takes numbers, found {value_type_name(t)}; "
                    "write (result ...) on it",
                    start,
                )
            top += 1
            stack[top] = t
            continue

        if op == 0x11:  # call_indirect
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            y = code[pc]
            pc += 1
            if y >= 0x80:
                y, pc = read_unsigned(code, pc - 1, 32, base)
            _check_call_indirect(c, x, y, start)
            top = _pop(stack, top, c.table_addresses[y], start)
            top = _pop_all(stack, top, c.type_params[x], start)
            top = _push_all(stack, top, c.type_results[x], start)
            continue

        if op == 0x23:  # global.get
            x = code[pc]
            pc += 1
            if x >= 0x80:
                x, pc = read_unsigned(code, pc - 1, 32, base)
            if x >= len(c.global_types):
                _check_global(c, x, start)
            top += 1
            stack[top] = c.global_types[x]
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
            if stack[top] == t:
                top -= 1
            else:
                top = _pop(stack, top, t, start)
            continue

        if op == 0x05:  # else
            if opcodes[-1] != _IF:
                raise MalformedError("END opcode expected, found an else outside of an if", base + start)
            types = block_results[-1]
            top = _pop_all(stack, top, types, start)
            if stack[top] != BASE and stack[top] != POLYMORPHIC:
                raise _remaining(stack[top], types, start)
            stack[top] = BASE
            top = _push_all(stack, top, block_params[-1], start)
            opcodes[-1] = _ELSE
            if tracked:
                local_variables.leave(heights[-1])
            continue

        if op == 0x00:  # unreachable
            top = _set_unreachable(stack, bases[-1])
            continue

        if op == 0x0F:  # return
            top = _pop_all(stack, top, results, start)
            top = _set_unreachable(stack, bases[-1])
            continue

        if op == 0x44:  # f64.const
            pc += 8
            top += 1
            stack[top] = F64
            continue

        if op == 0x43:  # f32.const
            pc += 4
            top += 1
            stack[top] = F32
            continue

        if op == 0x0E:  # br_table
            n, pc = read_unsigned(code, pc, 32, base)
            if n >= end - pc:
                raise MalformedError(_UNEXPECTED_END, base + end)
            top = _pop(stack, top, I32, start)
            pc = _check_br_table(stack, top, labels, code, pc, n, base, start)
            top = _set_unreachable(stack, bases[-1])
            continue

        if op == 0x3F:  # memory.size
            x, pc = read_unsigned(code, pc, 32, base)
            top += 1
            stack[top] = _memory_address(c, x, start)
            continue

        if op == 0x40:  # memory.grow
            x, pc = read_unsigned(code, pc, 32, base)
            address = _memory_address(c, x, start)
            top = _pop(stack, top, address, start)
            top += 1
            stack[top] = address
            continue

        if op == 0x01:  # nop
            continue

        if op == _PREFIX:
            x, pc = read_unsigned(code, pc, 32, base)
            pc, top = _check_prefixed(c, stack, top, code, pc, x, base, start)
            continue

        if op == 0x12 or op == 0x13 or op == 0x15:  # return_call, return_call_indirect, return_call_ref
            pc = _check_tail_call(c, stack, top, code, pc, op, base, start, results)
            top = _set_unreachable(stack, bases[-1])
            continue

        if op == 0xD5 or op == 0xD6:  # br_on_null, br_on_non_null
            require(c, Feature.FUNCTION_REFERENCES, start)
            x, pc = read_unsigned(code, pc, 32, base)
            if x >= len(labels):
                raise _unknown_label(x, len(labels), start)
            top = _check_branch_on_null(stack, top, labels[-1 - x], op == 0xD5, start)
            continue

        if op == _ATOMIC_PREFIX:
            x, pc = read_unsigned(code, pc, 32, base)
            pc, top = _check_atomic(c, stack, top, code, pc, x, base, start)
            continue

        pc, top = _check_rare(c, stack, top, code, pc, op, base, start)

    raise MalformedError(_UNEXPECTED_END, base + end)


def _check_call_indirect(c: Context, x: int, table: int, at: int) -> None:
    """The type index `x` and the table of a call through a table; its operands are left to the caller."""
    t = _table_element(c, table, at)
    if not matches(t, FUNCREF):
        raise Invalid(f"type mismatch: call_indirect needs a table of funcref, found {value_type_name(t)}", at)
    _type_index(c, x, at)


def _check_tail_call(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, op: i64, base: int, at: i64, results: list[int]
) -> i64:
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
        top = _pop(stack, top, c.table_addresses[y], at)
    else:
        require(c, Feature.FUNCTION_REFERENCES, at)
        top = _pop(stack, top, concrete_type(c.canonical[_type_index(c, x, at)], True), at)
    top = _pop_all(stack, top, c.type_params[x], at)
    if not all_match(c.type_results[x], results):
        raise Invalid(
            f"type mismatch: a tail call of a function that returns {_names(c.type_results[x])} in one that returns "
            f"{_names(results)}",
            at,
        )
    return pc


def _pop_reference(stack: vec[i64], top: i64, at: i64) -> tuple[i64, i64]:
    """Pops a reference of any type: that type, `BOTTOM_REFERENCE` when unreachable code does not say which, and the new
    top."""
    t: i64 = _type_of_top(stack, top, BOTTOM)
    top = _pop(stack, top, BOTTOM, at)
    if t == BOTTOM:
        return BOTTOM_REFERENCE, top
    if not is_reference(t):
        raise Invalid(f"type mismatch: expected a reference, found {value_type_name(t)}", at)
    return t, top


def _check_branch_on_null(stack: vec[i64], top: i64, types: list[int], on_null: bool, at: i64) -> i64:
    """br_on_null, whose label has `types`, and br_on_non_null, whose label also takes the reference (section 3.4.3)."""
    t: i64
    t, top = _pop_reference(stack, top, at)
    t |= NON_NULL
    if on_null:
        if types:
            top = _pop_and_push(stack, top, types, at)
        top += 1
        stack[top] = t
        return top
    if not types or not matches(t, types[-1]):
        raise Invalid(f"type mismatch: br_on_non_null to a label of type {_names(types)} with {value_type_name(t)}", at)
    if len(types) > 1:
        top = _pop_and_push(stack, top, types[:-1], at)
    return top


def _check_br_table(
    stack: vec[i64], top: i64, labels: list[list[int]], code: bytes, pc: i64, count: i64, base: int, at: i64
) -> i64:
    """Checks the labels of a `br_table` at `pc`, `count` of them and the default, against the operands and each
    other. Returns the index after them.

    Threat: millions of labels with a thousand types each. Labels share the type lists of the module, so each list
    is compared once however many labels have it.
    """
    checked: set[int] = set()
    previous: list[int] | None = None
    arity = -1
    while count >= 0:
        x: i64 = code[pc]
        pc += 1
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
            _check_top(stack, top, types, at)
    return pc


def _check_prefixed(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, number: i64, base: int, at: i64
) -> tuple[i64, i64]:
    """Checks an instruction with the prefix 0xFC whose number has been read. Returns the index after it and the
    new top."""
    op = _PREFIX << 12 | min(number, 0xFFF)
    if op <= 0xFC007:  # saturating truncations
        pass
    elif op == Opcode.MEMORY_INIT:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, y, at)
        _check_data_segment(c, x, at, base)
        return pc, _pop_range(stack, top, address, I32, I32, at)
    elif op == Opcode.DATA_DROP:
        x, pc = read_unsigned(code, pc, 32, base)
        _check_data_segment(c, x, at, base)
    elif op == Opcode.MEMORY_COPY:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, x, at)
        source = _memory_address(c, y, at)
        return pc, _pop_range(stack, top, address, source, _narrower(address, source), at)
    elif op == Opcode.MEMORY_FILL:
        x, pc = read_unsigned(code, pc, 32, base)
        address = _memory_address(c, x, at)
        return pc, _pop_range(stack, top, address, I32, address, at)
    elif op == Opcode.TABLE_INIT:
        x, pc = read_unsigned(code, pc, 32, base)
        y, pc = read_unsigned(code, pc, 32, base)
        _check_same_element(_table_element(c, y, at), _element_type(c, x, at), at)
        c.changed_tables.add(y)
        return pc, _pop_range(stack, top, c.table_addresses[y], I32, I32, at)
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
        return pc, _pop_range(stack, top, address, source, _narrower(address, source), at)
    elif op in (Opcode.TABLE_GROW, Opcode.TABLE_SIZE, Opcode.TABLE_FILL):
        require(c, Feature.REFERENCE_TYPES, at)
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        address = c.table_addresses[x]
        if op != Opcode.TABLE_SIZE:
            c.changed_tables.add(x)
        if op == Opcode.TABLE_FILL:
            return pc, _pop_range(stack, top, address, t, address, at)
        if op == Opcode.TABLE_GROW:
            top = _pop(stack, top, address, at)
            top = _pop(stack, top, t, at)
        top += 1
        stack[top] = address
        return pc, top
    signature = PREFIXED.get(op)
    if signature is None:
        raise opcode_error(op, base + at)
    if op >= Opcode.I64_ADD128:
        require(c, Feature.WIDE_ARITHMETIC, at)
    top = _pop_all(stack, top, signature[0], at)
    top = _push_all(stack, top, signature[1], at)
    return pc, top


_SIMD: Final = int(Feature.SIMD)
_RELAXED_SIMD: Final = int(Feature.RELAXED_SIMD)


def _check_vector(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, number: i64, base: int, at: i64
) -> tuple[i64, i64]:
    """Checks an instruction with the prefix 0xFD whose number has been read. Returns the index after it and the
    new top."""
    n: i64 = number
    kind: i64 = VECTOR_KIND[n] if n < vectors.COUNT else vectors.NO_INSTRUCTION
    if kind == vectors.NO_INSTRUCTION:
        raise opcode_error(_VECTOR_PREFIX << 12 | min(number, 0xFFF), base + at)
    require(c, _RELAXED_SIMD if n >= vectors.FIRST_RELAXED else _SIMD, at)
    if kind == vectors.LITERAL:
        pc += 16
        top += 1
        stack[top] = V128
        return pc, top
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
    if len(params) == 2 and stack[top] == params[1] and stack[top - 1] == params[0]:
        top -= 2
    else:
        top = _pop_all(stack, top, params, at)
    results = VECTOR_RESULTS[n]
    if results:
        top += 1
        stack[top] = results[0]
    return pc, top


_THREADS: Final = int(Feature.THREADS)


def _check_atomic(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, number: i64, base: int, at: i64
) -> tuple[i64, i64]:
    """Checks an instruction with the prefix 0xFE whose number has been read. Returns the index after it and the
    new top."""
    n: i64 = number
    alignment: i64 = ATOMIC_ALIGNMENT[n] if n < atomics.COUNT else atomics.NO_INSTRUCTION
    if alignment == atomics.NO_INSTRUCTION:
        raise opcode_error(_ATOMIC_PREFIX << 12 | min(number, 0xFFF), base + at)
    require(c, _THREADS, at)
    if alignment == atomics.FENCE:
        if code[pc]:
            raise MalformedError("malformed atomic ordering: expected a zero byte", base + pc)
        return pc + 1, top
    if code[pc] & ~_MEMORY_INDEX_FOLLOWS < alignment:
        raise Invalid(f"alignment must be natural: 2**{alignment} bytes for this atomic instruction", at)
    params = ATOMIC_PARAMS[n]
    address, pc = _check_memory_argument(c, code, pc, alignment, base, at)
    if address != I32:
        params = [address, *params[1:]]
    top = _pop_all(stack, top, params, at)
    top = _push_all(stack, top, ATOMIC_RESULTS[n], at)
    return pc, top


def _check_lane(lane: int, lanes: int, at: int) -> None:
    if lane >= lanes:
        raise Invalid(f"invalid lane index {lane}: the instruction selects from {lanes} lanes", at)


def _pop_range(stack: vec[i64], top: i64, target: i64, value: i64, count: i64, at: i64) -> i64:
    """Pops the operands of a bulk instruction: where to, what or where from, how many."""
    top = _pop(stack, top, count, at)
    top = _pop(stack, top, value, at)
    return _pop(stack, top, target, at)


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


def _check_rare(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, op: i64, base: int, at: i64
) -> tuple[i64, i64]:
    """Checks the one-byte instructions that hardly occur: references, table accesses, typed select; everything
    else is no instruction. Returns the index after it and the new top."""
    if op in _OF_REFERENCE_TYPES:
        require(c, Feature.REFERENCE_TYPES, at)
    if op == Opcode.REF_NULL:
        t, pc = read_heap_type(code, pc, base)
        top += 1
        stack[top] = _value_type(c, t, at)
        return pc, top
    if op == Opcode.REF_IS_NULL:
        t, top = _pop_reference(stack, top, at)
        top += 1
        stack[top] = I32
        return pc, top
    if op == Opcode.REF_AS_NON_NULL:
        require(c, Feature.FUNCTION_REFERENCES, at)
        t, top = _pop_reference(stack, top, at)
        top += 1
        stack[top] = t | NON_NULL
        return pc, top
    if op == Opcode.CALL_REF:
        x, pc = read_unsigned(code, pc, 32, base)
        require(c, Feature.FUNCTION_REFERENCES, at)
        top = _pop(stack, top, concrete_type(c.canonical[_type_index(c, x, at)], True), at)
        top = _pop_all(stack, top, c.type_params[x], at)
        top = _push_all(stack, top, c.type_results[x], at)
        return pc, top
    if op == Opcode.REF_FUNC:
        x, pc = read_unsigned(code, pc, 32, base)
        _check_function(c, x, at)
        if x not in c.declared:
            raise Invalid(
                f"undeclared function reference {x}: name the function in an element segment, an export or a global",
                at,
            )
        top += 1
        stack[top] = concrete_type(c.canonical[c.function_types[x]], False)
        return pc, top
    if op == Opcode.TABLE_GET:
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        top = _pop(stack, top, c.table_addresses[x], at)
        top += 1
        stack[top] = t
        return pc, top
    if op == Opcode.TABLE_SET:
        x, pc = read_unsigned(code, pc, 32, base)
        t = _table_element(c, x, at)
        c.changed_tables.add(x)
        top = _pop(stack, top, t, at)
        top = _pop(stack, top, c.table_addresses[x], at)
        return pc, top
    if op == Opcode.SELECT_TYPED:
        return _check_typed_select(c, stack, top, code, pc, base, at)
    raise opcode_error(op, base + at)


def _check_typed_select(
    c: Context, stack: vec[i64], top: i64, code: bytes, pc: i64, base: int, at: i64
) -> tuple[i64, i64]:
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
    top = _pop(stack, top, I32, at)
    top = _pop(stack, top, t, at)
    top = _pop(stack, top, t, at)
    top += 1
    stack[top] = t
    return pc, top

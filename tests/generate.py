"""Random modules for comparing engines and compilers: every instruction, nested control, many locals, calls of all
kinds with few and with many values. The test suites run some hundred; `python -m tests.differential functions` compares
more between the strategies of this project and the `wasmtime` package.

What is generated never depends on the bits of a NaN, which the specification leaves open (section 4.3.3): where a
float's bits could be seen (reinterpretations, stores, the sign operand of copysign) every NaN is replaced by the
canonical one. Loops and calls take from a global that counts down, so that every function ends.
"""

from __future__ import annotations

import math
import random
import struct
from itertools import zip_longest
from typing import Any, Final

from wasmforge.binary import encode
from wasmforge.binary.leb128 import encode_signed, encode_unsigned
from wasmforge.syntax.features import Feature
from wasmforge.syntax.instructions import INSTRUCTIONS, InstructionRow, opcode_bytes
from wasmforge.syntax.module import (
    DataSegment,
    ElementSegment,
    Export,
    Expression,
    FunctionBody,
    Global,
    Import,
    Module,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import (
    CONCRETE,
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
    concrete_type,
    has_default,
    type_index,
)

NUMBERS: Final = (I32, I64, F32, F64)
INTERESTING: Final = (
    *(0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256),
    *(0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000),
)
FLOATS: Final = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e10, -3e9),
    *(2147483647.5, 4294967296.0, 9.3e18, 1.9e19, -1e300),
)
SCALAR: Final = [r for r in INSTRUCTIONS if r.feature <= Feature.REFERENCE_TYPES]
"""Those of WebAssembly 2.0 without vectors, whose operands may be anything."""
PLAIN: Final = [r for r in SCALAR if r.params is not None and r.results and not r.immediates and not r.access]
LOADS: Final = [r for r in SCALAR if r.access and r.results]
STORES: Final = [r for r in SCALAR if r.access and not r.results]
FUEL: Final = 400

DIVISIONS: Final = ("div_s", "div_u", "rem_s", "rem_u")


class Label:
    def __init__(self, types: tuple[ValType, ...]) -> None:
        self.types = types


class Body:
    """The body of one function."""

    def __init__(self, made: ModuleMaker, index: int, ft: FuncType) -> None:
        self.made = made
        self.r = made.r
        self.index = index
        self.type = ft
        self.out = bytearray()
        self.stack: list[ValType] = []
        self.base = 0
        self.labels: list[Label] = []
        self.locals = list(ft.params)
        count = self.r.choice((0, 2, 5, 5, 12, 40))
        types = [*made.numbers, *made.numbers, FUNCREF, EXTERNREF]
        if made.references:
            types += [concrete_type(made.function_type(), null) for null in (True, False)]
        self.declared = [self.r.choice(types) for _ in range(count)]
        self.locals += self.declared
        self.usable = len(self.locals)
        # Scratch locals for canonicalisation.
        self.nan_local = {F32: len(self.locals), F64: len(self.locals) + 1}
        self.locals += self.reserved()
        self.declared += self.reserved()
        self.budget = self.r.choice((15, 40, 120))

    def reserved(self) -> list[ValType]:
        return [F32, F64]

    # --- Emission -----------------------------------------------------------------------------------------------

    def op(self, mnemonic: str, *immediates: bytes) -> None:
        self.out += opcode_bytes(self.made.opcodes[mnemonic])
        for data in immediates:
            self.out += data

    def u(self, value: int) -> bytes:
        return encode_unsigned(value)

    def const(self, t: ValType) -> None:
        r = self.r
        if t in (I32, I64):
            bits = 32 if t == I32 else 64
            kind = r.random()
            value = r.choice(INTERESTING) if kind < 0.6 else r.getrandbits(bits)
            value = -value if r.random() < 0.2 else value
            value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
            self.op("i32.const" if t == I32 else "i64.const", encode_signed(value))
        elif t == F32:
            bits = r.getrandbits(32) if r.random() < 0.1 else struct.unpack("<I", struct.pack("<f", self.small()))[0]
            self.op("f32.const", struct.pack("<I", bits))
        elif t == F64:
            data = struct.pack("<Q", r.getrandbits(64)) if r.random() < 0.1 else struct.pack("<d", r.choice(FLOATS))
            self.op("f64.const", data)
        elif t == FUNCREF and r.random() < 0.6:
            self.op("ref.func", self.u(r.randrange(self.made.count)))
        elif t >= CONCRETE:
            same = [x for x, ti in enumerate(self.made.functions) if ti == type_index(t)]
            if not has_default(t) or r.random() < 0.8:
                self.op("ref.func", self.u(r.choice(same)))
            else:
                self.op("ref.null", encode_signed(type_index(t)))
        else:
            self.op("ref.null", bytes((t,)))
        self.stack.append(t)

    def small(self) -> float:
        value = self.r.choice(FLOATS)
        return value if abs(value) < 1e38 else 3.0

    def locals_of(self, t: ValType) -> list[int]:
        return [x for x, found in enumerate(self.locals[: self.usable]) if found == t]

    def value(self, t: ValType, depth: int = 0) -> None:
        """Pushes a value of a type."""
        r = self.r
        kind = r.random()
        candidates = self.locals_of(t) if has_default(t) else []  # others may not be set yet
        if kind < 0.5 and candidates:
            self.op("local.get", self.u(r.choice(candidates)))
            self.stack.append(t)
        elif kind < 0.75 or depth > 3 or t not in self.made.numbers:
            self.const(t)
        elif kind < 0.8:
            self.op("global.get", self.u(self.made.global_of[t]))
            self.stack.append(t)
        else:
            rows = self.made.by_result[t]
            self.plain(r.choice(rows), depth + 1)

    def operands(self, types: tuple[ValType, ...], depth: int) -> None:
        """Makes the topmost operands of the block have these types: those that are there, or new ones."""
        n = len(types)
        if n and depth == 0 and tuple(self.stack[len(self.stack) - n :]) == types and len(self.stack) - n >= self.base:
            if self.r.random() < 0.8:
                return
        for t in types:
            self.value(t, depth)

    def canonical(self, t: ValType) -> None:
        """Replaces the topmost operand by the canonical NaN if it is one."""
        x = self.u(self.nan_local[t])
        n = "f32" if t == F32 else "f64"
        self.op("local.tee", x)
        self.op(f"{n}.const", struct.pack("<I", 0x7FC00000) if t == F32 else struct.pack("<Q", 0x7FF8 << 48))
        self.op("local.get", x)
        self.op("local.get", x)
        self.op(f"{n}.eq")
        self.op("select")

    def take(self, n: int) -> None:
        if n:
            del self.stack[-n:]

    def plain(self, row: InstructionRow, depth: int) -> None:
        assert row.params is not None and row.results is not None
        n, _, operation = row.mnemonic.partition(".")
        if operation in DIVISIONS and self.r.random() < 0.8:
            self.operands(row.params, depth)
            self.op(f"{n}.const", b"\x01")
            self.op(f"{n}.or")
        elif operation.startswith("trunc_f") and self.r.random() < 0.8:
            return self.plain(self.made.rows[f"{n}.trunc_sat_{operation[6:]}"], depth)
        else:
            self.operands(row.params, depth)
        if operation == "copysign" or (operation.startswith("reinterpret_f")):
            self.canonical(row.params[-1])
        self.out += opcode_bytes(row.opcode)
        self.take(len(row.params))
        self.stack += row.results
        return None

    def address(self) -> None:
        self.value(I32, 2)
        if self.r.random() < 0.97:
            self.op("i32.const", encode_signed(self.r.choice((0xFF, 0xFFF, 0xFFF8))))
            self.op("i32.and")

    def memarg(self) -> bytes:
        offset = self.r.choice((0, 0, 0, 1, 4, 8, 100, 200, 1000, 65000 if self.r.random() < 0.1 else 16))
        if self.r.random() < 0.004:
            offset = self.r.choice((1 << 25, 1 << 26, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
        return b"\0" + self.u(offset)

    # --- Statements -----------------------------------------------------------------------------------------------

    def statement(self, depth: int) -> bool:
        """Emits something; returns False when what follows is not reached."""
        r = self.r
        self.budget -= 1
        kind = r.random()
        if kind < 0.30:
            self.plain(r.choice(PLAIN), 0)
        elif kind < 0.38:
            row = r.choice(LOADS)
            self.address()
            self.take(1)
            self.out += opcode_bytes(row.opcode) + self.memarg()
            assert row.results is not None
            self.stack += row.results
        elif kind < 0.41:
            self.update()
        elif kind < 0.47:
            row = r.choice(STORES)
            assert row.params is not None
            self.address()
            self.value(row.params[1])
            if row.params[1] in (F32, F64):
                self.canonical(row.params[1])
            self.out += opcode_bytes(row.opcode) + self.memarg()
            self.take(2)
        elif kind < 0.60:
            self.assign()
        elif kind < 0.63:
            t = r.choice(self.made.numbers)
            self.value(t)
            self.op("global.set", self.u(self.made.global_of[t]))
            self.take(1)
        elif kind < 0.68:
            self.select()
        elif kind < 0.73:
            self.call()
        elif kind < 0.75:
            self.reference() if self.made.references else self.call()
        elif kind < 0.79:
            self.bulk()
        elif kind < 0.92:
            if depth < 6 and self.budget > 0:
                self.block(depth)
        elif self.labels:
            return self.branch()
        return True

    def assign(self) -> None:
        if not self.usable:
            return
        x = self.r.randrange(self.usable)
        t = self.locals[x]
        self.operands((t,), 0)
        if self.r.random() < 0.3:
            self.op("local.tee", self.u(x))
        else:
            self.op("local.set", self.u(x))
            self.take(1)

    def update(self) -> None:
        """A local becomes something of itself, the form that compilers compute in place."""
        candidates = [x for x, t in enumerate(self.locals[: self.usable]) if t in self.made.numbers]
        if not candidates:
            return
        x = self.r.choice(candidates)
        t = self.locals[x]
        rows = [row for row in self.made.by_result[t] if row.params in ((t,), (t, t)) and "trunc_f" not in row.mnemonic]
        row = self.r.choice(rows)
        assert row.params is not None
        position = self.r.randrange(len(row.params))
        for k in range(len(row.params)):
            if k == position:
                self.op("local.get", self.u(x))
                self.stack.append(t)
            else:
                self.value(t)
                if self.r.random() < 0.3:
                    self.plain(row, 1)
                    self.op("drop")
                    self.take(1)
        if "copysign" in row.mnemonic:
            self.canonical(t)
        if row.mnemonic.partition(".")[2] in DIVISIONS:
            self.op(f"{row.mnemonic[:3]}.const", b"\x01")
            self.op(f"{row.mnemonic[:3]}.or")
        self.out += opcode_bytes(row.opcode)
        self.take(len(row.params))
        self.stack.append(t)
        self.op("local.set", self.u(x))
        self.take(1)

    def select(self) -> None:
        t = self.r.choice((*self.made.numbers, FUNCREF))
        self.value(t)
        self.value(t)
        self.value(I32)
        if t == FUNCREF or self.r.random() < 0.3:
            self.out += b"\x1c\x01" + bytes((t,))
        else:
            self.op("select")
        self.take(3)
        self.stack.append(t)

    def call(self) -> None:
        r = self.r
        made = self.made
        kind = r.random()
        if kind < 0.2:
            for t in made.host_type.params:
                self.value(t)
            self.op("call", self.u(0))
            ft = made.host_type
        elif kind < 0.5:
            ti = r.randrange(len(made.types))
            ft = made.types[ti]
            self.call_indirect("call_indirect", ti)
        elif kind < 0.6 and made.references:
            ti = made.function_type()
            ft = made.types[ti]
            self.call_ref("call_ref", ti)
        else:
            x = r.randrange(1, made.count)
            ft = made.types[made.functions[x]]
            for t in ft.params:
                self.value(t)
            self.op("call", self.u(x))
        self.take(len(ft.params))
        self.stack += ft.results

    def call_indirect(self, mnemonic: str, ti: int) -> None:
        """Everything but the results."""
        for t in self.made.types[ti].params:
            self.value(t)
        self.value(I32)
        self.op("i32.const", encode_signed(15))
        self.op("i32.and")
        self.op(mnemonic, self.u(ti), b"\0")
        self.stack.pop()

    def call_ref(self, mnemonic: str, ti: int) -> None:
        """Everything but the results."""
        for t in self.made.types[ti].params:
            self.value(t)
        self.value(concrete_type(ti, self.r.random() < 0.5))
        self.op(mnemonic, self.u(ti))
        self.stack.pop()

    def tail_call(self) -> None:
        """A call of a function with the same results, itself in any case, instead of a return."""
        r = self.r
        made = self.made
        same = [ti for ti in set(made.functions) if made.types[ti].results == self.type.results]
        ti = r.choice(sorted(same))
        kind = r.random()
        if kind < 0.25 and made.plain_table:
            self.call_indirect("return_call_indirect", ti)
        elif kind < 0.5 and made.references:
            self.call_ref("return_call_ref", ti)
        else:
            for t in made.types[ti].params:
                self.value(t)
            x = r.choice([x for x, found in enumerate(made.functions) if found == ti])
            self.op("return_call", self.u(x))

    def reference(self) -> None:
        """Uses of typed references other than calls."""
        r = self.r
        ti = self.made.function_type()
        maybe, surely = concrete_type(ti, True), concrete_type(ti, False)
        kind = r.randrange(5)
        if kind == 0:
            self.value(r.choice((maybe, surely)))
            self.op("ref.is_null")
            self.stack[-1] = I32
        elif kind == 1:
            self.value(maybe)
            self.op("ref.as_non_null")
            self.stack[-1] = surely
        elif kind == 2 and self.labels:
            depth = r.randrange(len(self.labels))
            self.operands(self.labels[-1 - depth].types, 0)
            self.value(maybe)
            self.op("br_on_null", self.u(depth))
            self.stack[-1] = surely
        elif kind == 3:
            # A block that br_on_non_null leaves with the reference, with operands below that stay.
            self.out += b"\x02\x64" + encode_signed(ti)
            self.value(I32)
            self.value(maybe)
            self.op("br_on_non_null", b"\0")
            self.op("drop")
            self.take(2)
            self.value(surely)
            self.out.append(0x0B)
        else:
            self.value(surely)
            self.value(maybe)
            self.value(I32)
            self.out += b"\x1c\x01\x63" + encode_signed(ti)
            self.take(3)
            self.stack.append(maybe)

    def bulk(self) -> None:
        r = self.r
        kind = r.randrange(15)
        if kind < 4:
            self.address()
            if kind == 1:
                self.value(I32)
            else:
                self.address()
            self.op("i32.const", encode_signed(r.choice((0, 1, 7, 100, 1000))))
            if kind == 1:
                self.op("memory.fill", b"\0")
            elif kind == 2 and r.random() < 0.5:
                self.op("i32.const", b"\x0f")
                self.op("i32.and")
                self.op("memory.init", b"\0\0")
            else:
                self.op("memory.copy", b"\0\0")
            self.take(2)
        elif kind == 4:
            self.op("data.drop", b"\0") if r.random() < 0.1 else self.op("elem.drop", b"\1")
        elif kind == 5:
            self.op("memory.size", b"\0")
            self.stack.append(I32)
        elif kind == 6:
            self.value(I32)
            if r.random() < 0.8:
                self.op("i32.const", b"\x01")
                self.op("i32.and")
            self.op("memory.grow", b"\0")
        elif kind == 7:
            self.op("table.size", b"\0")
            self.stack.append(I32)
        elif kind == 8:
            self.element()
            self.op("table.get", b"\0")
            self.stack[-1] = FUNCREF
        elif kind == 9:
            self.element()
            self.value(FUNCREF)
            self.op("table.set", b"\0")
            self.take(2)
        elif kind == 10:
            for _ in range(2):
                self.element()
            self.op("i32.const", b"\x03")
            self.op("table.copy", b"\0\0")
            self.take(2)
        elif kind == 11:
            self.element()
            self.op("i32.const", b"\x01")
            self.op("i32.const", b"\x02")
            self.op("table.init", b"\1\0")
            self.take(1)
        elif kind == 12:
            self.element()
            self.value(FUNCREF)
            self.op("i32.const", b"\x02")
            self.op("table.fill", b"\0")
            self.take(2)
        elif kind == 13:
            self.value(FUNCREF)
            self.op("i32.const", b"\x01")
            self.op("table.grow", b"\0")
            self.stack[-1] = I32
        else:
            self.value(r.choice((FUNCREF, EXTERNREF)))
            self.op("ref.is_null")
            self.stack[-1] = I32

    def element(self) -> None:
        self.value(I32, 2)
        self.op("i32.const", encode_signed(7))
        self.op("i32.and")

    # --- Control --------------------------------------------------------------------------------------------------

    def block(self, depth: int) -> None:
        r = self.r
        kind = r.choice((0x02, 0x03, 0x04, 0x04))
        if r.random() < 0.5:
            params: tuple[ValType, ...] = ()
            results = () if r.random() < 0.5 else (r.choice(self.made.numbers),)
            encoded = bytes((results[0],)) if results else b"\x40"
        else:
            ti = r.randrange(len(self.made.block_types))
            ft = self.made.block_types[ti]
            params, results = ft.params, ft.results
            encoded = encode_signed(len(self.made.types) + ti)
        self.operands(params, 0)
        if kind == 0x04:
            self.value(I32)
            self.take(1)
        has_else = kind == 0x04 and (params != results or r.random() < 0.5)
        self.out.append(kind)
        self.out += encoded
        self.take(len(params))
        outer = self.base
        self.base = len(self.stack)
        self.labels.append(Label(params if kind == 0x03 else results))
        if kind == 0x03:
            self.fuel()
        for part in range(2 if has_else else 1):
            if part:
                self.out.append(0x05)
            self.stack += params
            self.statements(depth + 1, results)
            del self.stack[self.base :]
        self.out.append(0x0B)
        self.labels.pop()
        self.base = outer
        self.stack += results

    def fuel(self) -> None:
        x = self.u(self.made.fuel)
        self.op("global.get", x)
        self.op("i32.eqz")
        self.out += b"\x04\x40"
        self.op("unreachable")
        self.out.append(0x0B)
        self.op("global.get", x)
        self.op("i32.const", b"\x01")
        self.op("i32.sub")
        self.op("global.set", x)

    def statements(self, depth: int, results: tuple[ValType, ...]) -> None:
        """A sequence that ends with exactly the results on the stack, or is not reached."""
        for _ in range(self.r.randrange(1, 9)):
            if self.budget < 0:
                break
            if not self.statement(depth):
                if self.r.random() < 0.3:
                    self.dead_code()
                return
        have = self.stack[self.base :]
        if tuple(have) == results:
            return
        while len(self.stack) > self.base:
            t = self.stack.pop()
            candidates = self.locals_of(t)
            if candidates and self.r.random() < 0.5:
                self.op("local.set", self.u(self.r.choice(candidates)))
            else:
                self.op("drop")
        for t in results:
            self.value(t)

    def dead_code(self) -> None:
        """Anything goes here, as long as it is valid for a stack that yields whatever is asked for."""
        r = self.r
        for _ in range(r.randrange(1, 4)):
            kind = r.randrange(6)
            if kind == 0:
                self.op("i32.add")
                self.op("drop")
            elif kind == 1:
                self.out += b"\x02\x40\x0b"
            elif kind == 2:
                self.out += b"\x04\x40\x05\x0b"
            elif kind == 3:
                self.op("f64.const", bytes(8))
                self.op("drop")
            elif kind == 4:
                self.op("select")
                self.op("drop")
            else:
                self.op("unreachable")

    def branch(self) -> bool:
        r = self.r
        depth = r.randrange(len(self.labels))
        label = self.labels[-1 - depth]
        kind = r.random()
        if kind < 0.6:
            self.operands(label.types, 0)
            self.value(I32)
            self.op("br_if", self.u(depth))
            self.take(1)
            return True
        if kind < 0.75:
            same = [k for k, other in enumerate(reversed(self.labels)) if other.types == label.types]
            targets = [r.choice(same) for _ in range(r.choice((0, 1, 2, 3, 5, 12)))]
            self.operands(label.types, 0)
            self.value(I32)
            if r.random() < 0.5:
                self.op("i32.const", encode_signed(7))
                self.op("i32.and")
            self.op("br_table", self.u(len(targets)), *(self.u(t) for t in targets), self.u(r.choice(same)))
            return False
        if kind < 0.9:
            self.operands(label.types, 0)
            self.op("br", self.u(depth))
            return False
        if kind < 0.94:
            self.operands(self.type.results, 0)
            self.op("return")
            return False
        if kind < 0.99:
            self.tail_call()
            return False
        self.op("unreachable")
        return False

    def make(self) -> FunctionBody:
        self.fuel()
        self.labels.append(Label(self.type.results))
        self.statements(0, self.type.results)
        self.out.append(0x0B)
        # Locals that cannot be null are only ever written: whether they may be read depends on the way here.
        return FunctionBody(tuple((1, t) for t in self.declared), bytes(self.out))


class ModuleMaker:
    """A module of some functions, from a seed; without typed function references if `references` is off."""

    numbers: tuple[ValType, ...] = NUMBERS
    """The types of values that are no references."""
    body: type[Body] = Body
    plain_table = True
    """Whether table 0 has 32-bit indices and some elements."""

    def __init__(self, seed: int, functions: int = 8, references: bool = True) -> None:
        self.r = random.Random(seed)
        self.references = references
        self.rows = {r.mnemonic: r for r in INSTRUCTIONS if r.opcode != 0x1C}
        self.opcodes = {mnemonic: row.opcode for mnemonic, row in self.rows.items()}
        self.by_result: dict[ValType, list[InstructionRow]] = {t: [] for t in NUMBERS}
        for row in PLAIN:
            assert row.results is not None
            if not row.mnemonic.startswith("table") and len(row.results) == 1 and row.results[0] in self.by_result:
                self.by_result[row.results[0]].append(row)
        self.host_type = FuncType((I32, I64, F32, F64), (I64, F64))
        self.types = [self.host_type]
        for _ in range(4):
            self.types.append(self.signature())
        self.block_types = [FuncType(self.values(3), self.values(3)) for _ in range(4)]
        self.functions = [0] + [self.r.randrange(1, len(self.types)) for _ in range(functions)]
        self.count = len(self.functions)
        self.global_of = {t: k for k, t in enumerate(self.numbers)}
        self.fuel = len(self.numbers)

    def callable(self, x: int) -> bool:
        """Whether the wasmtime package can call a function: it knows no v128."""
        ft = self.types[self.functions[x]]
        return V128 not in ft.params and V128 not in ft.results

    def values(self, most: int) -> tuple[ValType, ...]:
        return tuple(self.r.choice(self.numbers) for _ in range(self.r.randrange(most + 1)))

    def function_type(self) -> int:
        """The type of some function."""
        return self.r.choice(self.functions)

    def signature(self) -> FuncType:
        if len(self.types) > 1 and self.r.random() < 0.4:
            # With the results of another one, so that there are tail calls.
            return FuncType(self.values(self.r.choice((5, 30))), self.r.choice(self.types).results)
        if self.r.random() < 0.2:
            return FuncType(self.values(30), self.values(12))
        return FuncType(self.values(5), self.values(2))

    def make(self) -> bytes:
        zero = {I32: b"\x41\x00\x0b", I64: b"\x42\x00\x0b", F32: b"\x43" + bytes(4) + b"\x0b"}
        zero[F64] = b"\x44" + bytes(8) + b"\x0b"
        zero[V128] = b"\xfd\x0c" + bytes(16) + b"\x0b"
        bodies = [self.body(self, x, self.types[self.functions[x]]).make() for x in range(1, self.count)]
        start = Expression(zero[I32])
        items = tuple(self.r.randrange(self.count) for _ in range(6))
        module = Module(
            types=self.types + self.block_types,
            imports=[Import("host", "f", ExternKind.FUNC, 0)],
            functions=self.functions[1:],
            tables=[Table(TableType(FUNCREF, Limits(10, 12)))],
            memories=[MemoryType(Limits(1, 3))],
            globals=[Global(GlobalType(t, True), Expression(zero[t])) for t in (*self.numbers, I32)],
            exports=[
                Export("memory", ExternKind.MEMORY, 0),
                Export("fuel", ExternKind.GLOBAL, self.fuel),
                *(Export(f"g{k}", ExternKind.GLOBAL, k) for k in range(len(NUMBERS))),
                *(Export(f"f{x}", ExternKind.FUNC, x) for x in range(1, self.count) if self.callable(x)),
            ],
            elements=[
                ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, start, items, False),
                ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, items, False),
                ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, tuple(range(self.count)), False),
            ],
            data_count=1,
            code=bodies,
            data=[DataSegment(SegmentMode.PASSIVE, 0, None, bytes(range(100)))],
        )
        return encode(module)


def arguments(r: random.Random, types: list[str]) -> list[int | float]:
    found: list[int | float] = []
    for t in types:
        if t in ("i32", "i64"):
            bits = int(t[1:])
            value = r.choice(INTERESTING) if r.random() < 0.6 else r.getrandbits(bits)
            found.append((value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1))
        else:
            value = r.choice(FLOATS)
            found.append(value if t == "f64" or abs(value) < 1e38 else 3.0)
    return found


def bits(value: Any) -> Any:
    """A value to compare: NaNs are equal, zeros of different sign are not."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, list):
        return [bits(v) for v in value]
    return value


class Engine:
    """An implementation of the embedder's API with a strategy."""

    def __init__(self, api: Any, **settings: Any) -> None:
        self.api = api
        self.metered = settings.get("consume_fuel", False)
        config = api.Config()
        for name in ("function_references", "wide_arithmetic"):
            if hasattr(api.Config, f"wasm_{name}"):
                setattr(config, f"wasm_{name}", True)
            else:  # the package has the C function only
                getattr(api._bindings, f"wasmtime_config_wasm_{name}_set")(config.ptr(), True)
        config.wasm_relaxed_simd_deterministic = True
        for name, value in settings.items():
            setattr(config, name, value)
        self.engine = api.Engine(config)

    def run(self, wasm: bytes, seed: int, calls: int) -> list[Any]:
        """What a module's functions do with some arguments, and what they leave behind."""
        api = self.api
        store = api.Store(self.engine)
        if self.metered:
            store.set_fuel(1 << 40)
        module = api.Module(self.engine, wasm)
        v = api.ValType
        ft = api.FuncType([v.i32(), v.i64(), v.f32(), v.f64()], [v.i64(), v.f64()])

        def host(a: int, b: int, c: float, d: float) -> list[Any]:
            mixed = (a * 31 + b) & 0xFFFF_FFFF
            return [mixed, 0.5 if math.isnan(c) or math.isnan(d) else float(mixed & 0xFF) + (1.0 if c < d else 0.0)]

        instance = api.Instance(store, module, [api.Func(store, ft, host)])
        exports = instance.exports(store)
        r = random.Random(seed)
        outcomes: list[Any] = []
        for export in module.exports:
            if not isinstance(export.type, api.FuncType):
                continue
            types = [str(t) for t in export.type.params]
            for _ in range(calls):
                exports["fuel"].set_value(store, api.Val.i32(FUEL))
                given = arguments(r, types)
                if self.metered:
                    store.set_fuel(r.choice((1 << 40, r.randrange(40), r.randrange(2000))))
                try:
                    outcome = bits(exports[export.name](store, *given))
                except api.Trap as trap:
                    outcome = str(trap).rpartition("wasm trap: ")[2].strip()
                # An access that always traps ends the function at compile time in Wasmtime, which then counts exactly.
                if self.metered and outcome != "out of bounds memory access":
                    outcome = (outcome, store.get_fuel())
                outcomes.append((export.name, outcome))
        outcomes.extend((f"global {k}", bits(exports[f"g{k}"].value(store))) for k in range(len(NUMBERS)))
        memory = exports["memory"]
        contents = memory.read(store, 0, memory.data_len(store))
        outcomes.append(("memory", memory.size(store), hash(bytes(contents))))
        return outcomes


def compare(engines: dict[str, Engine], wasm: bytes, seed: int, calls: int = 3) -> list[str]:
    """Differences between the first engine and each other, as text."""
    results = {name: engine.run(wasm, seed, calls) for name, engine in engines.items()}
    first, *others = results
    differences = []
    for name in others:
        for a, b in zip_longest(results[first], results[name]):
            if a != b:
                differences.append(f"seed {seed}: {first} {a}, {name} {b}")
                break
    return differences


def engines(*names: str) -> dict[str, Engine]:
    """Engines by name: `baseline`, `llvm`, `explicit` (baseline without guard pages) or `wasmtime`; with `+fuel` they
    count fuel, and what is left is compared too."""
    found = {}
    for name in names:
        implementation, _, metering = name.partition("+")
        fuel = metering == "fuel"
        if implementation == "wasmtime":
            import wasmtime

            found[name] = Engine(wasmtime, consume_fuel=fuel)
        else:
            import wasmforge

            explicit = implementation == "explicit"
            strategy = "baseline" if explicit else implementation
            found[name] = Engine(
                wasmforge, strategy=strategy, signals_based_traps=not explicit, cache=False, consume_fuel=fuel
            )
    return found

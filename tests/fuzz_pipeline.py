"""Mutated modules through the whole pipeline: decode, validate, compile, instantiate, call.

`python -m tests.fuzz_pipeline COUNT [SEED]` sends COUNT mutants through both compilers, in two child processes, and
prints what became of them. What a mutant may cause is a result, a `WasmtimeError`, a `Trap`, or the time limit of the
call; another exception, a crash, a hang, or a difference between the compilers is a finding: it is printed, its module
is kept in .cache/fuzz-pipeline, and the exit code is 1. `python -m tests.fuzz_pipeline FILE.wasm` runs one module
again.

The mutants are of two kinds: bytes changed, most of which is no module any more, and changes that know the structure
(another operator of the same type, another constant, index, offset, limit), most of which is one. A mutant depends on
the seed and its number alone.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import math
import mmap
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.building import assemble
from tests.fuzzing import mutate, seeds
from tests.generate import ModuleMaker
from wasmforge import (
    Config,
    Engine,
    Func,
    FuncType,
    Global,
    GlobalType,
    Instance,
    Memory,
    MemoryType,
    Module,
    Store,
    Table,
    Trap,
    WasmtimeError,
)
from wasmforge import Limits as ApiLimits
from wasmforge import TableType as ApiTableType
from wasmforge.binary import decode, encode, encode_expression, instructions
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.syntax.instructions import BY_MNEMONIC, INSTRUCTIONS, Immediate, Instruction, InstructionRow
from wasmforge.syntax.module import DataSegment, ElementSegment, Export, Expression, FunctionBody, SegmentMode
from wasmforge.syntax.module import Global as GlobalDefinition
from wasmforge.syntax.module import Module as ModuleRecord
from wasmforge.syntax.module import Table as TableDefinition
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    ExternKind,
    Limits,
    ValType,
)
from wasmforge.validation import validate
from wasmforge.wast.runner import all_proposals

ROOT: Final = Path(__file__).resolve().parent.parent
KEPT: Final = ROOT / ".cache" / "fuzz-pipeline"

CALL_SECONDS: Final = 0.03
"""A call may take this long; the exception then is `LimitReachedError`."""

HANG_SECONDS: Final = 120.0
"""No mutant takes this long, even on a busy machine: the compilers take milliseconds for each."""

PAGES: Final = 256
ELEMENTS: Final = 10_000
"""What runs may not have larger memories and tables, so that it cannot eat the machine's memory."""

PROCESSES: Final = 2
CHUNK: Final = 2000
"""Mutants a child process, so that one that leaks does not go on for ever."""


def replace(record: Any, **changes: Any) -> Any:
    """`dataclasses.replace` for the records of the package."""
    cls = type(record)
    return cls(**{name: changes.get(name, getattr(record, name)) for name in cls.__slots__})


# --- What is mutated ------------------------------------------------------------------------------------------------


def suite_seeds(largest: int, files: int | None = None) -> list[bytes]:
    """The modules of the specification's suite up to a size in bytes, from the first `files` files if given."""
    from wasmforge.wast.script import DefineModule, commands

    suites = Path(os.environ.get("WASMFORGE_TESTSUITES", ROOT.parent / "shared" / "testsuites"))
    found: dict[bytes, None] = {}
    for path in sorted((suites / "spec").glob("*.wast"))[:files]:
        try:
            for command in commands(path.read_bytes(), path.name):
                if isinstance(command, DefineModule):
                    data = _valid(command.module.encoded)
                    if data is not None and 8 < len(data) <= largest:
                        found[data] = None
        except WasmtimeError:
            continue  # a script of a proposal that is not implemented
    return list(found)


def _valid(make: Callable[[], bytes]) -> bytes | None:
    try:
        data = make()
        validate(decode(data), ALL_FEATURES)
    except WasmtimeError:
        return None
    return data


def bounded(module: ModuleRecord) -> bool:
    """Bounds the memories and tables that a module defines, as far as it has large or open ones. Returns whether
    anything had to change."""
    memories = [replace(m, limits=_bounded_limits(m.limits, PAGES)) for m in module.memories]
    tables = [TableDefinition(replace(t.type, limits=_bounded_limits(t.type.limits, ELEMENTS))) for t in module.tables]
    changed = memories != module.memories or tables != module.tables
    module.memories, module.tables = memories, tables
    return changed


def _bounded_limits(limits: Limits, most: int) -> Limits:
    minimum = min(limits.minimum, most)
    return Limits(minimum, most if limits.maximum is None else min(limits.maximum, most))


@dataclass
class Corpus:
    """Valid modules: small ones, and a few programs that take a compiler some time."""

    small: list[bytes]
    large: list[bytes] = field(default_factory=list)

    @staticmethod
    def make(files: int | None = None) -> Corpus:
        small = [*seeds() * 4, *suite_seeds(3000, files)]
        small += [ModuleMaker(k, 2).make() for k in range(20)]
        guests = [path.read_bytes() for path in sorted((ROOT / "bench" / "build").glob("*.wasm"))]
        return Corpus([_opened(data) for data in small], [_opened(data) for data in guests])


def _opened(data: bytes) -> bytes:
    """A seed with bounded limits that exports all it defines, so that calls reach it."""
    module = decode(data)
    bounded(module)
    taken = {export.name for export in module.exports}
    counts = (
        (ExternKind.FUNC, len(module.all_functions())),
        (ExternKind.MEMORY, len(module.all_memories())),
        (ExternKind.GLOBAL, len(module.all_globals())),
    )
    exported = {(export.kind, export.index) for export in module.exports}
    for kind, count in counts:
        for index in range(min(count, 200)):
            name = f"{kind.name.lower()} {index}"
            if (kind, index) not in exported and name not in taken:
                module.exports.append(Export(name, kind, index))
    return encode(module)


# --- Changes that know the structure --------------------------------------------------------------------------------

_Shape = tuple[Any, ...]


def _shape(row: InstructionRow) -> _Shape:
    return (row.params, row.results, row.immediates)


SAME_SHAPE: Final[dict[_Shape, list[InstructionRow]]] = {}
for _row in INSTRUCTIONS:
    if _row.params is not None:
        SAME_SHAPE.setdefault(_shape(_row), []).append(_row)

EDGES: Final = (0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 4095, 4096, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF)
OFFSETS: Final = (*EDGES, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF, 33554431, 33554432, 33554433)
F32_BITS: Final = (0, 0x80000000, 0x3F800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x4F000000, 0xCF000000, 1, 0x4F7FFFFF)
F64_BITS: Final = (
    *(0, 1 << 63, 0x3FF << 52, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0x41E << 52, 0xC1E << 52, 1, 0x43E << 52),
)
DEFAULTS: Final = {
    I32: "i32.const",
    I64: "i64.const",
    F32: "f32.const",
    F64: "f64.const",
    V128: "v128.const",
    FUNCREF: "ref.null",
    EXTERNREF: "ref.null",
}


def signed(r: random.Random, bits: int) -> int:
    value = r.choice(EDGES) if r.random() < 0.7 else r.getrandbits(bits)
    value = -value if r.random() < 0.3 else value
    if r.random() < 0.1:
        value = 1 << bits - 1
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def constant(r: random.Random, t: ValType) -> Instruction:
    if t not in DEFAULTS:  # a reference that cannot be null
        return Instruction(BY_MNEMONIC["unreachable"])
    row = BY_MNEMONIC[DEFAULTS[t]]
    if t == I32:
        return Instruction(row, (signed(r, 32),))
    if t == I64:
        return Instruction(row, (signed(r, 64),))
    if t == F32:
        return Instruction(row, (r.choice(F32_BITS),))
    if t == F64:
        return Instruction(row, (r.choice(F64_BITS),))
    if t == V128:
        return Instruction(row, (r.choice(F64_BITS) | r.choice(F64_BITS) << 64,))
    return Instruction(row, (t,))


class Change:
    """One module under change. Every method changes one thing, or nothing where there is nothing to change."""

    def __init__(self, module: ModuleRecord, r: random.Random) -> None:
        self.module = module
        self.r = r

    def body(self) -> None:
        """Changes up to four instructions of a function."""
        code = self.module.code
        if not code:
            return
        at = self.r.randrange(len(code))
        sequence = list(instructions(code[at].code))
        for _ in range(self.r.choice((1, 1, 2, 4))):
            self.instruction(sequence, self.r.randrange(len(sequence)), at)
        code[at] = replace(code[at], code=encode_expression(sequence))

    def instruction(self, sequence: list[Instruction], k: int, function: int) -> None:
        r = self.r
        old = sequence[k]
        row = old.row
        kind = r.random()
        if kind < 0.15:
            sequence[k:k] = self.neutral(function)
        elif row.mnemonic in ("i32.const", "i64.const", "f32.const", "f64.const"):
            sequence[k] = constant(r, next(t for t, m in DEFAULTS.items() if m == row.mnemonic))
        elif row.params is not None and kind < 0.3:
            # The same effect on the stack by drops and constants.
            assert row.results is not None
            drops = [Instruction(BY_MNEMONIC["drop"])] * len(row.params)
            sequence[k : k + 1] = drops + [constant(r, t) for t in row.results]
        elif row.params is not None and not row.immediates:
            sequence[k] = Instruction(r.choice(SAME_SHAPE[_shape(row)]))
        elif row.access and len(old.immediates) == 1:
            row = r.choice([c for c in SAME_SHAPE[_shape(row)] if c.access])
            natural = row.access.bit_length() - 1
            alignment = r.randrange(natural + 1) if r.random() < 0.95 else natural + 1
            offset = r.choice(OFFSETS) if r.random() < 0.5 else old.immediates[0][2]
            sequence[k] = Instruction(row, ((alignment, 0, offset),))
        elif row.immediates:
            sequence[k] = Instruction(row, tuple(map(self.immediate, row.immediates, old.immediates)))
        elif row.mnemonic not in ("end", "else"):
            sequence[k] = Instruction(BY_MNEMONIC["unreachable"])

    def neutral(self, function: int) -> list[Instruction]:
        """Instructions that leave the operands alone."""
        r = self.r
        module = self.module
        drop = Instruction(BY_MNEMONIC["drop"])
        choices = ["nop", "const", "block", "if", "local", "unreachable", "return", "loop", "call"]
        choices += ["grow", "fill", "copy", "load", "grow"] if module.all_memories() else []
        choices += ["table.grow", "table.fill", "table.get"] if module.all_tables() else []
        which = r.choice(choices)
        i32 = [constant(r, I32) for _ in range(3)]
        small = Instruction(BY_MNEMONIC["i32.const"], (r.choice((0, 1, 3, 200, -1)),))
        zero = Instruction(BY_MNEMONIC["i32.const"], (0,))
        empty = (-64,)
        if which == "const":
            return [constant(r, r.choice(list(DEFAULTS))), drop]
        if which in ("block", "loop"):
            forever = [Instruction(BY_MNEMONIC["br"], (0,))] if r.random() < 0.2 else []
            return [Instruction(BY_MNEMONIC[which], empty), *forever, Instruction(BY_MNEMONIC["end"])]
        if which in ("if", "return", "unreachable"):
            leave = Instruction(BY_MNEMONIC["unreachable" if which != "return" else "nop"])
            return [i32[0], Instruction(BY_MNEMONIC["if"], empty), leave, Instruction(BY_MNEMONIC["end"])]
        if which == "local":
            return [Instruction(BY_MNEMONIC["local.get"], (r.randrange(3),)), drop]
        if which == "call":
            types = module.all_functions()
            callee = r.randrange(len(types))
            ft = module.types[types[callee]]
            call = Instruction(BY_MNEMONIC["call"], (callee,))
            return [*(constant(r, t) for t in ft.params), call, *[drop] * len(ft.results)]
        if which == "grow":
            return [small, Instruction(BY_MNEMONIC["memory.grow"], (0,)), drop]
        if which == "fill":
            return [*i32, Instruction(BY_MNEMONIC["memory.fill"], (0,))]
        if which == "copy":
            return [*i32, Instruction(BY_MNEMONIC["memory.copy"], (0, 0))]
        if which == "load":
            row = r.choice([row for row in INSTRUCTIONS if row.access and row.results and row.params == (I32,)])
            return [i32[0], Instruction(row, ((0, 0, r.choice(OFFSETS)),)), drop]
        if which.startswith("table"):
            table = r.randrange(len(module.all_tables()))
            element = module.all_tables()[table].element
            null = constant(r, element)
            if which == "table.grow":
                return [null, small, Instruction(BY_MNEMONIC["table.grow"], (table,)), drop]
            if which == "table.fill":
                return [i32[0], null, small, Instruction(BY_MNEMONIC["table.fill"], (table,))]
            return [zero, Instruction(BY_MNEMONIC["table.get"], (table,)), drop]
        return [Instruction(BY_MNEMONIC["nop"])]

    def immediate(self, kind: Immediate, old: Any) -> Any:
        r = self.r
        module = self.module
        if kind == Immediate.LABEL_TABLE:
            return tuple(r.choice(old) for _ in range(r.choice((1, 2, len(old), 100))))
        if kind == Immediate.FUNC:
            types = module.all_functions()
            return r.choice([k for k, t in enumerate(types) if module.types[t] == module.types[types[old]]])
        if kind == Immediate.GLOBAL:
            types_ = module.all_globals()
            return r.choice([k for k, t in enumerate(types_) if t == types_[old]])
        if kind in (Immediate.LABEL, Immediate.LOCAL, Immediate.TYPE, Immediate.ELEM, Immediate.DATA, Immediate.TABLE):
            return max(0, old + r.choice((-1, 0, 1)))
        return old

    def bodies(self) -> None:
        """Exchanges the bodies of two functions of one type."""
        module = self.module
        if len(module.code) < 2:
            return
        a = self.r.randrange(len(module.code))
        same = [k for k, t in enumerate(module.functions) if module.types[t] == module.types[module.functions[a]]]
        b = self.r.choice(same)
        module.code[a], module.code[b] = module.code[b], module.code[a]

    def locals(self) -> None:
        """Gives a function more locals: frames of all sizes, sometimes beyond the limit."""
        code = self.module.code
        if code:
            at = self.r.randrange(len(code))
            count = self.r.choice((1, 1, 5, 40, 600, 3000, 50_001))
            more = (count, ValType(self.r.choice(list(DEFAULTS))))
            code[at] = replace(code[at], locals=(*code[at].locals, more))

    def limits(self) -> None:
        module, r = self.module, self.r
        if module.memories and r.random() < 0.6:
            module.memories[0] = replace(module.memories[0], limits=self.some_limits((0, 1, 2, 3, 65535, 65536, 65537)))
        elif module.tables:
            at = r.randrange(len(module.tables))
            limits = self.some_limits((0, 1, 2, 10, 1000, 10_000_000, 0xFFFFFFFF))
            module.tables[at] = TableDefinition(replace(module.tables[at].type, limits=limits))

    def some_limits(self, sizes: tuple[int, ...]) -> Limits:
        r = self.r
        minimum = r.choice(sizes[:5]) if r.random() < 0.9 else r.choice(sizes)
        return Limits(minimum, None if r.random() < 0.2 else r.choice([s for s in sizes if s >= minimum]))

    def some_offset(self) -> Expression:
        r = self.r
        value = r.choice((0, 1, 5, 4095, 65535, 65536, -1, -(1 << 31)))
        if r.random() < 0.2:
            return Expression(assemble(f"i32.const {value}; i32.const {r.choice(EDGES)}; i32.sub"))
        return Expression(assemble(f"i32.const {value}"))

    def data(self) -> None:
        module, r = self.module, self.r
        if module.data and r.random() < 0.7:
            at = r.randrange(len(module.data))
            old = module.data[at]
            contents = r.choice((old.data, old.data[::-1], old.data[:-1], old.data * 3, b"", bytes(70_000)))
            offset = old.memory_offset if old.memory_offset is None or r.random() < 0.4 else self.some_offset()
            module.data[at] = replace(old, data=contents, memory_offset=offset)
        elif module.all_memories():
            module.data.append(DataSegment(SegmentMode.ACTIVE, 0, self.some_offset(), r.randbytes(r.randrange(20))))
            module.data_count = len(module.data) if module.data_count is not None else None

    def elements(self) -> None:
        module, r = self.module, self.r
        count = len(module.all_functions())
        if module.elements and r.random() < 0.7:
            at = r.randrange(len(module.elements))
            old = module.elements[at]
            items = list(old.items)
            r.shuffle(items)
            offset = old.table_offset if old.table_offset is None or r.random() < 0.5 else self.some_offset()
            kept: Any = tuple(items * r.choice((1, 1, 2, 50)))
            module.elements[at] = replace(old, items=kept, table_offset=offset)
        elif module.all_tables() and count:
            items_ = tuple(r.randrange(count) for _ in range(r.randrange(5)))
            module.elements.append(ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, self.some_offset(), items_, False))

    def start(self) -> None:
        """Another start function, one without parameters and results if there is one."""
        module = self.module
        found = [
            k for k, t in enumerate(module.all_functions()) if not module.types[t].params + module.types[t].results
        ]
        module.start = self.r.choice(found) if found and self.r.random() < 0.8 else None

    def globals(self) -> None:
        module, r = self.module, self.r
        if module.globals:
            at = r.randrange(len(module.globals))
            old = module.globals[at].type
            init = Expression(encode_expression([constant(r, old.content), Instruction(BY_MNEMONIC["end"])]))
            mutable = old.mutable or r.random() < 0.5
            module.globals[at] = GlobalDefinition(replace(old, mutable=mutable), init)

    def types(self) -> None:
        """Another type for a function: right where nothing of it is used."""
        module = self.module
        if module.functions and module.types:
            module.functions[self.r.randrange(len(module.functions))] = self.r.randrange(len(module.types))

    def add_function(self) -> None:
        """A function that calls another one through a frame of its own."""
        module, r = self.module, self.r
        types = module.all_functions()
        if not types:
            return
        callee = r.randrange(len(types))
        ft = module.types[types[callee]]
        get = [Instruction(BY_MNEMONIC["local.get"], (k,)) for k in range(len(ft.params))]
        call = [Instruction(BY_MNEMONIC["call"], (callee,)), Instruction(BY_MNEMONIC["end"])]
        module.functions.append(types[callee])
        module.code.append(FunctionBody((), encode_expression([*get, *call])))
        module.exports.append(Export(f"added {len(types)}", ExternKind.FUNC, len(types)))


CHANGES: Final = (
    *[Change.body] * 14,
    *(Change.bodies, Change.locals, Change.limits, Change.data, Change.elements, Change.start, Change.globals),
    *(Change.types, Change.add_function),
)


def change(data: bytes, r: random.Random) -> bytes:
    """One to three structural changes of a valid module."""
    module = decode(data)
    made = Change(module, r)
    for _ in range(r.choice((1, 1, 2, 3))):
        r.choice(CHANGES)(made)
    return encode(module)


def mutant(corpus: Corpus, seed: int, number: int) -> bytes:
    """The same arguments give the same bytes."""
    r = random.Random(seed << 40 | number)
    large = corpus.large and r.random() < 0.002
    data = r.choice(corpus.large if large else corpus.small)
    kind = r.random()
    if kind < 0.65:
        data = change(data, r)
    return mutate(data, r) if kind > 0.6 else data


# --- Running --------------------------------------------------------------------------------------------------------


class LimitReachedError(Exception):
    """A call took too long."""


class Limit:
    """The time limit of calls, by SIGALRM on the main thread."""

    armed = False

    @classmethod
    def install(cls) -> None:
        def on_alarm(_signal: int, _frame: object) -> None:
            if cls.armed:
                raise LimitReachedError

        signal.signal(signal.SIGALRM, on_alarm)

    @classmethod
    def call(cls, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function. Once in a while the exception ends in a finaliser, which swallows it: it comes again."""
        try:
            cls.armed = True
            signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS, 0.5)
            return function(*arguments)
        finally:
            cls.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)


def make_engine(strategy: str, **settings: bool) -> Engine:
    config = all_proposals(Config())
    for name, value in settings.items():
        setattr(config, name, value)
    config.strategy = strategy
    config.cache = False
    config.parallel_compilation = False
    return Engine(config)


def _zero(t: object) -> Any:
    name = str(t)
    if name.startswith("(ref ") and not name.startswith("(ref null "):
        raise WasmtimeError("the import needs a reference that is not null, of which there is none here")
    return None if "ref" in name else 0.0 if name.startswith("f") else 0


def host(store: Store, ty: FuncType) -> Func:
    """A function that returns zeros."""
    zeros = [_zero(t) for t in ty.results]
    result = None if not zeros else zeros[0] if len(zeros) == 1 else zeros
    return Func(store, ty, lambda *_: result)


def imports(store: Store, module: Module) -> list[Any]:
    made: list[Any] = []
    for wanted in module.imports:
        ty = wanted.type
        if isinstance(ty, FuncType):
            made.append(host(store, ty))
        elif isinstance(ty, GlobalType):
            made.append(Global(store, ty, _zero(ty.content)))
        elif isinstance(ty, MemoryType):
            limits = ty.limits
            made.append(Memory(store, MemoryType(_imported(limits.min, limits.max, PAGES))))
        else:
            limits = ty.limits
            made.append(Table(store, ApiTableType(ty.element, _imported(limits.min, limits.max, ELEMENTS)), None))
    return made


def _imported(minimum: int, maximum: int | None, most: int) -> ApiLimits:
    """Limits that match an import's, bounded where the import is open."""
    if minimum > 4 * most:
        raise WasmtimeError("the import is too large to run here")
    return ApiLimits(minimum, min(maximum if maximum is not None else most, max(most, minimum)))


FLOATS: Final = (0.0, -0.0, 1.5, -2.5, 1e10, math.inf, math.nan)


def argument(r: random.Random, t: object) -> Any:
    name = str(t)
    if name in ("i32", "i64"):
        return signed(r, int(name[1:]))
    if name == "v128":
        return r.getrandbits(128)
    if name in ("f32", "f64"):
        return r.choice(FLOATS)
    if name == "anyref":  # the package's name of externref
        return r.choice((None, "an object"))
    return "an object" if name == "(ref extern)" else None


def wants_function(t: object) -> bool:
    """Whether an argument must be a function, of which there may be none."""
    name = str(t)
    return name.startswith("(ref ") and " null " not in name and name != "(ref extern)"


def outcome(value: Any) -> Any:
    """A result to compare: NaNs are equal, zeros of different sign are not."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value).hex()
    if isinstance(value, bytes):  # a vector; which NaN a lane holds is not determined
        lanes = (*struct.unpack("<4f", value), *struct.unpack("<2d", value))
        return "nan" if any(map(math.isnan, lanes)) else value.hex()
    if isinstance(value, (list, tuple)):
        return [outcome(v) for v in value]
    return value if value is None or isinstance(value, (int, str)) else type(value).__name__


class Incomparable(Exception):
    """From here on the compilers may differ: how far a call gets in its time or on its stack is theirs."""


def attempt(log: list[Any], what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls with the limit, and logs the outcome. Any exception but the ones that are allowed passes through."""
    try:
        result = Limit.call(function, *arguments)
    except LimitReachedError:
        log.append((what, "limit"))
        return None
    except Trap as trap:
        code = trap.trap_code
        str(trap)  # symbolises the backtrace
        log.append((what, code.name if code is not None else trap.message))
        return None
    except WasmtimeError as error:
        log.append((what, str(error).partition("\n")[0]))
        return None
    log.append((what, outcome(result)))
    return result


ENDS: Final = ("limit", "STACK_OVERFLOW")


def run(engine: Engine, module: Module, arguments_seed: int, digest: bool) -> list[Any]:
    """Instantiates and calls every export, with some arguments. Returns what happened, up to where it is comparable."""
    log: list[Any] = []
    r = random.Random(arguments_seed)
    store = Store(engine)
    try:
        given = imports(store, module)
    except WasmtimeError:
        return log
    instance = attempt(log, "instantiate", Instance, store, module, given)
    if instance is None:
        return log
    log[-1] = ("instantiate", "done")
    exports = instance.exports(store)
    limits = 0
    for export in module.exports[:24]:
        ty = export.type
        if not isinstance(ty, FuncType) or any(map(wants_function, ty.params)):
            continue
        function = exports[export.name]
        for _ in range(2 if ty.params else 1):
            attempt(log, export.name, function, store, *[argument(r, t) for t in ty.params])
            limits += log[-1][1] == "limit"
        if limits > 1:
            break
    for export in module.exports if digest else ():
        item = exports[export.name]
        if isinstance(item, Global):
            log.append((export.name, outcome(item.value(store))))
        elif isinstance(item, Memory):
            contents = item.read(store, 0, item.data_len(store))
            log.append((export.name, item.size(store), hashlib.sha256(contents).hexdigest()))
    return log


SEES_NAN_BITS: Final = frozenset(
    ["i32.reinterpret_f32", "i64.reinterpret_f64", "f32.store", "f64.store", "f32.copysign", "f64.copysign"]
)


def sees_nan_bits(data: bytes) -> bool:
    """Whether a module can tell NaNs apart, whose bits the specification leaves open (section 4.3.3)."""
    return any(i.row.mnemonic in SEES_NAN_BITS for body in decode(data).code for i in instructions(body.code))


def difference(one: list[Any], other: list[Any]) -> str | None:
    for a, b in zip(one, other, strict=False):
        if a[1] in ENDS or b[1] in ENDS:
            return None
        if a != b:
            return f"baseline {a}, the other {b}"
    return None if len(one) == len(other) else f"baseline {len(one)} outcomes, the other {len(other)}"


class DifferenceError(Exception):
    """The compilers disagree."""


class Pipeline:
    """Both compilers, and what became of the mutants so far."""

    def __init__(self) -> None:
        self.baseline = make_engine("baseline")
        self.llvm = make_engine("llvm")
        self.explicit = make_engine("baseline", signals_based_traps=False)
        self.counts: Counter[str] = Counter()

    def execute(self, data: bytes, number: int, llvm: bool) -> None:
        """A mutant through everything; `llvm` adds the optimising compiler, and the baseline compiler without guard
        pages, and compares."""
        try:
            module = Module(self.baseline, data)
        except WasmtimeError as error:
            self.counts[type(error).__name__] += 1
            return
        self.counts["valid"] += 1
        if data[0] != 0:
            return  # without the NUL of the header it is text, here an empty one
        record = decode(data)
        if bounded(record):
            # What is too large is compiled and made, but not run.
            if record.start is None:
                log: list[Any] = []
                store = Store(self.baseline)
                try:
                    attempt(log, "instantiate", Instance, store, module, imports(store, module))
                except WasmtimeError:
                    self.counts["import too large"] += 1
            data = encode(record)
            try:
                module = Module(self.baseline, data)
            except WasmtimeError:
                return
        log = run(self.baseline, module, number, llvm)
        self.counts["instantiated"] += len(log) > 0 and log[0][1] == "done"
        for entry in log[1:]:
            kind = entry[1] if (isinstance(entry[1], str) and entry[1].isupper()) or entry[1] == "limit" else "result"
            self.counts[f"call: {kind.lower()}"] += 1
        if not llvm:
            return
        for engine in (self.llvm, self.explicit):
            self.counts["compared"] += 1
            found = difference(log, run(engine, Module(engine, data), number, True))
            if found is not None:
                if not sees_nan_bits(data):
                    raise DifferenceError(f"with {engine._strategy}: {found}")
                self.counts["differs, may be bits of NaN"] += 1


def wants_llvm(data: bytes, seed: int, number: int) -> bool:
    """The sample of modules for the optimising compiler, which takes a hundred times longer."""
    return len(data) < 5000 and random.Random(seed ^ number << 20).random() < 0.05


# --- Processes ------------------------------------------------------------------------------------------------------


def child(arguments: list[str]) -> int:
    """A child process: mutants FIRST to LAST - 1. Its progress is in a mapped file, where the parent finds it even
    after a crash; findings and counts are lines of JSON on standard output."""
    corpus_path, progress_path = arguments[:2]
    seed, first, last = map(int, arguments[2:])
    corpus = pickle.loads(Path(corpus_path).read_bytes())
    with open(progress_path, "r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.unraisablehook = lambda _: None  # the limit's exception in a finaliser
    Limit.install()
    pipeline = Pipeline()
    for number in range(first, last):
        progress[:] = struct.pack("<Q", number)
        data = mutant(corpus, seed, number)
        try:
            pipeline.execute(data, number, wants_llvm(data, seed, number))
        except BaseException as error:  # SystemError and MemoryError are what this looks for
            report(number, repr(error)[:500], traceback.format_exc())
    print(json.dumps({"counts": pipeline.counts, "memory": _resident()}), flush=True)
    return 0


def report(number: int, what: str, detail: str) -> None:
    print(json.dumps({"finding": number, "what": what, "detail": detail}), flush=True)


def _resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@dataclass
class Finding:
    number: int
    what: str
    detail: str
    path: Path


class Parent:
    """Starts children, each for some mutants, and a new one behind the mutant that ended one."""

    def __init__(self, corpus: Corpus, seed: int, kept: Path = KEPT, command: tuple[str, ...] = ()) -> None:
        self.corpus = corpus
        self.seed = seed
        self.kept = kept
        self.command = command or (sys.executable, "-m", "tests.fuzz_pipeline", "--child")
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self.memory = 0
        self.done = 0

    def run(self, count: int, first: int = 0, deadline: float = math.inf) -> None:
        """Mutants `first` to `first + count - 1`, as far as they are begun before `deadline` (monotonic seconds)."""
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder, "corpus")
            corpus.write_bytes(pickle.dumps(self.corpus))
            step = max(1, min(CHUNK, math.ceil(count / PROCESSES)))
            waiting = [(k, min(k + step, first + count)) for k in range(first, first + count, step)][::-1]
            running: list[_Child] = []
            while waiting or running:
                while waiting and len(running) < PROCESSES and time.monotonic() < deadline:
                    begin, end = waiting.pop()
                    running.append(_Child(self, Path(folder), corpus, begin, end))
                if not running:
                    break
                time.sleep(0.02)
                for process in [p for p in running if p.poll()]:
                    running.remove(process)
                    rest = process.finish()
                    if rest is not None:
                        waiting.append(rest)

    def finding(self, number: int, what: str, detail: str) -> None:
        self.kept.mkdir(parents=True, exist_ok=True)
        path = self.kept / f"{self.seed}-{number}.wasm"
        path.write_bytes(mutant(self.corpus, self.seed, number))
        path.with_suffix(".txt").write_text(f"{what}\n\n{detail}\n")
        self.findings.append(Finding(number, what, detail, path))
        print(f"mutant {number} of seed {self.seed}: {what}\n  kept as {path}", file=sys.stderr, flush=True)


class _Child:
    def __init__(self, parent: Parent, folder: Path, corpus: Path, first: int, last: int) -> None:
        self.parent, self.first, self.last = parent, first, last
        self.progress = folder / f"progress-{first}"
        self.progress.write_bytes(struct.pack("<Q", first))
        self.out = (folder / f"out-{first}").open("w+")
        self.err = (folder / f"err-{first}").open("w+")
        numbers = map(str, (parent.seed, first, last))
        self.process = subprocess.Popen(
            [*parent.command, str(corpus), str(self.progress), *numbers],
            stdout=self.out,
            stderr=self.err,
            cwd=ROOT,
            env={**os.environ, "WASMFORGE_CACHE": "0", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        self.seen = (first, time.monotonic())
        self.hung = False

    def number(self) -> int:
        number: int = struct.unpack("<Q", self.progress.read_bytes())[0]
        return number

    def poll(self) -> bool:
        """Whether it has ended; it is ended when it hangs."""
        if self.process.poll() is not None:
            return True
        number = self.number()
        if number != self.seen[0]:
            self.seen = (number, time.monotonic())
        elif time.monotonic() - self.seen[1] > HANG_SECONDS:
            self.hung = True
            self.process.send_signal(signal.SIGUSR1)  # faulthandler says where it is
            time.sleep(0.5)
            self.process.kill()
        return False

    def finish(self) -> tuple[int, int] | None:
        """Takes over what it found. Returns what is left to do after a crash."""
        parent = self.parent
        counted = False
        self.out.seek(0)
        for line in self.out:
            message = json.loads(line)
            if "finding" in message:
                parent.finding(message["finding"], message["what"], message["detail"])
            else:
                parent.counts.update(message["counts"])
                parent.memory = max(parent.memory, message["memory"])
                counted = True
        self.err.seek(0)
        errors = self.err.read()
        number = self.number()
        if counted and self.process.returncode == 0:
            parent.done += self.last - self.first
            return None
        parent.done += number + 1 - self.first
        what = "hang" if self.hung else f"crash, exit code {self.process.returncode}"
        parent.finding(number, what, errors[-8000:])
        return (number + 1, self.last) if number + 1 < self.last else None


def summary(parent: Parent) -> Iterable[str]:
    counts = parent.counts
    yield f"{parent.done} mutants, {counts['valid']} valid ({counts['valid'] / max(1, parent.done):.0%})"
    yield ", ".join(f"{outcome_}: {n}" for outcome_, n in counts.most_common())
    yield f"{len(parent.findings)} findings; at most {parent.memory >> 20} MiB in a process"


def run_file(path: str) -> int:
    faulthandler.enable()
    Limit.install()
    pipeline = Pipeline()
    data = Path(path).read_bytes()
    number = int(Path(path).stem.rpartition("-")[2]) if "-" in Path(path).stem else 0
    pipeline.execute(data, number, True)
    print(dict(pipeline.counts))
    return 0


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] == "--child":
        return child(arguments[1:])
    if arguments and not arguments[0].isdigit():
        return run_file(arguments[0])
    count = int(arguments[0]) if arguments else 100_000
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    started = time.monotonic()
    seconds = float(os.environ.get("FUZZ_SECONDS", "inf"))
    parent = Parent(Corpus.make(), seed)
    parent.run(count, deadline=started + seconds)
    for line in summary(parent):
        print(line)
    print(f"{time.monotonic() - started:.0f} s, seed {seed}")
    return 1 if parent.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

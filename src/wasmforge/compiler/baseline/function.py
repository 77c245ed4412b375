"""One function: the walk over its body that hands each instruction to its emitter, and what becomes of the code.

`Compiler` is made once a module; `compile.compile_module` calls `compile_function` for every function, and a runtime
that compiles lazily calls it for one function at its first call.
"""

from __future__ import annotations

from wasmforge.compiler.baseline import access, atomics, calls, control, convert, counters, integer, metering, rows
from wasmforge.compiler.baseline import float as floats
from wasmforge.compiler.baseline import locals as frames
from wasmforge.compiler.baseline.asm import Op
from wasmforge.compiler.baseline.body import FUNCTION, Body, Label
from wasmforge.compiler.baseline.buffer import Buffer
from wasmforge.compiler.baseline.context import Context
from wasmforge.compiler.baseline.locals import Frame
from wasmforge.compiler.baseline.registers import NONE, RBP, XMM0
from wasmforge.compiler.baseline.rows import CLASS
from wasmforge.compiler.baseline.values import CONST, FLAGS, LOCAL, REG, SLOT, VECTOR_CONST, WINDOW
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import F32, F64, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = ["CompiledFunction", "Compiler"]


class CompiledFunction:
    """Machine code that runs wherever it is put (aligned to 16 bytes), once its calls are resolved.

    - `code`: the bytes, constants and jump tables behind the instructions.
    - `call_places`, `call_targets`: offsets of 32-bit fields, each relative to its own end, and the functions that they
      call: the function itself, or its code pointer slot if the context says `slots`.
    - `rows`: triples of offset, position in the module's binary (`NO_POSITION` for none), and trap code, ascending:
      rows of the address map and the trap table.
    """

    def __init__(self, code: bytes, call_places: list[int], call_targets: list[int], rows: list[int]) -> None:
        self.code = code
        self.call_places = call_places
        self.call_targets = call_targets
        self.rows = rows

    def placed(self, distance: int, imported: int) -> bytes:
        """The code with its calls going through slots: for a place `distance` bytes before the slot of the first
        function that is not imported, of which there are `imported`. Needs a context with `slots`."""
        out = bytearray(self.code)
        places = self.call_places
        targets = self.call_targets
        first: i64 = distance - 8 * imported - 4
        n: i64 = len(places)
        i: i64 = 0
        byte: int
        while i < n:
            place: i64 = places[i]
            value: i64 = first + 8 * targets[i] - place
            byte = value & 0xFF
            out[place] = byte
            byte = value >> 8 & 0xFF
            out[place + 1] = byte
            byte = value >> 16 & 0xFF
            out[place + 2] = byte
            byte = value >> 24 & 0xFF
            out[place + 3] = byte
            i += 1
        return bytes(out)


class Compiler:
    """Compiles functions of one module, one after the other. Not for several threads at once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.body = Body(context)

    def compile_function(self, index: int) -> CompiledFunction:
        """The code of function `index` of the index space, which must be a validated one of the module's own.

        Raises `WasmtimeError` for a function that would become too large.
        """
        context = self.context
        s = self.body
        defined = index - context.imported_functions
        source = context.module.code[defined]
        signature = context.signature(context.functions[index])
        frame = Frame(context, signature)
        s.begin(index, source.code, frame)
        try:
            frames.begin(s, frame, source.locals)
            if frame.vectors and s.vector_instruction is None:
                # Most modules have none, and making the table takes longer than compiling a small one.
                from wasmforge.compiler.baseline.vector_rows import instruction

                s.vector_instruction = instruction
            s.labels.append(Label(FUNCTION, 0, 0, b"", signature.results))
            if frame.metered:
                metering.begin(s)
            counters.count_entry(s)
            _walk(s)
            s.emit_traps()
            metering.emit_checks(s)
            counters.emit_calls(s)
            body = s.out
            body_rows = s.rows
            s.out = Buffer()
            frames.prologue(s, frame)
        finally:
            frames.reset(s, frame)
        prologue = s.out
        shift = len(prologue)
        s.out = body
        code = s.assemble(prologue)
        return CompiledFunction(
            code,
            [place + shift for place in s.call_places],
            s.call_targets,
            _shifted_rows(body_rows, shift, source.offset),
        )


def _shifted_rows(rows: list[int], shift: int, position: int) -> list[int]:
    """Rows with the offsets and positions of the whole function, and one for the prologue."""
    found = [0, position, 0]
    n: i64 = len(rows)
    i: i64 = 0
    while i < n:
        found.append(rows[i] + shift)
        found.append(rows[i + 1] + position)
        found.append(rows[i + 2])
        i += 3
    return found


def _walk(s: Body) -> None:
    """The dispatch loop. The frequent instructions come first."""
    code = s.code
    end: i64 = len(code)
    op: i64
    x: i64
    kind: i64
    fuel = s.frame.fuel_at != 0
    while s.pc < end:
        if s.depth - s.floor > WINDOW and s.kinds[s.depth - 1] != FLAGS:
            s.flush()
        s.start = s.pc
        op = code[s.pc]
        s.pc += 1
        if fuel:
            metering.before(s, op)

        if op == 0x20:  # local.get
            x = code[s.pc]
            if x < 0x80:
                s.pc += 1
            else:
                x = s.unsigned()
            s.push(LOCAL, x)
            continue

        if op == 0x41:  # i32.const
            x = code[s.pc]
            if x < 0x40:
                s.pc += 1
            else:
                x = s.signed() & 0xFFFFFFFF
            s.push(CONST, x)
            continue

        kind = CLASS[op]
        if kind:
            if kind <= rows.MULTIPLY:
                integer.arithmetic(s, op)
            elif kind == rows.LOAD or kind == rows.FLOAT_LOAD:
                access.load(s, op)
            elif kind == rows.STORE or kind == rows.FLOAT_STORE:
                access.store(s, op)
            elif kind == rows.COMPARE:
                integer.compare(s, op)
            elif kind == rows.EQZ:
                integer.eqz(s, op)
            elif kind == rows.SHIFT:
                integer.shift(s, op)
            elif kind == rows.FLOAT_BINARY:
                floats.binary(s, op)
            elif kind == rows.EXTEND:
                integer.extend(s, op)
            else:
                _rare(s, op, kind)
            continue

        if op == 0x21 or op == 0x22:
            x = code[s.pc]
            if x < 0x80:
                s.pc += 1
            else:
                x = s.unsigned()
            _assign(s, x, op == 0x22)
        elif op == 0x0B:
            control.end(s)
        elif op == 0x0D:
            control.branch_if(s)
        elif 0x02 <= op <= 0x04:
            control.enter(s, op)
        elif op == 0x0C:
            control.branch(s)
        elif op == 0x10:
            calls.call(s)
            if fuel:
                metering.after_call(s)
        elif op == 0x1A:
            s.drop()
            s.discard(s.kinds[s.depth], s.values[s.depth])
        elif op == 0x23:
            access.global_get(s)
        elif op == 0x24:
            access.global_set(s)
        elif op == 0x42:
            x = s.signed()
            s.push(CONST, x)
        elif op == 0xFD:
            assert s.vector_instruction is not None
            s.vector_instruction(s)
        elif op == 0x11:
            calls.call_indirect(s)
            if fuel:
                metering.after_call(s)
        elif op == 0x05:
            control.else_(s)
        else:
            _other(s, op)


def _rare(s: Body, op: i64, kind: i64) -> None:
    """Instructions with a row that are less frequent."""
    if kind == rows.DIVIDE:
        integer.divide(s, op)
    elif kind == rows.FLOAT_COMPARE:
        floats.compare(s, op)
    elif kind == rows.COUNT:
        integer.count_bits(s, op)
    elif kind == rows.MINIMUM:
        floats.minimum(s, op)
    elif kind == rows.COPYSIGN:
        floats.copysign(s, op)
    elif kind == rows.SIGN:
        floats.sign(s, op)
    elif kind == rows.ROUND:
        floats.round_(s, op)
    elif kind == rows.SQUARE_ROOT:
        floats.square_root(s, op)
    elif kind == rows.FLOAT_RESIZE:
        floats.resize(s, op)
    elif kind == rows.FROM_INTEGER:
        convert.from_integer(s, op)
    elif kind == rows.TRUNCATE:
        convert.truncate(s, op)
    else:
        convert.reinterpret(s, op)


def _other(s: Body, op: i64) -> None:
    """Everything that has no row and is not frequent."""
    x: i64
    if op == 0x1B or op == 0x1C:
        t: i64 = 0
        if op == 0x1C:
            s.pc += 1  # how many types follow: one
            t = s.code[s.pc]
            frames.skip_value_type(s)
        _select(s, t)
    elif op == 0x0F:
        control.return_(s)
    elif op == 0x0E:
        control.branch_table(s)
    elif op == 0x00:
        control.unreachable(s)
    elif op == 0x44:
        s.pc += 8
        s.push(CONST, int.from_bytes(s.code[s.pc - 8 : s.pc], "little", signed=True))
    elif op == 0x43:
        s.pc += 4
        s.push(CONST, int.from_bytes(s.code[s.pc - 4 : s.pc], "little"))
    elif op == 0x3F:
        access.memory_size(s)
    elif op == 0x40:
        calls.memory_grow(s)
    elif op == 0xD0:
        frames.skip_value_type(s)
        s.push(CONST, 0)
    elif op == 0xD1:
        integer.eqz(s, 0x50)
    elif op == 0xD2:
        access.ref_func(s)
    elif op == 0x12:
        calls.return_call(s)
    elif op == 0x13:
        calls.return_call_indirect(s)
    elif op == 0x14:
        calls.call_ref(s)
    elif op == 0x15:
        calls.return_call_ref(s)
    elif op == 0xD4:
        access.as_non_null(s)
    elif op == 0xD5:
        control.branch_on_null(s)
    elif op == 0xD6:
        control.branch_on_non_null(s)
    elif op == 0x25:
        access.table_get(s)
    elif op == 0x26:
        access.table_set(s)
    elif op == 0xFC:
        x = s.unsigned()
        if x < 8:
            convert.saturate(s, x)
        elif x == 16:
            access.table_size(s)
        elif 19 <= x <= 20:
            integer.wide_add(s, x == 20)
        elif 21 <= x <= 22:
            integer.wide_multiply(s, x == 21)
        else:
            calls.prefixed(s, x)
    elif op == 0xFE:
        x = s.unsigned()
        atomics.atomic(s, x)
    elif op != 0x01 and op != 0xAD:  # nop; i64.extend_i32_u, which is what the invariant of `values` says
        raise WasmtimeError(f"compiler bug: no emitter for opcode {op:#x} in function {s.index}")


def _assign(s: Body, x: i64, tee: bool) -> None:
    """local.set and local.tee."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    r: i64
    if k == LOCAL and v == x:
        if tee:
            s.push(LOCAL, x)
        return
    s.kill(x)
    pin: i64 = s.pins[x]
    if pin >= 0:
        s.load(pin, k, v, i)
        s.discard(k, v)
        if tee:
            s.push(LOCAL, x)
        return
    if s.weights[x] == 1 and not tee:  # this is the only use: nobody will read it
        s.discard(k, v)
        return
    if k == CONST and -0x80000000 <= v < 0x80000000:
        s.forget(x)
        s.rm(Op.MOV_IMMEDIATE, 1, 0, RBP, s.homes[x])
        s.dword(v)
        if tee:
            s.push(CONST, v)
        return
    r = s.where(k, v)
    mine = r < 0 or k == REG
    if r < 0:
        r = s.alloc_class(s.floats[x])
        s.load(r, k, v, i)
    s.store_slot(r, s.homes[x])
    s.forget(x)
    if mine:
        s.release(r)
        s.remember(x, r)
    if tee:
        s.push(LOCAL, x)


def _class_of_result(s: Body, t: i64, k: i64, v: i64, k2: i64, v2: i64) -> i64:
    """Whether the operands of a select are floats: 0 or 1, or `NONE` if neither their type, nor a register, nor the
    next instruction tells."""
    if t:
        return 1 if t in (F32, F64, V128) else 0
    if k == VECTOR_CONST or k2 == VECTOR_CONST:
        return 1
    r = s.where(k, v)
    if r < 0:
        r = s.where(k2, v2)
    if r >= 0:
        return 1 if r >= XMM0 else 0
    if k == LOCAL:
        return 1 if s.floats[v] else 0
    if k2 == LOCAL:
        return 1 if s.floats[v2] else 0
    op: i64 = s.code[s.pc]
    if op == 0x21 or op == 0x22:
        x: i64 = s.code[s.pc + 1]
        if x < 0x80:
            return 1 if s.floats[x] else 0
    kind: i64 = CLASS[op]
    if kind == 0:
        return NONE
    return 1 if rows.FIRST_FLOAT <= kind <= rows.LAST_FLOAT else 0


def _select_wide(s: Body, condition: i64, k: i64, v: i64, i: i64, k2: i64, v2: i64) -> None:
    """A select of constants and slots whose type nobody knows, which may be vectors."""
    j = s.depth
    r = s.alloc_float()
    s.load(r, k2, v2, j)
    proceed = s.skip_if(condition)
    s.load(r, k, v, i)
    s.skip_end(proceed)
    s.store_slot(r, s.slot(j))
    s.release(r)
    s.push(SLOT, 0)


def _select(s: Body, t: i64) -> None:
    """The condition first, since what follows leaves the flags alone. `t` is the type, or 0."""
    condition = control.pop_condition(s)
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.drop()
    j = s.depth
    k2: i64 = s.kinds[j]
    v2: i64 = s.values[j]
    r: i64
    kind = _class_of_result(s, t, k, v, k2, v2)
    if kind == NONE:
        if s.frame.vectors:
            _select_wide(s, condition, k, v, i, k2, v2)
            return
        # Constants and slots only: as integers, and back to a slot, which has no class.
        r = s.alloc()
        s.load(r, k2, v2, j)
        s.use(Op.CMOVCC | (condition ^ 1), 1, r, k, v, i)
        s.store_slot(r, s.slot(j))
        s.release(r)
        s.push(SLOT, 0)
        return
    is_float = kind == 1
    hint = s.hint(is_float)
    if hint >= 0 and hint == s.where(k, v):
        hint = NONE
    if hint >= 0:
        r = hint
    elif k2 == REG:
        r = v2
    else:
        r = s.alloc_class(is_float)
    if r != s.where(k2, v2):
        s.load(r, k2, v2, j)
        s.discard(k2, v2)
    if is_float:
        proceed = s.skip_if(condition)
        s.load(r, k, v, i)
        s.skip_end(proceed)
    else:
        s.use(Op.CMOVCC | (condition ^ 1), 1, r, k, v, i)
    s.discard(k, v)
    s.finish(r, hint)

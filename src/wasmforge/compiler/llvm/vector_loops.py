"""Emits loops over streams (`streams.py`) for many elements at once, in front of the loop itself, which does the rest.

What an iteration may touch is known before the first one: so bounds are checked once, for all elements that the vectors
cover, and that what is stored to overlaps with nothing else. If either fails, or the loop is short, the loop as it
stands does it all, and traps where it must. It always does the last iteration, so that the values of its locals are
its own.

Fuel for all of it is taken at once, if there is enough; else the loop itself finds out where it ends. An epoch passes
unseen while vectors run, as it does while memory.copy does: they are done with a memory in the time for reading it.

THREAT: these accesses are not checked one by one, and reach beyond the index space if the checks are wrong. The checks
add numbers below 2**33 and products of a number below 2**32 and a stride, in 64 bits, so that none wraps; a stream that
ends within the memory's length has not wrapped in its own 32 bits either. A fault here is not in the trap table, and so
a SystemError, never a trap. `tests/compiler/test_vector_loops.py` attacks the edges.
"""

from __future__ import annotations

import re
from typing import Final

from wasmforge.compiler.llvm.context import IR_TYPES
from wasmforge.compiler.llvm.memories import MemoryEmitters
from wasmforge.compiler.llvm.rows import SHIFTS
from wasmforge.compiler.llvm.streams import (
    ELEMENTWISE,
    Exit,
    Linear,
    Node,
    StreamLoop,
    find_stream_loop,
    signed,
)
from wasmforge.syntax.types import F32, I32, I64

__all__ = ["VectorLoops"]

_WORTH: Final = 2
"""Vectors at least: below, the checks take longer than they save."""

_SCALAR: Final = re.compile(r"\b(i32|i64|float|double)\b")


class VectorLoops(MemoryEmitters):
    def vector_loop(self) -> None:
        """Before a loop without parameters whose body begins at `pc`: emits what can be done for vectors of elements,
        and goes on where the loop itself may begin."""
        if self.short_blocks:
            return
        loop = find_stream_loop(self.code, self.pc, self.local_types)
        if loop is None:
            return
        plan = self.context.memories[loop.memory]
        if plan.is_64 or plan.shared:  # other threads may change what was checked, or loaded, before
            return
        scalar = self.new_label()
        iterations = self.covered(loop, scalar)
        starts, fuel = self.checked(loop, iterations, scalar)
        before = {x: self.local_value(x) for x in loop.inductions}
        known = dict(self.known_locals)
        self.emit_vectors(loop, starts, iterations)
        passed = self.emit(f"trunc i64 {iterations} to i32")
        for x, step in loop.inductions.items():
            moved = self.emit(f"mul i32 {passed}, {step}")
            self.assign_local(x, self.emit(f"add i32 {before[x]}, {moved}"))
        if self.fuel:
            self.do(f"store i64 {fuel}, ptr %fuel")
        self.do(f"br label %{scalar}")
        self.begin_join(scalar)
        self.known_locals = {x: value for x, value in known.items() if x not in loop.inductions}

    # --- Checks -------------------------------------------------------------------------------------------------

    def linear(self, linear: Linear) -> str:
        """The value, an i32, of a sum."""
        total = str(signed(linear.constant))
        for x, factor in linear.terms:
            value = self.local_value(x)
            if factor != 1:
                value = self.derive(f"mul i32 {value}, {signed(factor)}", value)
            total = value if total == "0" else self.derive(f"add i32 {value}, {total}", value, total)
        return total

    def all_of(self, conditions: list[str]) -> str:
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = self.emit(f"and i1 {whole}, {condition}")
        return whole

    def proceed_if(self, conditions: list[str], otherwise: str) -> None:
        label = self.new_label()
        self.do(f"br i1 {self.all_of(conditions)}, label %{label}, label %{otherwise}")
        self.begin_block(label)

    def covered(self, loop: StreamLoop, scalar: str) -> str:
        """How many iterations the vectors cover, an i64: of all but the last one as many as fill vectors. Goes to
        `scalar` if these are too few."""
        per_vector = loop.lanes // loop.unrolled
        for node in loop.nodes:  # here, from where all that follows can see them
            for x, _ in () if node.linear is None else node.linear.terms:
                self.local_value(x)
            if node.local >= 0:
                self.local_value(node.local)
        conditions, last = self.last_iteration(loop.exit)
        conditions.append(self.emit(f"icmp uge i64 {last}, {_WORTH * per_vector}"))
        self.proceed_if(conditions, scalar)
        return self.emit(f"and i64 {last}, {-per_vector}")

    def last_iteration(self, leave: Exit) -> tuple[list[str], str]:
        """The number of the last iteration, from 0 on, an i64, and what must hold for it to be right."""
        size = abs(leave.step)
        if leave.relation == "ne":
            distance = self.linear(leave.first)
            if leave.step > 0:
                distance = self.emit(f"sub i32 0, {distance}")
            conditions = []
            if size > 1:
                rest = self.emit(f"urem i32 {distance}, {size}")
                conditions.append(self.emit(f"icmp eq i32 {rest}, 0"))
            count = self.emit(f"udiv i32 {distance}, {size}")
            return conditions, self.emit(f"zext i32 {count} to i64")
        extend = "sext" if leave.signed else "zext"
        first = self.emit(f"{extend} i32 {self.linear(leave.first)} to i64")
        bound = self.emit(f"{extend} i32 {self.linear(leave.bound)} to i64")
        # The bound that is not reached any more, and what is reached instead of it, which must not wrap.
        if leave.step > 0:
            if leave.relation == "le":
                bound = self.emit(f"add i64 {bound}, 1")
            largest = (1 << 31 if leave.signed else 1 << 32) - 1
            conditions = [
                self.emit(f"icmp slt i64 {first}, {bound}"),
                self.emit(f"icmp sle i64 {bound}, {largest - (size - 1)}"),
            ]
            distance = self.emit(f"sub i64 {bound}, {first}")
        else:
            if leave.relation == "ge":
                bound = self.emit(f"sub i64 {bound}, 1")
            smallest = -(1 << 31) if leave.signed else 0
            conditions = [
                self.emit(f"icmp sgt i64 {first}, {bound}"),
                self.emit(f"icmp sge i64 {bound}, {smallest + (size - 1)}"),
            ]
            distance = self.emit(f"sub i64 {first}, {bound}")
        rounded = self.emit(f"add i64 {distance}, {size - 1}")
        return conditions, self.emit(f"udiv i64 {rounded}, {size}")

    def checked(self, loop: StreamLoop, iterations: str, scalar: str) -> tuple[list[str], str]:
        """Where each stream starts, in bytes of the memory, and the count of fuel after all vectors, if it is counted.
        Goes to `scalar` unless all that the vectors touch exists and does not overlap, and the fuel is there."""
        length = self.memory_length(loop.memory)
        known: dict[tuple[Linear, int, int], tuple[str, str]] = {}
        conditions = []
        starts = []
        ends = []
        for stream in loop.streams:
            size = stream.row.size if stream.stride == 0 else stream.stride
            key = (stream.address, stream.offset, size)
            if key not in known:
                start = self.emit(f"zext i32 {self.linear(stream.address)} to i64")
                start = self.emit(f"add i64 {start}, {stream.offset}")
                extent = str(size) if stream.stride == 0 else self.emit(f"mul i64 {iterations}, {size}")
                end = self.emit(f"add i64 {start}, {extent}")
                conditions.append(self.emit(f"icmp ule i64 {end}, {length}"))
                known[key] = start, end
            starts.append(known[key][0])
            ends.append(known[key][1])
        for a, b in loop.apart:
            below = self.emit(f"icmp ule i64 {ends[a]}, {starts[b]}")
            above = self.emit(f"icmp ule i64 {ends[b]}, {starts[a]}")
            conditions.append(self.emit(f"or i1 {below}, {above}"))
        fuel = ""
        if self.fuel:
            count = self.emit("load i64, ptr %fuel")
            cost = self.emit(f"mul i64 {iterations}, {loop.cost}")
            fuel = self.emit(f"add i64 {count}, {cost}")
            conditions.append(self.emit(f"icmp slt i64 {fuel}, 0"))
        self.proceed_if(conditions, scalar)
        return starts, fuel

    # --- Vectors ------------------------------------------------------------------------------------------------

    def emit_vectors(self, loop: StreamLoop, starts: list[str], iterations: str) -> None:
        values: dict[int, str] = {}
        pointers = [self.emit(f"getelementptr i8, ptr %m{loop.memory}, i64 {start}") for start in starts]
        invariant = self.invariants(loop, pointers, values)
        elements = self.emit(f"mul i64 {iterations}, {loop.unrolled}")
        before = self.block
        head = self.new_label()
        self.do(f"br label %{head}")
        self.begin_block(head)
        element = f"%{self.next}"
        following = f"%{head}.next"
        self.next += 1
        self.do(f"{element} = phi i64 [ 0, %{before} ], [ {following}, %{head} ]")
        for stream, node in loop.loads:
            row = loop.streams[stream].row
            if node not in invariant:
                place = self.emit(f"getelementptr {row.memory_type}, ptr {pointers[stream]}, i64 {element}")
                value = self.emit(f"load <{loop.lanes} x {row.memory_type}>, ptr {place}, align 1")
                values[node] = self.converted(value, loop.lanes, row.memory_type, row.extension, IR_TYPES[row.type])
        for stream, node in loop.stores:
            row = loop.streams[stream].row
            value = self.value_of(loop, node, values)
            value = self.converted(value, loop.lanes, IR_TYPES[row.type], row.extension, row.memory_type)
            place = self.emit(f"getelementptr {row.memory_type}, ptr {pointers[stream]}, i64 {element}")
            self.do(f"store <{loop.lanes} x {row.memory_type}> {value}, ptr {place}, align 1")
        self.do(f"{following} = add i64 {element}, {loop.lanes}")
        done = self.new_label()
        more = self.emit(f"icmp ult i64 {following}, {elements}")
        self.do(f"br i1 {more}, label %{head}, label %{done}")
        self.begin_block(done)

    def invariants(self, loop: StreamLoop, pointers: list[str], values: dict[int, str]) -> set[int]:
        """Puts what every element has in common into vectors."""
        invariant = set()
        for stream, node in loop.loads:
            row = loop.streams[stream].row
            if loop.streams[stream].stride == 0:
                value = self.emit(f"load {row.memory_type}, ptr {pointers[stream]}, align 1")
                if row.extension:
                    value = self.emit(f"{row.extension} {row.memory_type} {value} to {IR_TYPES[row.type]}")
                values[node] = self.splat(value, loop.nodes[node], loop.lanes)
                invariant.add(node)
        for k in loop.leaves:
            leaf = loop.nodes[k]
            if leaf.linear is not None:
                value = self.linear(leaf.linear)
            elif leaf.local >= 0:
                value = self.local_value(leaf.local)
            elif leaf.type == I64:
                value = str(leaf.literal)
            else:  # no arithmetic may see a literal, see `translate.py`
                bits = "i32" if leaf.type == F32 else "i64"
                value = self.fence(f"bitcast ({bits} {leaf.literal} to {IR_TYPES[leaf.type]})", leaf.type)
            values[k] = self.splat(value, leaf, loop.lanes)
            invariant.add(k)
        return invariant

    def splat(self, value: str, node: Node, lanes: int) -> str:
        ir = IR_TYPES[node.type]
        single = self.emit(f"insertelement <{lanes} x {ir}> poison, {ir} {value}, i64 0")
        return self.emit(
            f"shufflevector <{lanes} x {ir}> {single}, <{lanes} x {ir}> poison, <{lanes} x i32> zeroinitializer"
        )

    def converted(self, value: str, lanes: int, source: str, instruction: str, target: str) -> str:
        if not instruction:
            return value
        return self.emit(f"{instruction} <{lanes} x {source}> {value} to <{lanes} x {target}>")

    def value_of(self, loop: StreamLoop, root: int, values: dict[int, str]) -> str:
        """The vector of a node, without recursion: a body may nest as deep as it is long."""
        todo = [root]
        while todo:
            k = todo[-1]
            missing = [x for x in loop.nodes[k].operands if x not in values]
            if k in values or not missing:
                todo.pop()
                if k not in values:
                    values[k] = self.operation(loop.nodes[k], [values[x] for x in loop.nodes[k].operands], loop.lanes)
                continue
            todo += missing
        return values[root]

    def operation(self, node: Node, operands: list[str], lanes: int) -> str:
        row = ELEMENTWISE.get(node.opcode)
        if row is not None:
            return self.emit(_SCALAR.sub(rf"<{lanes} x \1>", row.template) % tuple(operands))
        ir = IR_TYPES[node.type]
        mask = f"splat ({ir} {31 if node.type == I32 else 63})"
        count = self.emit(f"and <{lanes} x {ir}> {operands[1]}, {mask}")
        return self.emit(f"{SHIFTS[node.opcode]} <{lanes} x {ir}> {operands[0]}, {count}")

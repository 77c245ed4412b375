"""Innermost loops over streams: arrays in a memory whose elements are read and written in order, each iteration for
itself. `find_stream_loop` looks at the body of a loop, and says what an iteration computes if it is such a loop;
`vector_loops.py` emits it for many elements at once, in front of the loop itself.

Compilers unroll loops before they emit WebAssembly. So an iteration may compute several elements, in code of the same
shape each: what it stores to a stream are neighbours, and its loads are those of the first element, as many elements
further on.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wasmforge.binary.leb128 import read_signed, read_unsigned
from wasmforge.compiler.llvm.rows import LOADS, SHIFTS, SIMPLE, STORES, Access
from wasmforge.compiler.metering import FREE
from wasmforge.syntax.instructions import BY_MNEMONIC, Opcode
from wasmforge.syntax.types import F32, F64, I32, I64, ValType

__all__ = ["ELEMENTWISE", "Exit", "Linear", "Node", "Stream", "StreamLoop", "find_stream_loop", "signed"]

_MAX_INSTRUCTIONS: Final = 400
"""Of a body; also the bound of what is computed for a loop that is none of these."""

_MAX_STREAMS: Final = 8
_MAX_UNROLLED: Final = 16

_NEAR: Final = 4096
"""Bytes. Streams that begin closer to each other, where that is known, overlap in all but the shortest loops."""

_VECTOR_SIZE: Final = 32
"""Bytes of the widest elements of a vector. LLVM splits vectors that the processor does not have."""


class Linear(NamedTuple):
    """A sum of locals, times factors, and a constant, modulo 2**32; of the locals' values when an iteration begins."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()


class Node(NamedTuple):
    """A value of an iteration: the sum `linear`, the bits of the literal `literal`, the value of the local `local` when
    the iteration begins, what the access `access` loads, or the operation `opcode` on the values `operands`."""

    type: ValType
    linear: Linear | None = None
    literal: int = 0
    local: int = -1
    access: int = -1
    opcode: int = -1
    operands: tuple[int, ...] = ()


class Exit(NamedTuple):
    """When the loop goes on: while `first + k * step`, in iteration k, is in `relation` to `bound`. Of "ne" the bound
    is 0, and all is modulo 2**32."""

    relation: str
    signed: bool
    first: Linear
    bound: Linear
    step: int


class Stream(NamedTuple):
    """What an access and its neighbours of the same iteration touch: `stride` bytes an iteration from
    `address + offset` on, all of them, or the same element again and again if the stride is 0."""

    row: Access
    address: Linear
    offset: int
    stride: int


class StreamLoop(NamedTuple):
    """What there is to know: `inductions` are the locals that an iteration adds a constant to, `unrolled` elements
    belong to an iteration, which costs `cost` units of fuel, and `lanes` to a vector. `loads` and `stores` are (stream,
    node of the loaded or stored value), `leaves` what stored values are made of and is not loaded, `apart` pairs of
    streams that must not overlap, as nothing is known of how they lie."""

    exit: Exit
    inductions: dict[int, int]
    unrolled: int
    lanes: int
    cost: int
    memory: int
    nodes: list[Node]
    leaves: list[int]
    streams: list[Stream]
    loads: list[tuple[int, int]]
    stores: list[tuple[int, int]]
    apart: list[tuple[int, int]]


_ELEMENTWISE_NAMES: Final = (
    *(f"i32.{name}" for name in ("add", "sub", "mul", "and", "or", "xor")),
    *(f"i64.{name}" for name in ("add", "sub", "and", "or", "xor")),
    *(f"{t}.{name}" for t in ("f32", "f64") for name in ("add", "sub", "mul", "div", "neg")),
    *("i32.wrap_i64", "i64.extend_i32_s", "i64.extend_i32_u", "f32.demote_f64"),
    *("i32.reinterpret_f32", "i64.reinterpret_f64"),
)

ELEMENTWISE: Final = {BY_MNEMONIC[m].opcode: SIMPLE[BY_MNEMONIC[m].opcode] for m in _ELEMENTWISE_NAMES}
"""Instructions whose row is right for vectors as well, with the types of vectors. (No product of i64: processors with
AVX2 have none.)"""

_PLAIN_SHIFTS: Final = frozenset(opcode for opcode, instruction in SHIFTS.items() if instruction[0] != "@")

_COMPARISONS: Final = {
    BY_MNEMONIC["i32.ne"].opcode: ("ne", False),
    **{
        BY_MNEMONIC[f"i32.{relation}_{sign}"].opcode: (relation, sign == "s")
        for relation in ("lt", "le", "gt", "ge")
        for sign in "su"
    },
}
_MIRRORED: Final = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_ADD: Final = BY_MNEMONIC["i32.add"].opcode
_SUB: Final = BY_MNEMONIC["i32.sub"].opcode
_SHL: Final = BY_MNEMONIC["i32.shl"].opcode
_GO_ON: Final = bytes((Opcode.BR_IF, 0, Opcode.END))
"""`br_if 0` and `end`: how an innermost loop ends."""

_SIZES: Final = {I32: 4, F32: 4, I64: 8, F64: 8}


def _sum(a: Linear, b: Linear, factor: int = 1) -> Linear:
    """a + factor * b"""
    terms = dict(a.terms)
    for x, f in b.terms:
        terms[x] = (terms.get(x, 0) + factor * f) & 0xFFFF_FFFF
    return Linear(
        (a.constant + factor * b.constant) & 0xFFFF_FFFF, tuple(sorted((x, f) for x, f in terms.items() if f))
    )


def signed(value: int) -> int:
    """An i32 as a signed number."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


class _NotOne(Exception):
    """The loop is none of those that are looked for."""


def find_stream_loop(code: bytes, at: int, local_types: list[ValType]) -> StreamLoop | None:
    """What the loop does whose body, valid and without parameters, begins at `code[at]`; None if it is another kind."""
    try:
        iteration = _Iteration(code, local_types)
        iteration.run(at)
        return _Shape(iteration).loop()
    except _NotOne:
        return None


class _Iteration:
    """The values of one iteration, as a graph: a value that is computed once is one node, however often it is used."""

    def __init__(self, code: bytes, local_types: list[ValType]) -> None:
        self.code = code
        self.local_types = local_types
        self.nodes: list[Node] = []
        self.numbers: dict[Node, int] = {}
        self.accesses: list[tuple[int, Linear, int, int]] = []  # opcode, address, offset, node
        self.memory = -1
        self.assigned: dict[int, int] = {}
        self.stack: list[int] = []
        self.relation = ""
        self.signed = False
        self.cost = 0

    def number(self, node: Node) -> int:
        found = self.numbers.get(node)
        if found is None:
            found = self.numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return found

    def push_linear(self, linear: Linear) -> None:
        self.stack.append(self.number(Node(I32, linear)))

    def pop(self) -> int:
        if not self.stack:
            raise _NotOne  # it takes operands from outside
        return self.stack.pop()

    def pop_linear(self) -> Linear:
        linear = self.nodes[self.pop()].linear
        if linear is None:
            raise _NotOne
        return linear

    def run(self, at: int) -> None:
        code = self.code
        for _ in range(_MAX_INSTRUCTIONS):
            opcode = code[at]
            at += 1
            self.cost += opcode not in FREE
            if opcode in _COMPARISONS:
                self.relation, self.signed = _COMPARISONS[opcode]
                self.cost += 1  # the branch
                return self.leave(at)
            if opcode == Opcode.BR_IF:
                self.relation = "ne"
                self.push_linear(Linear(0))
                return self.leave(at - 1)
            if opcode in (Opcode.LOCAL_GET, Opcode.LOCAL_SET, Opcode.LOCAL_TEE):
                x, at = read_unsigned(code, at)
                self.access_local(opcode, x)
            elif opcode == Opcode.I32_CONST:
                value, at = read_signed(code, at, 32)
                self.push_linear(Linear(value & 0xFFFF_FFFF))
            elif opcode == Opcode.I64_CONST:
                value, at = read_signed(code, at, 64)
                self.stack.append(self.number(Node(I64, literal=value)))
            elif opcode == Opcode.F32_CONST:
                self.stack.append(self.number(Node(F32, literal=int.from_bytes(code[at : at + 4], "little"))))
                at += 4
            elif opcode == Opcode.F64_CONST:
                self.stack.append(self.number(Node(F64, literal=int.from_bytes(code[at : at + 8], "little"))))
                at += 8
            elif opcode in LOADS or opcode in STORES:
                alignment, at = read_unsigned(code, at)
                memory = 0
                if alignment & 0x40:
                    memory, at = read_unsigned(code, at)
                offset, at = read_unsigned(code, at, 64)
                self.access_memory(opcode, memory, offset)
            else:
                self.compute(opcode)
        raise _NotOne

    def leave(self, at: int) -> None:
        if self.code[at : at + 3] != _GO_ON or len(self.stack) != 2:
            raise _NotOne

    def access_local(self, opcode: int, x: int) -> None:
        if opcode == Opcode.LOCAL_GET:
            found = self.assigned.get(x)
            if found is None:
                t = self.local_types[x]
                if t not in _SIZES:
                    raise _NotOne
                found = self.number(Node(I32, Linear(0, ((x, 1),))) if t == I32 else Node(t, local=x))
            self.stack.append(found)
            return
        self.assigned[x] = self.pop()
        if opcode == Opcode.LOCAL_TEE:
            self.stack.append(self.assigned[x])

    def access_memory(self, opcode: int, memory: int, offset: int) -> None:
        if self.memory not in (-1, memory):
            raise _NotOne
        self.memory = memory
        value = -1 if opcode in LOADS else self.pop()
        address = self.pop_linear()
        if opcode in LOADS:
            value = self.number(Node(LOADS[opcode].type, access=len(self.accesses)))
            self.stack.append(value)
        self.accesses.append((opcode, address, offset, value))

    def compute(self, opcode: int) -> None:
        if opcode not in ELEMENTWISE and opcode not in _PLAIN_SHIFTS:
            raise _NotOne
        one = opcode in ELEMENTWISE and ELEMENTWISE[opcode].operands == 1
        second = self.pop()
        operands = (second,) if one else (self.pop(), second)
        if not one:
            a, b = (self.nodes[k].linear for k in operands)
            if a is not None and b is not None:
                if opcode in (_ADD, _SUB):
                    self.push_linear(_sum(a, b, 1 if opcode == _ADD else -1))
                    return
                if opcode == _SHL and not b.terms:
                    self.push_linear(_sum(Linear(0), a, 1 << (b.constant & 31)))
                    return
        t = ELEMENTWISE[opcode].result if opcode in ELEMENTWISE else self.nodes[second].type
        self.stack.append(self.number(Node(t, opcode=opcode, operands=operands)))


class _Shape:
    """Makes a `StreamLoop` of an iteration."""

    def __init__(self, iteration: _Iteration) -> None:
        self.iteration = iteration
        self.nodes = iteration.nodes
        self.accesses = iteration.accesses
        self.inductions: dict[int, int] = {}
        self.unrolled = 0
        self.streams: list[Stream] = []
        self.loads: dict[int, int] = {}  # access of the first element to stream
        self.stores: list[tuple[int, int]] = []
        self.lanes_of: dict[int, list[int]] = {}  # stream to its accesses, by element
        self.matched: set[tuple[int, int, int]] = set()
        self.seen_loads: set[int] = set()

    def loop(self) -> StreamLoop:
        self.classify_locals()
        leave = self.find_exit()
        self.find_stores()
        if len(self.seen_loads) != sum(opcode in LOADS for opcode, *_ in self.accesses):
            raise _NotOne  # it loads what it does not need: only the loop itself traps for that
        if len(self.streams) > _MAX_STREAMS:
            raise _NotOne
        apart = self.find_apart()
        used = self.used_nodes()
        widest = max([_SIZES[self.nodes[k].type] for k in used])
        lanes = max(_VECTOR_SIZE // widest, self.unrolled)
        return StreamLoop(
            leave,
            {x: step for x, step in self.inductions.items() if step},
            self.unrolled,
            lanes,
            self.iteration.cost,
            self.iteration.memory,
            self.nodes,
            sorted(k for k in used if self.nodes[k].access < 0 and self.nodes[k].opcode < 0),
            self.streams,
            [(stream, self.accesses[access][3]) for access, stream in self.loads.items()],
            self.stores,
            apart,
        )

    def classify_locals(self) -> None:
        """Every local is left alone, moved on by a constant, or a temporary, which the loop assigns to before it reads
        it. No temporary's value from before the iteration may count."""
        temporaries = set()
        for x, number in self.iteration.assigned.items():
            linear = self.nodes[number].linear
            if linear is not None and linear.terms == ((x, 1),):
                self.inductions[x] = signed(linear.constant)
            else:
                temporaries.add(x)
        for node in self.nodes:
            terms = () if node.linear is None else node.linear.terms
            if node.local in temporaries or any(x in temporaries for x, _ in terms):
                raise _NotOne

    def stride(self, linear: Linear) -> int:
        return signed(sum(factor * self.inductions.get(x, 0) for x, factor in linear.terms))

    def find_exit(self) -> Exit:
        first, bound = (self.nodes[k].linear for k in self.iteration.stack)
        if first is None or bound is None:
            raise _NotOne
        relation = self.iteration.relation
        if relation == "ne":
            first, bound = _sum(first, bound, -1), Linear(0)
        elif self.stride(bound):
            first, bound, relation = bound, first, _MIRRORED[relation]
        step = self.stride(first)
        if step == 0 or self.stride(bound) or (relation != "ne" and (step > 0) != (relation in ("lt", "le"))):
            raise _NotOne
        return Exit(relation, self.iteration.signed, first, bound, step)

    # --- Streams ------------------------------------------------------------------------------------------------

    def distance(self, a: int, b: int) -> int:
        """How many bytes the access `b` begins behind `a`, where both have the same terms and nothing wraps."""
        _, from_address, from_offset, _ = self.accesses[a]
        _, to_address, to_offset, _ = self.accesses[b]
        return signed(to_address.constant - from_address.constant) + to_offset - from_offset

    def is_element(self, first: int, other: int, lane: int) -> bool:
        """Whether the access `other` is to the element `lane` elements behind that of `first`.

        The check of the stream, from its first address to its end, must hold for the other's address too, which wraps
        by itself: it may not lie before the first.
        """
        opcode, address, _, _ = self.accesses[first]
        other_opcode, other_address, _, _ = self.accesses[other]
        size = (LOADS if opcode in LOADS else STORES)[opcode].size
        return (
            opcode == other_opcode
            and address.terms == other_address.terms
            and signed(other_address.constant - address.constant) >= 0
            and self.distance(first, other) == lane * size
        )

    def add_stream(self, access: int, stride: int) -> int:
        opcode, address, offset, _ = self.accesses[access]
        self.streams.append(Stream((LOADS if opcode in LOADS else STORES)[opcode], address, offset, stride))
        self.lanes_of[len(self.streams) - 1] = [access] * max(self.unrolled, 1)
        return len(self.streams) - 1

    def find_stores(self) -> None:
        families: dict[tuple[int, tuple[tuple[int, int], ...]], list[int]] = {}
        for k, (opcode, address, _, _) in enumerate(self.accesses):
            if opcode in STORES:
                families.setdefault((opcode, address.terms), []).append(k)
        for family in families.values():
            self.add_family([k for _, k in sorted((self.distance(family[0], k), k) for k in family)])
        if not self.stores:
            raise _NotOne

    def add_family(self, family: list[int]) -> None:
        """The stores of one iteration to one stream, in the order of their addresses."""
        first = family[0]
        opcode, address, _, value = self.accesses[first]
        count = len(family)
        stride = self.stride(address)
        if count & (count - 1) or count > _MAX_UNROLLED or self.unrolled not in (0, count):
            raise _NotOne
        if stride != count * STORES[opcode].size:
            raise _NotOne
        self.unrolled = count
        stream = self.add_stream(first, stride)
        self.lanes_of[stream] = list(family)
        self.stores.append((stream, value))
        for lane, access in enumerate(family):
            if not self.is_element(first, access, lane):
                raise _NotOne
            self.match(value, self.accesses[access][3], lane)

    def match(self, first: int, other: int, lane: int) -> None:
        """Checks that the value `other` is computed as `first` is, from what lies `lane` elements further on."""
        todo = [(first, other)]
        while todo:
            a, b = todo.pop()
            if (a, b, lane) in self.matched:
                continue
            self.matched.add((a, b, lane))
            x, y = self.nodes[a], self.nodes[b]
            if x.access >= 0 and y.access >= 0:
                self.match_loads(x.access, y.access, lane)
            elif x.opcode >= 0:
                if x.opcode != y.opcode:
                    raise _NotOne
                todo.extend(zip(x.operands, y.operands, strict=True))
            elif x != y or (x.linear is not None and self.stride(x.linear)):
                raise _NotOne

    def match_loads(self, first: int, other: int, lane: int) -> None:
        opcode, address, _, _ = self.accesses[first]
        stride = self.stride(address)
        self.seen_loads.add(other)
        stream = self.loads.get(first)
        if stream is None:
            if lane or stride not in (0, self.unrolled * LOADS[opcode].size):
                raise _NotOne
            stream = self.loads[first] = self.add_stream(first, stride)
        if not self.is_element(first, other, lane if stride else 0):
            raise _NotOne
        self.lanes_of[stream][lane] = other

    def find_apart(self) -> list[tuple[int, int]]:
        """The pairs of streams, of which one is stored to, that must be seen not to overlap. Not those that are the
        same elements, if each is loaded before it is stored to."""
        pairs = []
        stored = [stream for stream, _ in self.stores]
        for k, target in enumerate(stored):
            for other in range(len(self.streams)):
                if other == target or other in stored[:k]:
                    continue
                a, b = self.streams[target], self.streams[other]
                if a.address.terms != b.address.terms or other in stored:
                    pairs.append((target, other))
                elif (a.address, a.offset, a.stride, a.row.size) == (b.address, b.offset, b.stride, b.row.size):
                    if any(x > y for x, y in zip(self.lanes_of[other], self.lanes_of[target], strict=True)):
                        raise _NotOne
                elif abs(self.distance(self.lanes_of[target][0], self.lanes_of[other][0])) < _NEAR:
                    raise _NotOne
                else:
                    pairs.append((target, other))
        return pairs

    def used_nodes(self) -> set[int]:
        used: set[int] = set()
        todo = [node for _, node in self.stores]
        while todo:
            k = todo.pop()
            if k not in used:
                used.add(k)
                todo.extend(self.nodes[k].operands)
        return used

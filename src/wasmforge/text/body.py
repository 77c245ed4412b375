"""Instruction sequences in text, flat and folded, to encoded instructions (specification, section 6.5).

The module parser calls it for function bodies and constant expressions. It keeps its own stack of what is open, so
that nesting is bounded by memory and not by Python's recursion limit: a folded instruction waits on that stack,
encoded, until its operands are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from wasmforge.binary import encode_instruction
from wasmforge.binary.leb128 import encode_unsigned
from wasmforge.syntax.instructions import EMPTY_BLOCK, Immediate, Opcode, block_type_of
from wasmforge.text import keywords
from wasmforge.text.keywords import OPERATORS, Operator, Shape
from wasmforge.text.literals import F32_FORMAT, F64_FORMAT, float_bits, integer, is_number, natural
from wasmforge.text.reader import Reader
from wasmforge.text.spaces import Space, Types, read_type_use
from wasmforge.text.vectors import vector_literal

__all__ = ["BodyParser", "Spaces"]

BRANCH_HINT: Final = "(@metadata.code.branch_hint"

# What an entry of the stack of open things waits for.
_OPERANDS: Final = 0  # a folded plain instruction: folded operands, then `)`
_CONDITION: Final = 1  # a folded `if`: folded operands, then `(then`
_AFTER_THEN: Final = 2  # a folded `if`: `(else` or `)`
_AFTER_ELSE: Final = 3  # a folded `if`: `)`
_BLOCK: Final = 4  # a folded `block` or `loop`: instructions, then `)`
_THEN: Final = 5
_ELSE: Final = 6
_FLAT_BLOCK: Final = 7  # instructions, then `end`
_FLAT_IF: Final = 8  # instructions, then `else` or `end`
_FLAT_ELSE: Final = 9

_WANTED: Final = (
    "a folded operand or `)`",
    "a folded operand or `(then`",
    "`(else` or `)`",
    "`)`",
    "an instruction or `)`",
    "an instruction or `)`",
    "an instruction or `)`",
    "an instruction or `end`",
    "an instruction, `else` or `end`",
    "an instruction or `end`",
)

_AFTER_MEMORY: Final = frozenset("0123456789oa")
"""What begins `offset=`, `align=` or a lane index behind a memory index."""

_END: Final = b"\x0b"
_ELSE_CODE: Final = b"\x05"


@dataclass(slots=True)
class Spaces:
    """The index spaces of a module."""

    types: Types = field(default_factory=Types)
    functions: Space = field(default_factory=lambda: Space("function", "func"))
    tables: Space = field(default_factory=lambda: Space("table", "table"))
    memories: Space = field(default_factory=lambda: Space("memory", "memory"))
    globals: Space = field(default_factory=lambda: Space("global", "global"))
    elements: Space = field(default_factory=lambda: Space("elem segment", "elem segment"))
    data: Space = field(default_factory=lambda: Space("data segment", "data segment"))


class BodyParser:
    """Parses instruction sequences of one module, one after the other.

    After `function`, `label_names` maps the number of a block in the function to its name, and `hints` lists the
    branch hints: the offset of the instruction in the returned code, and the hint. `uses_data` tells whether any
    instruction so far named a data segment: the module then needs a data count section (section 5.5.16).
    """

    def __init__(self, reader: Reader, spaces: Spaces) -> None:
        self.reader = reader
        self.spaces = spaces
        self.uses_data = False
        self.label_names: dict[int, str] = {}
        self.hints: list[tuple[int, int]] = []
        # Encoded indices and instructions by token. Locals change with the function; the others last.
        self._functions: dict[str, bytes] = {}
        self._globals: dict[str, bytes] = {}
        self._constants: dict[str, bytes] = {}
        self._locals: dict[str, bytes] = {}
        self._local_space = Space("local", "local")
        # The stack of what is open: states, and the code that waits for operands.
        self._states: list[int] = []
        self._waiting: list[bytes] = []
        self._condition_labels: list[str] = []  # of the folded `if`s whose condition is open
        # The identifiers of the labels in scope, and by identifier the depths at which it is bound, innermost last.
        self._labels: list[str] = []
        self._bound: dict[str, list[int]] = {}
        self._blocks = 0
        self._in_function = False
        self._hint = -1  # of the instruction to come
        self._hint_at = 0
        self._waiting_hints: dict[int, int] = {}  # of folded instructions, by their place in the stack

    def function(self, local_space: Space) -> bytes:
        """Parses the instructions of a function up to the parenthesis that closes it, which stays unread."""
        self._start(local_space, True)
        return self._sequence(False)

    def expression(self, single: bool) -> bytes:
        """Parses a constant expression: a single folded instruction, or instructions up to an unread `)`."""
        self._start(Space("local", "local"), False)
        return self._sequence(single)

    def _start(self, local_space: Space, in_function: bool) -> None:
        self._locals = {}
        self._local_space = local_space
        self._states.clear()
        self._waiting.clear()
        self._condition_labels.clear()
        self._labels.clear()
        self._bound = {}
        self._blocks = 0
        self._in_function = in_function
        self._hint = -1
        self._waiting_hints.clear()
        self.label_names = {}
        self.hints = []

    def _sequence(self, single: bool) -> bytes:
        """The encoded instructions up to a `)` that nothing here opened, or, for `single`, of the first folded
        instruction, with an `end` behind them."""
        reader = self.reader
        tokens = reader.tokens
        at = reader.at
        states = self._states
        waiting = self._waiting
        out = bytearray()
        while True:
            token = tokens[at]
            folded = token == "("
            if folded:
                token = tokens[at + 1]
                operator = OPERATORS.get(token)
                if operator is None or (states and _AFTER_THEN <= states[-1] <= _AFTER_ELSE):
                    reader.at = at
                    self._arm(out)
                    at = reader.at
                    continue
                at += 2
            elif token == ")":
                if self._hint >= 0:
                    raise reader.error("@metadata.code.branch_hint annotation: invalid target", self._hint_at)
                if states and states[-1] == _OPERANDS:
                    states.pop()
                    if self._waiting_hints:
                        self._note_hint(out, self._waiting_hints.pop(len(states), -1))
                    out += waiting.pop()
                else:
                    reader.at = at
                    if not states and not single:
                        break
                    self._close(out)
                at += 1
                if single and not states:
                    reader.at = at
                    break
                continue
            else:
                operator = OPERATORS.get(token)
                if operator is None or (states[-1] < _BLOCK if states else single):
                    reader.at = at
                    self._branch_hint()
                    at = reader.at
                    continue
                at += 1
            shape = operator[0]
            if shape == 0:
                code = operator[1]
            elif shape == 1:
                token = tokens[at]
                index = self._locals.get(token)
                if index is None:
                    reader.at = at
                    index = self._locals[token] = encode_unsigned(self._local_space.read(reader))
                code = operator[1] + index
                at += 1
            elif shape == 5:
                token += tokens[at]
                constant = self._constants.get(token)
                if constant is None:
                    reader.at = at
                    constant = self._constants[token] = self._constant(operator)
                code = constant
                at += 1
            elif shape == 3:
                token = tokens[at]
                index = self._functions.get(token)
                if index is None:
                    reader.at = at
                    index = self._functions[token] = encode_unsigned(self.spaces.functions.read(reader))
                code = operator[1] + index
                at += 1
            elif shape == 4:
                token = tokens[at]
                index = self._globals.get(token)
                if index is None:
                    reader.at = at
                    index = self._globals[token] = encode_unsigned(self.spaces.globals.read(reader))
                code = operator[1] + index
                at += 1
            else:
                reader.at = at
                if Shape.BLOCK <= shape <= Shape.END:
                    self._block_operator(out, operator, folded)
                    at = reader.at
                    continue
                code = self._other(operator)
                at = reader.at
            hint = self._hint
            if hint >= 0:
                self._check_hint(operator)
            if not folded:
                self._note_hint(out, hint)
                out += code
            elif tokens[at] != ")":
                if hint >= 0:
                    self._waiting_hints[len(states)] = hint
                states.append(_OPERANDS)
                waiting.append(code)
            else:
                # No operands: the most frequent folded instruction does not go through the stack.
                at += 1
                self._note_hint(out, hint)
                out += code
                if single and not states:
                    reader.at = at
                    break
        out += _END
        return bytes(out)

    def _note_hint(self, out: bytearray, hint: int) -> None:
        """Records the hint of the instruction about to be written, if it has one (-1: none)."""
        if hint >= 0:
            self.hints.append((len(out), hint))

    def _check_hint(self, operator: Operator) -> None:
        if operator.row.opcode not in (Opcode.IF, Opcode.BR_IF):
            raise self.reader.error("@metadata.code.branch_hint annotation: invalid target", self._hint_at)
        self._hint = -1

    def _branch_hint(self) -> None:
        """Reads a branch hint. Called for every token that is no instruction or that the place does not allow."""
        reader = self.reader
        if reader.tokens[reader.at] != BRANCH_HINT or not self._in_function:
            raise reader.unexpected(self._wanted())
        if self._hint >= 0:
            raise reader.error("@metadata.code.branch_hint annotation: duplicate annotation")
        self._hint_at = reader.at
        reader.at += 1
        value = reader.string()
        if value not in (b"\0", b"\1"):
            raise reader.error("@metadata.code.branch_hint annotation: the hint must be 0 or 1", reader.at - 1)
        reader.expect(")")
        self._hint = value[0]

    def _wanted(self) -> str:
        return _WANTED[self._states[-1]] if self._states else "an instruction"

    # Blocks

    def _arm(self, out: bytearray) -> None:
        """`(then` or `(else` of a folded `if`; anything else that no instruction begins with is an error."""
        reader = self.reader
        states = self._states
        token = reader.tokens[reader.at + 1]
        if token == "then" and states and states[-1] == _CONDITION:
            states[-1] = _AFTER_THEN
            self._note_hint(out, self._waiting_hints.pop(len(states) - 1, -1))
            out += self._waiting[-1]
            self._bind(self._condition_labels.pop())
            states.append(_THEN)
        elif token == "else" and states and states[-1] == _AFTER_THEN:
            states[-1] = _AFTER_ELSE
            out += _ELSE_CODE
            states.append(_ELSE)
        elif states and _AFTER_THEN <= states[-1] <= _AFTER_ELSE:
            raise reader.unexpected(self._wanted())
        else:
            raise reader.unexpected(self._wanted(), reader.at + 1)
        self._waiting.append(b"")
        reader.at += 2

    def _close(self, out: bytearray) -> None:
        """Handles the `)` that closes anything but a plain instruction; the reader stands on it."""
        if not self._states:
            raise self.reader.unexpected("a folded instruction")
        state = self._states.pop()
        self._waiting.pop()
        if state in (_BLOCK, _AFTER_THEN, _AFTER_ELSE):
            self._unbind()
            out += _END
        elif state not in (_THEN, _ELSE):
            raise self.reader.unexpected(_WANTED[state])

    def _block_operator(self, out: bytearray, operator: Operator, folded: bool) -> None:
        """`block`, `loop`, `if`, `else` or `end`; the reader stands behind the mnemonic."""
        shape = operator.shape
        hint = self._hint
        if hint >= 0:
            self._check_hint(operator)
        if shape == Shape.BLOCK or shape == Shape.IF:
            identifier = self.reader.identifier()
            annotation = self.reader.name_annotation()
            code = encode_instruction(operator.row, (self._block_type(),))
            if shape == Shape.IF and folded:
                # The label is in scope in the arms only, and the instruction comes after its operands.
                if hint >= 0:
                    self._waiting_hints[len(self._states)] = hint
                self._condition_labels.append(identifier)
                self._push(_CONDITION, code)
                return
            self._note_hint(out, hint)
            out += code
            self._bind(identifier, annotation)
            self._push(_BLOCK if folded else _FLAT_IF if shape == Shape.IF else _FLAT_BLOCK, b"")
            return
        state = self._states[-1] if self._states else -1
        if folded or state < _FLAT_BLOCK or (shape == Shape.ELSE and state != _FLAT_IF):
            raise self.reader.unexpected(self._wanted(), self.reader.at - 1)
        identifier = self.reader.identifier()
        if identifier and identifier != self._labels[-1]:
            raise self.reader.error(f"mismatching label {identifier}", self.reader.at - 1)
        if shape == Shape.ELSE:
            self._states[-1] = _FLAT_ELSE
            out += _ELSE_CODE
        else:
            self._states.pop()
            self._waiting.pop()
            self._unbind()
            out += _END

    def _push(self, state: int, code: bytes) -> None:
        self._states.append(state)
        self._waiting.append(code)

    def _bind(self, identifier: str, annotation: str | None = None) -> None:
        self._labels.append(identifier)
        if identifier:
            self._bound.setdefault(identifier, []).append(len(self._labels))
            self.label_names[self._blocks] = identifier[1:]
        if annotation is not None:
            self.label_names[self._blocks] = annotation
        self._blocks += 1

    def _unbind(self) -> None:
        identifier = self._labels.pop()
        if identifier:
            self._bound[identifier].pop()

    def _block_type(self) -> int:
        """A block type in the form of `Immediate.BLOCK_TYPE` (section 6.5.2)."""
        reader = self.reader
        if reader.tokens[reader.at] != "(":
            return EMPTY_BLOCK
        index, params, results = read_type_use(reader, self.spaces.types, None)
        if index is not None:
            return index
        if params or len(results) > 1:
            return self.spaces.types.matching(params, results)
        return block_type_of(results[0]) if results else EMPTY_BLOCK

    def _label(self) -> int:
        """A label as its distance from the innermost one."""
        reader = self.reader
        token = reader.tokens[reader.at]
        if token[:1] != "$":
            return reader.number(32, "a label index")
        depths = self._bound.get(token)
        if not depths:
            raise reader.error(f"unknown label {token}")
        reader.at += 1
        return len(self._labels) - depths[-1]

    # Plain instructions

    def _constant(self, operator: Operator) -> bytes:
        reader = self.reader
        token = reader.tokens[reader.at]
        kind = operator.row.immediates[0]
        value: int | None
        if kind == Immediate.I32_CONST or kind == Immediate.I64_CONST:
            bits = 32 if kind == Immediate.I32_CONST else 64
            value = integer(token)
            if value is not None:
                if not -(1 << (bits - 1)) <= value < 1 << bits:
                    raise reader.error(f"constant out of range: i{bits} constant {token[:40]}")
                if value >> (bits - 1) == 1:
                    value -= 1 << bits
        else:
            try:
                value = float_bits(token, F32_FORMAT if kind == Immediate.F32_CONST else F64_FORMAT)
            except ValueError as e:
                raise reader.error(str(e)) from None
        if value is None:
            raise reader.unexpected(f"the number of `{operator.row.mnemonic}`")
        reader.at += 1
        return encode_instruction(operator.row, (value,))

    def _other(self, operator: Operator) -> bytes:
        """The less frequent instructions, by what follows the mnemonic (section 6.5.3 on)."""
        reader = self.reader
        spaces = self.spaces
        shape = operator.shape
        row = operator.row
        values: tuple[object, ...]
        if shape == Shape.MEMARG:
            values = (self._memarg(row.access),)
        elif shape == Shape.LABEL:
            values = (self._label(),)
        elif shape == Shape.BR_TABLE:
            labels = [self._label()]
            while reader.at_index():
                labels.append(self._label())
            values = (tuple(labels),)
        elif shape == Shape.CALL_INDIRECT:
            table = spaces.tables.read_optional(reader)
            index, params, results = read_type_use(reader, spaces.types, None)
            values = (spaces.types.matching(params, results) if index is None else index, table)
        elif shape == Shape.SELECT:
            if reader.tokens[reader.at] == "(" and reader.tokens[reader.at + 1] == "result":
                row = keywords.SELECT_TYPED
                values = (tuple(reader.results()),)
            else:
                values = ()
        elif shape == Shape.REF_NULL:
            values = (reader.heap_type(),)
        elif shape == Shape.TYPE:
            values = (spaces.types.read(reader),)
        elif shape == Shape.TABLE:
            values = (spaces.tables.read_optional(reader),)
        elif shape == Shape.MEMORY:
            values = (spaces.memories.read_optional(reader),)
        elif shape == Shape.ELEM:
            values = (spaces.elements.read(reader),)
        elif shape == Shape.DATA:
            self.uses_data = True
            values = (spaces.data.read(reader),)
        elif shape == Shape.LANE:
            values = (self._lane(),)
        elif shape == Shape.MEMARG_LANE:
            values = self._memarg_lane(row.access)
        elif shape == Shape.LANES:
            values = (self._lanes(),)
        elif shape == Shape.ORDERING:
            values = (0,)
        elif shape == Shape.VECTOR_CONST:
            values = (vector_literal(reader),)
        elif shape == Shape.TABLE_INIT:
            table = self._index_before_another(spaces.tables)
            values = (spaces.elements.read(reader), table)
        elif shape == Shape.MEMORY_INIT:
            self.uses_data = True
            memory = self._index_before_another(spaces.memories)
            values = (spaces.data.read(reader), memory)
        else:
            space = spaces.tables if shape == Shape.TWO_TABLES else spaces.memories
            values = (space.read(reader), space.read(reader)) if reader.at_index() else (0, 0)
        return encode_instruction(row, values)

    def _index_before_another(self, space: Space) -> int:
        """The first of two indices; when only one is written, it is the other one, and the first is 0."""
        after = self.reader.tokens[self.reader.at + 1][:1]
        return space.read(self.reader) if after == "$" or after.isdigit() else 0

    def _memarg(self, access: int) -> tuple[int, int, int]:
        """`memidx? offset=n? align=n?` as alignment exponent, memory and offset (section 6.5.5)."""
        reader = self.reader
        memory = self.spaces.memories.read_optional(reader)
        offset = self._assignment("offset=")
        return self._alignment(access), memory, offset or 0

    def _alignment(self, access: int) -> int:
        """An optional `align=n` as exponent."""
        align = self._assignment("align=")
        if align is None:
            align = access
        elif align == 0 or align & (align - 1):
            raise self.reader.error("alignment must be a power of two", self.reader.at - 1)
        return align.bit_length() - 1

    def _memarg_lane(self, access: int) -> tuple[object, ...]:
        """`memarg laneidx`: a number that no other one follows is the lane, not the memory."""
        reader = self.reader
        memory = 0
        first = reader.tokens[reader.at][:1]
        if first == "$" or (first.isdigit() and reader.tokens[reader.at + 1][:1] in _AFTER_MEMORY):
            memory = self.spaces.memories.read(reader)
        offset = self._assignment("offset=")
        align = self._alignment(access)
        return (align, memory, offset or 0), self._lane()

    def _lane(self) -> int:
        """A lane index, one byte in the binary; whether the shape has so many lanes is for the validator to say."""
        reader = self.reader
        token = reader.tokens[reader.at]
        value = natural(token)
        if value is None:
            raise reader.unexpected("a lane index")
        if value > 255:
            raise reader.error(f"malformed lane index {token}: i8 constant out of range")
        reader.at += 1
        return value

    def _lanes(self) -> bytes:
        """The sixteen lane indices of a shuffle."""
        reader = self.reader
        count = 0
        while is_number(reader.tokens[reader.at + count]):
            count += 1
        if count != 16:
            raise reader.error(f"invalid lane length: a shuffle has 16 lane indices, found {count}")
        for k in range(16):
            value = integer(reader.tokens[reader.at + k])
            if value is None or not 0 <= value <= 255:
                raise reader.error("malformed lane index: i8 constant out of range", reader.at + k)
        return bytes([self._lane() for _ in range(16)])

    def _assignment(self, prefix: str) -> int | None:
        reader = self.reader
        token = reader.tokens[reader.at]
        if not token.startswith(prefix):
            return None
        value = natural(token[len(prefix) :])
        if value is None:
            raise reader.unexpected(f"a number behind `{prefix}`")
        if value >> 64:
            raise reader.error(f"constant out of range: {prefix}n must be below 2^64")
        reader.at += 1
        return value

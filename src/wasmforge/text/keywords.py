"""The words of the text format: instructions by mnemonic with how their immediates are read, the mnemonics and
types of proposals that are not implemented, and all other keywords. Derived from the instruction table of `syntax`;
the parser is driven by it.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NamedTuple

from wasmforge.binary import features
from wasmforge.syntax.instructions import BY_MNEMONIC, BY_OPCODE, Immediate, InstructionRow, Opcode, opcode_bytes
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128, ValType

__all__ = [
    "CUSTOM_DESCRIPTORS",
    "HEAP_TYPES",
    "KEYWORDS",
    "OPERATORS",
    "REFERENCE_WORDS",
    "SELECT_TYPED",
    "VALUE_TYPE_WORDS",
    "Operator",
    "Shape",
    "is_keyword",
    "unsupported_operator",
    "unsupported_type",
]


CUSTOM_DESCRIPTORS: Final = features.CUSTOM_DESCRIPTORS


class Shape(IntEnum):
    """What follows a mnemonic in the text: the parser's cases. The first five are the frequent ones."""

    PLAIN = 0
    LOCAL = 1
    LABEL = 2
    FUNC = 3
    GLOBAL = 4
    CONST = 5
    MEMARG = 6
    BLOCK = 7
    IF = 8
    ELSE = 9
    END = 10
    BR_TABLE = 11
    CALL_INDIRECT = 12
    SELECT = 13
    REF_NULL = 14
    TABLE = 15  # an optional table index
    MEMORY = 16  # an optional memory index
    ELEM = 17
    DATA = 18
    TABLE_INIT = 19
    MEMORY_INIT = 20
    TWO_TABLES = 21  # both indices or none
    TWO_MEMORIES = 22
    LANE = 23
    LANES = 24
    MEMARG_LANE = 25
    VECTOR_CONST = 26
    TYPE = 27
    ORDERING = 28


class Operator(NamedTuple):
    shape: Shape
    code: bytes
    row: InstructionRow


_BY_OPCODE: Final = {
    Opcode.BLOCK: Shape.BLOCK,
    Opcode.LOOP: Shape.BLOCK,
    Opcode.IF: Shape.IF,
    Opcode.ELSE: Shape.ELSE,
    Opcode.END: Shape.END,
    Opcode.SELECT: Shape.SELECT,
    Opcode.CALL_INDIRECT: Shape.CALL_INDIRECT,
    Opcode.RETURN_CALL_INDIRECT: Shape.CALL_INDIRECT,
}
_BY_IMMEDIATES: Final[dict[tuple[Immediate, ...], Shape]] = {
    (): Shape.PLAIN,
    (Immediate.LOCAL,): Shape.LOCAL,
    (Immediate.LABEL,): Shape.LABEL,
    (Immediate.FUNC,): Shape.FUNC,
    (Immediate.GLOBAL,): Shape.GLOBAL,
    (Immediate.I32_CONST,): Shape.CONST,
    (Immediate.I64_CONST,): Shape.CONST,
    (Immediate.F32_CONST,): Shape.CONST,
    (Immediate.F64_CONST,): Shape.CONST,
    (Immediate.MEMARG,): Shape.MEMARG,
    (Immediate.LABEL_TABLE,): Shape.BR_TABLE,
    (Immediate.REF_TYPE,): Shape.REF_NULL,
    (Immediate.TYPE,): Shape.TYPE,
    (Immediate.TABLE,): Shape.TABLE,
    (Immediate.MEMORY,): Shape.MEMORY,
    (Immediate.ELEM,): Shape.ELEM,
    (Immediate.DATA,): Shape.DATA,
    (Immediate.ELEM, Immediate.TABLE): Shape.TABLE_INIT,
    (Immediate.DATA, Immediate.MEMORY): Shape.MEMORY_INIT,
    (Immediate.TABLE, Immediate.TABLE): Shape.TWO_TABLES,
    (Immediate.MEMORY, Immediate.MEMORY): Shape.TWO_MEMORIES,
    (Immediate.LANE,): Shape.LANE,
    (Immediate.LANES,): Shape.LANES,
    (Immediate.MEMARG, Immediate.LANE): Shape.MEMARG_LANE,
    (Immediate.V128_CONST,): Shape.VECTOR_CONST,
    (Immediate.ORDERING,): Shape.ORDERING,
}


def _operator(row: InstructionRow) -> Operator:
    shape = _BY_OPCODE.get(row.opcode)
    return Operator(_BY_IMMEDIATES[row.immediates] if shape is None else shape, opcode_bytes(row.opcode), row)


OPERATORS: Final[dict[str, Operator]] = {m: _operator(row) for m, row in BY_MNEMONIC.items()}
"""Every instruction of the text format by its mnemonic."""

SELECT_TYPED: Final = BY_OPCODE[Opcode.SELECT_TYPED]

VALUE_TYPE_WORDS: Final[dict[str, ValType]] = {
    "i32": I32,
    "i64": I64,
    "f32": F32,
    "f64": F64,
    "v128": V128,
    "funcref": FUNCREF,
    "externref": EXTERNREF,
}
HEAP_TYPES: Final[dict[str, ValType]] = {"func": FUNCREF, "extern": EXTERNREF}
"""Abstract heap types, as the type of nullable references to them."""
REFERENCE_WORDS: Final = frozenset({"funcref", "externref"})
"""The short names of reference types."""

_UNSUPPORTED_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(("any", "eq", "i31", "struct", "array", "none", "nofunc", "noextern"), features.GC_TYPES),
    **dict.fromkeys(("anyref", "eqref", "i31ref", "structref", "arrayref"), features.GC_TYPES),
    **dict.fromkeys(("nullref", "nullfuncref", "nullexternref", "i8", "i16"), features.GC_TYPES),
    **dict.fromkeys(("exn", "exnref", "noexn", "nullexnref"), features.EXCEPTIONS),
    **dict.fromkeys(("cont", "contref", "nocont", "nullcontref"), features.STACK_SWITCHING),
    **dict.fromkeys(("exact", "descriptor", "describes"), CUSTOM_DESCRIPTORS),
}

_UNSUPPORTED_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("throw", "throw_ref", "try_table"), features.EXCEPTIONS),
    **dict.fromkeys(("try", "catch", "catch_all", "delegate", "rethrow"), features.LEGACY_EXCEPTIONS),
    **dict.fromkeys(("ref.eq", "ref.test", "ref.cast", "ref.i31", "i31.get_s", "i31.get_u"), features.GC),
    **dict.fromkeys(("br_on_cast", "br_on_cast_fail"), features.GC),
    **dict.fromkeys(("any.convert_extern", "extern.convert_any"), features.GC),
    **dict.fromkeys(
        ("cont.new", "cont.bind", "suspend", "resume", "resume_throw", "resume_throw_ref", "switch"),
        features.STACK_SWITCHING,
    ),
}

_UNSUPPORTED_PATTERNS: Final = (
    (re.compile(r"(?:struct|array)\.[a-z_]+"), features.GC),
    (re.compile(r"(?:ref\.cast_desc|ref\.get_desc|br_on_cast_desc)[a-z_]*"), CUSTOM_DESCRIPTORS),
    (re.compile(r"(?:i32|i64|memory)\.atomic\.[a-z0-9_.]+|atomic\.fence"), features.THREADS),
)

KEYWORDS: Final = frozenset(
    [
        "after",
        "array",
        "before",
        "binary",
        "catch_all_ref",
        "catch_ref",
        "component",
        "data",
        "declare",
        "definition",
        "elem",
        "else",
        "export",
        "extern",
        "externref",
        "f32",
        "f32x4",
        "f64",
        "f64x2",
        "field",
        "final",
        "first",
        "func",
        "funcref",
        "get",
        "global",
        "i16x8",
        "i32",
        "i32x4",
        "i64",
        "i64x2",
        "i8x16",
        "import",
        "instance",
        "invoke",
        "item",
        "last",
        "local",
        "memory",
        "module",
        "mut",
        "nan:arithmetic",
        "nan:canonical",
        "null",
        "offset",
        "pagesize",
        "param",
        "quote",
        "rec",
        "ref",
        "register",
        "result",
        "shared",
        "start",
        "struct",
        "sub",
        "table",
        "tag",
        "then",
        "type",
        "v128",
    ]
)
"""Keywords that are neither instructions nor words of unimplemented proposals."""

_MEMARG: Final = re.compile(r"(?:offset|align)=(?:0x[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*|[0-9]+(?:_[0-9]+)*)")


def unsupported_operator(word: str) -> str | None:
    """The proposal that an instruction belongs to when it is one that this version does not implement."""
    feature = _UNSUPPORTED_WORDS.get(word)
    if feature is None:
        for pattern, name in _UNSUPPORTED_PATTERNS:
            if pattern.fullmatch(word):
                return name
    return feature


def unsupported_type(word: str) -> str | None:
    """The proposal that a type belongs to when it is one that this version does not implement."""
    return _UNSUPPORTED_TYPES.get(word)


def is_keyword(word: str) -> bool:
    """Whether any version of the text format gives the word a meaning. Others are reserved tokens (6.3.1)."""
    return (
        word in OPERATORS
        or word in KEYWORDS
        or word in _UNSUPPORTED_TYPES
        or unsupported_operator(word) is not None
        or _MEMARG.fullmatch(word) is not None
    )

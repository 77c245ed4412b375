"""Imports, exports and the modes of segments: the part of the module record (`syntax.module`, which shows these as its
own) that a compiled image carries too, so that a process that only maps one does not pay for the rest.
"""

from __future__ import annotations

from wasmforge.syntax.record import Enum, record
from wasmforge.syntax.types import ExternKind, GlobalType, MemoryType, TableType

__all__ = ["Export", "Import", "ImportType", "SegmentMode"]

ImportType = int | TableType | MemoryType | GlobalType
"""The type of an import: a function's is an index into `Module.types`."""


@record(frozen=True, slots=True)
class Import:
    module: str
    name: str
    kind: ExternKind
    type: ImportType
    offset: int = 0


@record(frozen=True, slots=True)
class Export:
    name: str
    kind: ExternKind
    index: int
    offset: int = 0


class SegmentMode(Enum):
    ACTIVE = "active"
    PASSIVE = "passive"
    DECLARATIVE = "declarative"

"""`syntax.record` does what `dataclasses` and `enum` do for the records and enumerations of this project, since type
checkers take it for those, and it imports neither, since it is on the path of every process.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import wasmforge
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.info import CodeRange
from wasmforge.syntax.module import Module, SegmentMode
from wasmforge.syntax.record import field, record
from wasmforge.syntax.types import I32, I64, ExternKind, FuncType, GlobalType, Limits


@record(slots=True)
class Open:
    first: int
    second: list[int] = field(default_factory=list)


def test_frozen_records_compare_and_hash_by_their_fields() -> None:
    assert FuncType((I32,), ()) == FuncType((I32,), ())
    assert FuncType((I32,), ()) != FuncType((I64,), ())
    assert hash(Limits(1, 2)) == hash(Limits(1, 2))
    assert Limits(1) != GlobalType(I32, False)
    assert Limits(1).__eq__(1) is NotImplemented


def test_frozen_records_cannot_change() -> None:
    limits = Limits(1, 2)
    with pytest.raises(AttributeError, match="'minimum'"):
        limits.minimum = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'maximum'"):
        del limits.maximum
    with pytest.raises(AttributeError):
        limits.other = 3  # type: ignore[attr-defined]
    assert limits == Limits(1, 2)


def test_open_records_change_and_have_no_hash() -> None:
    a, b = Open(1), Open(1)
    a.second.append(5)
    assert b.second == [], "a default is made anew for each record"
    a.first = 2
    assert a == Open(2, [5])
    with pytest.raises(TypeError):
        hash(a)
    with pytest.raises(AttributeError):
        a.third = 1  # type: ignore[attr-defined]


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(TypeError, match="'first' is missing"):
        Open()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="at most 2"):
        Open(1, [], 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'fourth'"):
        Open(1, fourth=4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'first'"):
        Open(1, first=4)  # type: ignore[misc]


def test_keywords_defaults_and_repr() -> None:
    assert Tunables(optimization="none").optimization == "none"
    assert Tunables().as_dict()["memory_guard_size"] == 32 << 20
    assert repr(Limits(minimum=1)) == "Limits(minimum=1, maximum=None)"
    assert FuncType.__match_args__ == ("params", "results")


def test_records_and_members_are_pickled_and_copied() -> None:
    module = Module(types=[FuncType((I32,), (I64,))], start=3)
    assert pickle.loads(pickle.dumps(module)) == module
    assert copy.deepcopy(module) == module
    assert copy.copy(module.types[0]) == module.types[0]
    for member in (*ExternKind, *SegmentMode):
        assert pickle.loads(pickle.dumps(member)) is member


def test_enumerations() -> None:
    assert [kind.name for kind in ExternKind] == ["FUNC", "TABLE", "MEMORY", "GLOBAL"]
    assert ExternKind(2) is ExternKind.MEMORY
    assert ExternKind.MEMORY == 2
    assert {2: "x"}[ExternKind.MEMORY] == "x"
    assert f"{ExternKind.MEMORY}" == "2"
    assert repr(ExternKind.MEMORY) == "<ExternKind.MEMORY: 2>"
    assert SegmentMode("active") is SegmentMode.ACTIVE
    assert SegmentMode.ACTIVE != "active"
    assert str(SegmentMode.ACTIVE) == "SegmentMode.ACTIVE"
    assert SegmentMode.ACTIVE in SegmentMode
    assert len(SegmentMode) == 3
    with pytest.raises(ValueError, match="9 is not a valid ExternKind"):
        ExternKind(9)
    assert SegmentMode["ACTIVE"] is SegmentMode.ACTIVE
    assert dict(SegmentMode.__members__) == {mode.name: mode for mode in SegmentMode}
    for name in ("active", "__doc__", "__str__"):
        with pytest.raises(KeyError, match=name):
            SegmentMode[name]
    with pytest.raises(TypeError, match="SegmentMode has members already"):
        SegmentMode("active", "passive")  # type: ignore[call-overload]


def test_named_tuples() -> None:
    code = CodeRange(length=2, start=1)
    assert code == (1, 2)
    assert (code.start, code.length, *code) == (1, 2, 1, 2)
    assert repr(code) == "CodeRange(start=1, length=2)"
    assert pickle.loads(pickle.dumps(code)) == code
    assert type(copy.copy(code)) is CodeRange
    for wrong in ({"start": 1}, {"start": 1, "length": 2, "end": 3}):
        with pytest.raises((TypeError, KeyError)):
            CodeRange(**wrong)


def test_the_heavy_modules_are_not_imported() -> None:
    # Without site (-S) nobody else imports them first; the package is then found by its path only.
    root = str(Path(wasmforge.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); import wasmforge.compiler.info, wasmforge.compiler.environ; "
    code += "print(*sys.modules)"
    output = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"dataclasses", "enum", "inspect", "re", "typing"} & set(output.split())

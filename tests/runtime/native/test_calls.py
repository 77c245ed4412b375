"""Python to wasm: the universal call wrapper (contract: arguments by type, messages, results, bit patterns)."""

from __future__ import annotations

import math
import random
import struct
import sys
import threading
from typing import Any

import pytest

from tests.runtime.native.fake import Store
from tests.runtime.native.guest import MANY_PARAMS, MIXED, SIGNATURES, code
from wasmforge.compiler.environ import CALL_FLAG_RAW, CALL_FLAG_RELEASE_GIL
from wasmforge.runtime.native import gates
from wasmforge.syntax.types import EXTERNREF, FUNCREF


def function(store: Store, name: str, flags: int = 0) -> Any:
    return store.function(name, SIGNATURES[name], flags)


class Index:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_no_parameters_no_results(store: Store) -> None:
    assert function(store, "nothing")() is None


@pytest.mark.parametrize("flags", [0, CALL_FLAG_RELEASE_GIL])
def test_i32_values(store: Store, flags: int) -> None:
    add = function(store, "add", flags)
    assert add(2, 3) == 5
    assert add(-1, 0) == -1
    assert add(2**32 - 1, 0) == -1
    assert add(2**31 - 1, 1) == -(2**31)
    assert add(-(2**31), 0) == -(2**31)
    assert add(True, True) == 2
    assert add(Index(40), Index(-1)) == 39


def test_i64_values(store: Store) -> None:
    add = function(store, "add64")
    assert add(2**63, 0) == -(2**63)
    assert add(2**64 - 1, 0) == -1
    assert add(-1, 0) == -1
    assert add(-(2**63), 0) == -(2**63)
    assert add(Index(2**64 - 1), Index(-1)) == -2
    assert add(Index(2**63 + 5), 0) == -(2**63) + 5


def test_float_values(store: Store) -> None:
    addf, addd = function(store, "addf"), function(store, "addF")
    assert addd(1.5, 2) == 3.5
    assert addd(-1.0, 0.0) == -1.0
    assert addd(-1, 0) == -1.0
    assert math.copysign(1, addd(-0.0, -0.0)) == -1
    assert addd(math.inf, 1) == math.inf
    assert math.isnan(addd(math.nan, 1))
    assert addf(0.1, 0) == struct.unpack("f", struct.pack("f", 0.1))[0]
    assert addf(1e300, 0) == math.inf
    assert addf(-1.0, 0.0) == -1.0
    assert addf(1e-45, 0) == struct.unpack("f", struct.pack("f", 1e-45))[0]

    class Real:
        def __float__(self) -> float:
            return 2.5

    assert addd(Real(), 0) == 2.5
    assert addf(Index(3), 0) == 3.0


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("add", (1,), TypeError, r"add\(\) takes 2 arguments \(1 given\)"),
        ("add", (1, 2, 3), TypeError, r"add\(\) takes 2 arguments \(3 given\)"),
        ("nothing", (1,), TypeError, r"nothing\(\) takes 0 arguments \(1 given\)"),
        ("same_r", (), TypeError, r"same_r\(\) takes 1 argument \(0 given\)"),
        ("add", (1, "x"), TypeError, r"add\(\) argument 2: expected i32, got str"),
        ("add", (None, 1), TypeError, r"add\(\) argument 1: expected i32, got NoneType"),
        ("add", (1.0, 1), TypeError, r"add\(\) argument 1: expected i32, got float"),
        ("add", (2**32, 1), OverflowError, r"add\(\) argument 1: out of range for i32"),
        ("add", (0, -(2**31) - 1), OverflowError, r"add\(\) argument 2: out of range for i32"),
        ("add", (2**200, 1), OverflowError, r"add\(\) argument 1: out of range for i32"),
        ("add64", (2**64, 1), OverflowError, r"add64\(\) argument 1: out of range for i64"),
        ("add64", (0, -(2**63) - 1), OverflowError, r"add64\(\) argument 2: out of range for i64"),
        ("add64", (0, Index(2**64)), OverflowError, r"add64\(\) argument 2: out of range for i64"),
        ("add64", (0.5, 1), TypeError, r"add64\(\) argument 1: expected i64, got float"),
        ("add64", (b"1", 1), TypeError, r"add64\(\) argument 1: expected i64, got bytes"),
        ("addf", ("1", 1), TypeError, r"addf\(\) argument 1: expected f32, got str"),
        ("addF", (1, 1j), TypeError, r"addF\(\) argument 2: expected f64, got complex"),
        ("addF", (1, 10**400), OverflowError, r"addF\(\) argument 2: out of range for f64"),
        ("add", (Index("no"), 1), TypeError, r"add\(\) argument 1: __index__ of the object does not give a number"),
        ("add", (Index(KeyError("mine")), 1), KeyError, "mine"),
    ],
)
def test_argument_errors_name_function_and_parameter(
    store: Store, name: str, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(store, name)(*arguments)


def test_the_conversions_own_type_error_is_the_cause(store: Store) -> None:
    with pytest.raises(TypeError, match=r"add\(\) argument 1: __index__ of the object") as caught:
        function(store, "add")(Index(TypeError("mine")), 1)
    assert repr(caught.value.__cause__) == "TypeError('mine')"
    assert caught.value.__cause__ is not None and caught.value.__cause__.__traceback__ is not None


def test_keyword_arguments_are_refused(store: Store) -> None:
    with pytest.raises(TypeError, match="keyword"):
        function(store, "add")(1, b=2)


def test_several_results_are_a_list(store: Store) -> None:
    assert function(store, "swap")(1, 2**40, 1.5, 2.5) == [2.5, 1.5, 2**40, 1]


def test_values_in_registers_and_areas_keep_their_places(store: Store) -> None:
    """Rules 2 to 4: more than 6 integers, more than 8 floats, references among them, more results than registers."""
    store_refs(store)
    mixed = function(store, "mixed")
    values: list[Any] = [i if letter in "iI" else i + 0.5 for i, letter in enumerate(MIXED[:-2])]
    assert mixed(*values, None, "object") == [*values, None, "object"]


def test_a_thousand_parameters_and_results(store: Store) -> None:
    rng = random.Random(1)
    many = function(store, "many")
    for _ in range(5):
        values = [
            {
                "i": rng.randrange(-(2**31), 2**31),
                "I": rng.randrange(-(2**63), 2**63),
                "f": float(i),
                "F": rng.random(),
            }[letter]
            for i, letter in enumerate(MANY_PARAMS)
        ]
        assert many(*values) == values
    with pytest.raises(TypeError, match=r"many\(\) argument 1000: expected f64, got str"):
        many(*values[:-1], "x")


def test_bit_patterns(store: Store) -> None:
    """CALL_FLAG_RAW: unsigned integers both ways, NaN payloads kept exactly."""
    raw = CALL_FLAG_RAW
    signalling = 0x7FA00001
    assert function(store, "swap", raw)(2**32 - 1, 2**64 - 1, signalling, 0xFFF0000000000001) == [
        0xFFF0000000000001,
        signalling,
        2**64 - 1,
        2**32 - 1,
    ]
    assert function(store, "same_x", raw)(0xFFFFFFFF) == 0xFFFFFFFF
    assert function(store, "same_r", raw)(0xFFFFFFFFFFFF) == 0xFFFFFFFFFFFF
    with pytest.raises(TypeError, match="expected f32, got float"):
        function(store, "addf", raw)(1.0, 2)
    with pytest.raises(OverflowError, match="f32"):
        function(store, "addf", raw)(2**32, 2)


def store_refs(store: Store) -> list[object]:
    """Hooks that map any object to a handle, as the runtime does for externref."""
    objects: list[object] = [None]

    def box(identity: int, kind: int, word: int) -> object:
        assert identity == 1
        return objects[word]

    def unbox(identity: int, kind: int, value: object) -> int:
        assert identity == 1
        if kind == FUNCREF:
            raise TypeError("not a function")
        assert kind == EXTERNREF
        objects.append(value)
        return len(objects) - 1

    gates().set_hooks(box_ref=box, unbox_ref=unbox)
    return objects


def test_references_go_through_the_hooks(store: Store) -> None:
    objects = store_refs(store)
    same = function(store, "same_x")
    thing = object()
    assert same(thing) is thing
    assert same(None) is None
    assert len(objects) == 2, "null does not reach the hook"
    with pytest.raises(TypeError, match=r"same_r\(\) argument 1: expected funcref, got int"):
        function(store, "same_r")(5)


def test_exceptions_of_reference_hooks_come_out(store: Store) -> None:
    def fail(*_: object) -> Any:
        raise LookupError("hook")

    store_refs(store)
    gates().set_hooks(unbox_ref=fail)
    with pytest.raises(LookupError, match="hook"):
        function(store, "same_x")(1)
    store_refs(store)
    gates().set_hooks(box_ref=fail)
    with pytest.raises(LookupError, match="hook"):
        function(store, "same_x")(1)
    with pytest.raises(LookupError, match="hook"):
        function(store, "mixed")(*[0] * (len(MIXED) - 2), None, 1)
    store_refs(store)
    gates().set_hooks(unbox_ref=lambda *_: -1)
    with pytest.raises(OverflowError):
        function(store, "same_x")(1)


def test_function_object(store: Store) -> None:
    owner = object()
    add = function(store, "add")
    assert add.__name__ == "add"
    assert add.__self__.owner is store
    other: Any = gates().make_callable("näme", int(add.__self__), owner, "näme($self, a, b, /)\n--\n\nAdds.")
    assert other(1, 2) == 3
    assert other.__name__ == "näme"
    assert other.__doc__ == "Adds."
    assert other.__text_signature__ == "($self, a, b, /)"


def test_calls_during_argument_conversion(store: Store) -> None:
    """`__index__` may call wasm of the same store: the arguments are not in a shared place yet."""
    add = function(store, "add")

    class Nested:
        def __index__(self) -> int:
            return int(add(10, 20))

    assert add(Nested(), Nested()) == 60


def test_four_threads_with_the_gil_released(store: Store) -> None:
    errors: list[object] = []

    def run(identity: int) -> None:
        mine = Store(code(), identity=identity)
        add = mine.function("add", SIGNATURES["add"], CALL_FLAG_RELEASE_GIL)
        errors.extend(i for i in range(20_000) if add(i, identity) != i + identity)
        assert mine.idle()
        mine.close()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_arguments_keep_their_reference_counts(store: Store) -> None:
    add, value = function(store, "add"), 123456789
    before = sys.getrefcount(value)
    for _ in range(100):
        add(value, value)
        with pytest.raises(TypeError):
            add(value, "x")
    assert sys.getrefcount(value) == before

"""Ints between Python and wasm: the gates look into ints of one digit and use their memory again (`boxing.py`).

Holds that no Python program can notice, at the limits of a digit, of i32 and of the small ints of CPython, and that the
way without that knowledge gives the same."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

import pytest

from tests.runtime.native.fake import Store, ft
from tests.runtime.native.guest import HOST
from wasmforge.runtime.native import gates
from wasmforge.runtime.native.emission import FREE_INTS
from wasmforge.runtime.native.objects import int_tags

I_I = ft("i", "i")

VALUES = sorted(
    {
        sign * value
        for limit in (0, 5, 256, 1 << 15, 1 << 30, 1 << 31)
        for value in (limit - 2, limit - 1, limit, limit + 1, limit + 2)
        for sign in (1, -1)
        if -(1 << 31) <= sign * value < 1 << 31
    }
)


@pytest.fixture(params=["known layout", "functions only"])
def layout(request: pytest.FixtureRequest) -> Iterator[None]:
    known = ctypes.c_uint32.from_address(gates()._image.address("int_layout"))
    before = known.value
    if request.param == "functions only":
        known.value = 0
    yield
    known.value = before


def test_this_interpreter_is_known() -> None:
    # A fact about CPython 3.11 to 3.13 with its lock; elsewhere the gates call CPython's functions.
    if sys.version_info < (3, 14):
        assert int_tags() is not None


@pytest.mark.usefixtures("layout")
def test_values_at_all_limits(store: Store) -> None:
    call = store.function("host_loop", I_I)
    for value in VALUES:
        seen: list[int] = []

        def host(x: int, value: int = value, seen: list[int] = seen) -> int:
            seen.append(x)
            return value

        store.set_import(0, host, HOST)
        # host_loop calls the host n times, with what the last call returned.
        assert call(3) == value
        assert seen[1:] == [value, value]


@pytest.mark.usefixtures("layout")
def test_kept_arguments_and_results_never_change(store: Store) -> None:
    kept: list[int] = []
    expected: list[int] = []

    def host(x: int) -> int:
        kept.append(x)
        expected.append(int(str(x)))
        result = x * 3 % 1_000_003 - 400_000
        if len(kept) % 3 == 0:
            kept.append(result)
            expected.append(int(str(result)))
        return result

    store.set_import(0, host, HOST)
    for _ in range(5):
        store.function("host_loop", I_I)(5 * FREE_INTS)
    assert kept == expected
    assert len({id(x) for x in kept}) >= len(set(expected))


@pytest.mark.usefixtures("layout")
def test_small_ints_stay_the_interpreters_own(store: Store) -> None:
    seen: list[int] = []

    def host(x: int) -> int:
        seen.append(x)
        return len(seen) % 200

    store.set_import(0, host, HOST)
    store.function("host_loop", I_I)(400)
    assert all(x is int(str(x)) for x in seen)  # -5 to 256 exist once
    assert (5).bit_length() == 3 and sum(range(257)) == 32896


@pytest.mark.usefixtures("layout")
def test_subclasses_and_index_still_convert(store: Store) -> None:
    class Number(int):
        pass

    class Index:
        def __index__(self) -> int:
            return 77_777

    call = store.function("host_loop", I_I)
    for given, expected in ((Number(70_000), 70_000), (True, 1), (False, 0), (Index(), 77_777)):
        store.set_import(0, lambda _, given=given: given, HOST)
        assert call(2) == expected
    store.set_import(0, lambda _: 2**32, HOST)
    with pytest.raises(OverflowError):
        call(1)

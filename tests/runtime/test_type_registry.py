"""The engine's type registry (tables A2-07, A3-05): equal types get one index, counted; a dropped collection frees its
indices for others; several threads may use it."""

from __future__ import annotations

import gc
import threading

import pytest

from wasmforge.runtime.type_registry import TypeCollection, TypeRegistry
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import F32, F64, I32, I64, FuncType, ValType, concrete_type

A = FuncType((I32,), ())
B = FuncType((), (I32,))
C = FuncType((I64, F32), (F64, F64))


def test_equal_types_have_one_index() -> None:
    registry = TypeRegistry()
    first = TypeCollection(registry, [A, B, A])
    second = TypeCollection(registry, [FuncType((), (I32,)), C])
    assert first.shared_type(0) == first.shared_type(2) != first.shared_type(1)
    assert second.shared_type(0) == first.shared_type(1)
    assert [registry.lookup(second.shared_type(k)) for k in range(2)] == [B, C]
    assert len(registry) == 3


def test_dropping_a_collection_unregisters_and_slots_are_reused() -> None:
    registry = TypeRegistry()
    first = TypeCollection(registry, [A, B])
    second = TypeCollection(registry, [B])
    index_of_a = first.shared_type(0)
    del first
    assert len(registry) == 1
    with pytest.raises(LookupError):
        registry.lookup(index_of_a)
    third = TypeCollection(registry, [C])
    assert third.shared_type(0) == index_of_a
    assert registry.lookup(second.shared_type(0)) == B


def test_machine_code_finds_the_indices_as_u32() -> None:
    registry = TypeRegistry()
    TypeCollection(registry, [A])
    types = TypeCollection(registry, [C, B, C])
    import ctypes

    array = (ctypes.c_uint32 * 3).from_address(types.type_ids_address)
    assert list(array) == [types.shared_type(k) for k in range(3)]
    TypeCollection(registry, [])  # an artifact without types has an address too


def test_collections_in_a_cycle_of_garbage_are_released_when_the_collection_is_over() -> None:
    """Attack: a finaliser in the same garbage registers types; it must not get the index that is still in use there."""
    registry = TypeRegistry()
    seen: list[int] = []

    class Attacker:
        def __del__(self) -> None:
            self.mine = TypeCollection(registry, [C])
            seen.append(self.mine.shared_type(0))

    holder: dict[str, object] = {"types": TypeCollection(registry, [A]), "attacker": Attacker()}
    holder["me"] = holder
    old = 0
    assert registry.lookup(old) == A
    del holder
    gc.collect()
    assert seen and seen[0] != old
    gc.collect()
    assert len(registry) == 0


def test_too_many_types_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmforge.runtime.type_registry.MAX_TYPES", 2)
    registry = TypeRegistry()
    one = TypeCollection(registry, [A])
    with pytest.raises(WasmtimeError, match="more than 2 different function types"):
        TypeCollection(registry, [A, B, C])
    assert len(registry) == 1
    two = TypeCollection(registry, [B])
    assert [registry.lookup(t.shared_type(0)) for t in (one, two)] == [A, B]


def test_threads() -> None:
    registry = TypeRegistry()
    types = [FuncType((I32,) * n, ()) for n in range(50)]
    keep = TypeCollection(registry, types[:10])
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(300):
                wanted = types[(n + seed) % 40 : (n + seed) % 40 + 10]
                collection = TypeCollection(registry, wanted)
                for k, t in enumerate(wanted):
                    assert registry.lookup(collection.shared_type(k)) == t
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(k * 7,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert len(registry) == 10
    assert [registry.lookup(keep.shared_type(k)) for k in range(10)] == types[:10]


def reference(index: int, null: bool = True) -> ValType:
    return concrete_type(index, null)


def test_recursive_groups_of_several_modules_are_one() -> None:
    """Types are equal when their groups are, references inside of a group compared by place (section 3.1.5)."""
    registry = TypeRegistry()
    pair = [FuncType((reference(1),), ()), FuncType((reference(0),), (I32,))]
    first = TypeCollection(registry, pair, [(0, 2)])
    # The same behind another type; and once more with the places exchanged, which is another group.
    moved = [FuncType((I32,), ()), FuncType((reference(2),), ()), FuncType((reference(1),), (I32,))]
    second = TypeCollection(registry, moved, [(1, 2)])
    third = TypeCollection(registry, [FuncType((reference(1),), (I32,)), FuncType((reference(0),), ())], [(0, 2)])
    assert [second.shared_type(1), second.shared_type(2)] == [first.shared_type(0), first.shared_type(1)]
    assert third.shared_type(0) != first.shared_type(1)
    assert first.function_type(0).params == (reference(first.shared_type(1)),)
    assert len(registry) == 5
    # A closed type is found again, and is no type of its own.
    again = TypeCollection(registry, (first.function_type(1),), closed=True)
    assert again.shared_type(0) == first.shared_type(1)
    del first, second, third, again
    assert len(registry) == 0


def test_a_type_keeps_those_that_it_names() -> None:
    registry = TypeRegistry()
    module = TypeCollection(registry, [FuncType((I32,), ()), FuncType((reference(0, False),), ())])
    named = module.shared_type(0)
    kept = TypeCollection(registry, (module.function_type(1),), closed=True)
    del module
    assert registry.lookup(named) == FuncType((I32,), ())
    del kept
    assert len(registry) == 0


def test_long_chains_of_types_go_without_recursion() -> None:
    """Threat: a module whose many types each name the one before."""
    registry = TypeRegistry()
    types = [FuncType((), ())] + [FuncType((reference(k),), ()) for k in range(20_000)]
    module = TypeCollection(registry, types)
    last = TypeCollection(registry, (module.function_type(20_000),), closed=True)
    del module
    assert len(registry) == 20_001
    del last
    assert len(registry) == 0

"""The gates of asynchronous calls: what `start`, `resume` and `throw` return and raise, what of wasm survives between
them, and what is refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.native.fake import Store, Trap, exceptions_seen, ft
from tests.runtime.native.guest import HOST, HOST_MANY, KEPT_SUM, MIXED, SIGNATURES, code
from wasmforge.compiler.environ import CALL_FLAG_RAW, CALL_FLAG_RELEASE_GIL, StoreContext
from wasmforge.compiler.trap import TrapKind
from wasmforge.runtime.native import gates
from wasmforge.runtime.native.misuse import BUSY, IN_NESTED_CALL, IN_SYNCHRONOUS_CALL, NO_ROOM, NOT_SUSPENDED

I_I = ft("i", "i")
misused: list[tuple[int, int, object]] = []


class Misuse(Exception):
    pass


class Awaitable:
    def __await__(self) -> Any:
        yield


def misuse(store: int, kind: int, awaitable: object) -> None:
    misused.append((store, kind, awaitable))
    raise Misuse(kind)


@pytest.fixture(autouse=True)
def hook() -> None:
    misused.clear()
    gates().set_hooks(on_async_misuse=misuse)


@pytest.fixture(params=[0, CALL_FLAG_RELEASE_GIL], ids=["held", "released"])
def flags(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_call_without_awaitables_gives_its_result_in_a_tuple(store: Store, flags: int) -> None:
    start, _, _ = store.async_function("add", ft("ii", "i"), flags)
    assert start(1, 2) == (3,)
    start, _, _ = store.async_function("nothing", ft("", ""), flags)
    assert start() == (None,)
    start, _, _ = store.async_function("swap", SIGNATURES["swap"], flags)
    assert start(1, 2, 0.5, 0.25) == ([0.25, 0.5, 2, 1],)
    values = [7000 + i if c in "iI" else i + 0.5 for i, c in enumerate(MIXED[:-2])]
    start, _, _ = store.async_function("mixed", SIGNATURES["mixed"], flags)
    assert start(*values, None, None) == ([*values, None, None],)
    start, _, _ = store.async_function("add", ft("ii", "i"), flags | CALL_FLAG_RAW)
    assert start(0xFFFFFFFF, 0) == (0xFFFFFFFF,)
    assert store.async_idle()


def test_a_thousand_parameters_and_results(store: Store, flags: int) -> None:
    values = [k if k % 4 < 2 else k + 0.5 for k in range(1000)]
    start, _, _ = store.async_function("many", SIGNATURES["many"], flags)
    assert start(*values) == (values,)


def test_a_host_function_that_waits(store: Store, flags: int) -> None:
    waiting = Awaitable()
    store.set_import(0, lambda x: waiting, HOST)
    references = sys.getrefcount(waiting)
    start, resume, _ = store.async_function("call_host", I_I, flags)
    plain = store.function("call_host", I_I)
    store.set_import(0, lambda x: 5, HOST)
    expected = plain(1)
    store.set_import(0, lambda x: waiting, HOST)
    assert start(1) is waiting
    assert not store.idle()
    assert resume(5) == (expected,)
    assert store.async_idle()
    assert sys.getrefcount(waiting) == references


def test_results_go_into_the_frames_that_were_left(store: Store, flags: int) -> None:
    values, results = (7, 8, 0.5, 0.25), (2.5, 1.5, 2, 1)
    store.set_import(1, lambda *_: results, HOST_MANY)
    expected = store.function("call_host_many", HOST_MANY)(*values)
    given = []

    def host(*arguments: object) -> Awaitable:
        given.append(arguments)
        return Awaitable()

    store.set_import(1, host, HOST_MANY)
    start, resume, _ = store.async_function("call_host_many", HOST_MANY, flags)
    assert type(start(*values)) is Awaitable
    assert resume(results) == (expected,)
    assert len(given) == 1


def test_registers_survive_where_a_builtin_that_keeps_them_waits(store: Store, flags: int) -> None:
    gates().set_builtin("new_epoch", lambda vmctx: Awaitable())
    start, resume, throw = store.async_function("keep", I_I, flags)
    assert type(start(1)) is Awaitable
    # Other code runs on this thread, with other values in the same registers.
    other = Store(code(), identity=2)
    other.set_import(0, lambda x: Awaitable(), HOST)
    inner, inner_resume, _ = other.async_function("call_host", I_I, flags)
    assert type(inner(3)) is Awaitable
    assert resume(None) == (KEPT_SUM,)
    inner_resume(3)
    assert type(start(1)) is Awaitable
    with pytest.raises(KeyError):
        throw(KeyError())
    other.close()


def test_an_exception_unwinds_with_all_frames(store: Store, flags: int) -> None:
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, _, throw = store.async_function("call_host", I_I, flags)
    start(1)
    error = KeyError("it")
    with pytest.raises(KeyError) as info:
        throw(error)
    assert info.value is error
    assert error.__context__ is None
    (_, seen, pcs, omitted) = exceptions_seen[0]
    assert seen is error
    assert omitted == 0
    assert "call_host" in [store.code.name(pc) for pc in pcs]
    assert store.async_idle()


def test_a_wrong_result_is_an_exception_of_the_call(store: Store, flags: int) -> None:
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, resume, _ = store.async_function("call_host", I_I, flags)
    for wrong, expected in (("text", TypeError), (1 << 40, OverflowError), (None, TypeError)):
        start(1)
        with pytest.raises(expected):
            resume(wrong)
        assert store.async_idle()


def test_without_an_owner_the_number_of_arguments_is_wrong(store: Store) -> None:
    start, _, _ = store.async_function("add", ft("ii", "i"))
    for arguments in ((), (1,), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match="takes 2 arguments"):
            start.func(*arguments)


def test_what_is_refused(store: Store) -> None:
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, resume, throw = store.async_function("call_host", I_I)
    plain = store.function("call_host", I_I)
    for attempt in (lambda: resume(1), lambda: throw(KeyError())):
        with pytest.raises(Misuse, match=str(NOT_SUSPENDED)):
            attempt()
    with pytest.raises(Misuse, match=str(IN_SYNCHRONOUS_CALL)):
        plain(1)
    assert isinstance(misused[-1][2], Awaitable)
    start(1)
    for again in (start, plain):
        with pytest.raises(Exception, match="suspended"):
            again(1)
    resume(1)
    store.set_import(0, lambda x: start(1), HOST)
    with pytest.raises(Misuse, match=str(BUSY)):
        plain(1)
    calls = []

    def nest(x: int) -> object:
        calls.append(x)
        return plain(1) if len(calls) == 1 else Awaitable()

    store.set_import(0, nest, HOST)
    with pytest.raises(Misuse, match=str(IN_NESTED_CALL)):
        start(1)
    assert store.async_idle()


def test_resuming_while_a_result_is_converted(store: Store) -> None:
    """Attack: `__index__` of the result resumes the same call, or enters the store."""
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, resume, throw = store.async_function("call_host", I_I)
    plain = store.function("add", ft("ii", "i"))
    refused = []

    class Index:
        def __index__(self) -> int:
            for attempt in (lambda: resume(1), lambda: throw(KeyError()), lambda: start(1), lambda: plain(1, 2)):
                with pytest.raises(Exception) as info:
                    attempt()
                refused.append(type(info.value))
            return 5

    start(1)
    assert type(resume(Index())) is tuple
    assert len(refused) == 4
    assert refused[:2] == [Misuse, Misuse]


def test_no_room_on_the_stack() -> None:
    small = Store(code(), stack_size=16384)
    start, _, _ = small.async_function("many", SIGNATURES["many"])
    with pytest.raises(Misuse, match=str(NO_ROOM)):
        start(*(k if k % 4 < 2 else k + 0.5 for k in range(1000)))
    assert small.async_idle()
    small.close()


def test_traps(store: Store, flags: int) -> None:
    start, _, _ = store.async_function("load", I_I, flags)
    with pytest.raises(Trap):
        start(-1)
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, _, _ = store.async_function("recurse100", I_I, flags)
    with pytest.raises(Trap) as info:
        start(100_000)
    assert info.value.kind == TrapKind.STACK_OVERFLOW
    assert store.async_idle()


def test_another_thread_resumes(store: Store, flags: int) -> None:
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, resume, throw = store.async_function("call_host", I_I, flags)
    outcomes: list[object] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            outcomes.append(action())
        except BaseException as error:
            outcomes.append(type(error))

    for action in (lambda: resume(5), lambda: throw(KeyError())):
        start(1)
        thread = threading.Thread(target=attempt, args=(action,))
        thread.start()
        thread.join()
        assert store.async_idle()
    assert type(outcomes[0]) is tuple
    assert outcomes[1] is KeyError
    assert store.function("add", ft("ii", "i"))(1, 2) == 3


def test_resuming_at_the_end_of_the_threads_stack(store: Store) -> None:
    """RecursionError, and the call is over."""
    store.set_import(0, lambda x: Awaitable(), HOST)
    start, resume, _ = store.async_function("call_host", I_I)
    start(1)
    limit = store.words[StoreContext.HOST_STACK_LIMIT // 8]
    store.words[StoreContext.HOST_STACK_LIMIT // 8] = (1 << 48) - 1
    with pytest.raises(RecursionError):
        resume(1)
    store.words[StoreContext.HOST_STACK_LIMIT // 8] = limit
    assert store.async_idle()


def test_nothing_leaks(store: Store, flags: int) -> None:
    waiting = Awaitable()
    store.set_import(0, lambda x: waiting, HOST)
    start, resume, throw = store.async_function("call_host", I_I, flags)
    result, error = 123456, KeyError()

    def once() -> None:
        start(1)
        resume(result)
        start(1)
        with pytest.raises(TypeError):
            resume("x")
        start(1)
        with pytest.raises(KeyError):
            throw(error)
        error.__traceback__ = None
        exceptions_seen.clear()

    once()
    counted = (waiting, result, error, resume)
    before = [sys.getrefcount(x) for x in counted]
    for _ in range(500):
        once()
    assert [sys.getrefcount(x) for x in counted] == before

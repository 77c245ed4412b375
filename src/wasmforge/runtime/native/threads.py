"""What a thread needs before wasm runs on it: an alternate signal stack, since the handler cannot run on an exhausted
wasm stack, and the limit of its own stack, so that deep recursion between wasm and Python raises RecursionError. The
entry gate calls `ThreadSetup.prepare` when it sees a store on a thread for the first time.

The alternate stack is freed by a destructor of thread-specific data, which runs for every thread however it was created
and ends. The destructor also changes `thread_generation`, because the next thread may get the same thread pointer
(glibc reuses stacks) without having an alternate stack.
"""

from __future__ import annotations

import _thread
import os

from wasmforge.compiler.environ import ASYNC_NONE, StoreContext
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Final

    from wasmforge.runtime.native.loader import MappedImage
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["HOST_STACK_RESERVE", "ThreadSetup", "ir"]

ALTERNATE_STACK_SIZE: Final = 65536
"""The kernel's frame takes up to 11 KB (AMX), our handler under 2 KB, faulthandler's dump some more."""

_PAGE: Final = 4096

HOST_STACK_RESERVE: Final = 256 * 1024
"""Bytes of the thread's stack that must be left when wasm is entered: for CPython, C extensions called by host
functions, and the 40 KB that an injected signal check takes.
"""

IR: Final = """
; The destructor of the thread-specific datum, whose value is the mapping of the alternate stack and its guard.
define hidden void @thread_exit(ptr %mapping) nounwind {
  %current = alloca [24 x i8], align 8
  %off = alloca [24 x i8], align 8
  call i32 @sigaltstack(ptr null, ptr %current)
  %base = load i64, ptr %current
  %mapping.word = ptrtoint ptr %mapping to i64
  %ours = add i64 %mapping.word, {page}
  %is.ours = icmp eq i64 %base, %ours
  br i1 %is.ours, label %disable, label %free
disable:
  store.field i64 0, ptr %off, 0
  store.field i64 2, ptr %off, 8           ; SS_DISABLE
  store.field i64 0, ptr %off, 16
  call i32 @sigaltstack(ptr %off, ptr null)
  br label %free
free:
  call i32 @munmap(ptr %mapping, i64 {mapping})
  %old = atomicrmw add ptr @thread_generation, i64 {generation} seq_cst
  ret void
}
"""

_GENERATION: Final = 1 << 48  # above the bits of a user-space address


def ir() -> str:
    """The thread exit destructor."""
    from wasmforge.runtime.native.emission import expand  # only when the gates are built

    text = IR.replace("{page}", str(_PAGE)).replace("{mapping}", str(_PAGE + ALTERNATE_STACK_SIZE))
    return expand(text.replace("{generation}", str(_GENERATION)))


def _main_thread() -> int:
    """The thread that runs Python's signal handlers: nearly always the process's first one, which has its number."""
    if _thread.get_native_id() == os.getpid():
        return _thread.get_ident()
    import threading  # 3 ms with what it imports

    return threading.main_thread().ident or 0


class ThreadSetup:
    """Prepares threads. Made by `Gates`."""

    def __init__(self, image: MappedImage) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._libc = libc
        libc.pthread_self.restype = ctypes.c_uint64
        libc.pthread_getspecific.restype = ctypes.c_void_p
        libc.pthread_getspecific.argtypes = (ctypes.c_uint,)
        libc.pthread_setspecific.argtypes = (ctypes.c_uint, ctypes.c_void_p)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        libc.sigaltstack.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        key = ctypes.c_uint()
        libc.pthread_key_create.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        if libc.pthread_key_create(ctypes.byref(key), image.address("thread_exit")) != 0:
            raise WasmtimeError("no thread-specific data key is left in this process")
        self._key = key.value
        self._main_thread = ctypes.c_uint64.from_address(image.address("main_thread"))
        self._main_thread.value = _main_thread()
        self._limits = _thread._local()

    def after_fork_in_child(self) -> None:
        """The forking thread is the child's main thread; its alternate stack was inherited."""
        self._main_thread.value = _thread.get_ident()

    def prepare(self, address: int) -> int:
        """Prepares the calling thread for wasm of the store context at `address`; 0 is no store, or one that its
        suspended call holds, which the thread is about to resume.

        Returns the value for HOST_STACK_LIMIT. Raises WasmtimeError when wasm of this store is active on another
        thread, or an asynchronous call suspended.
        """
        if address:
            self._check_idle(address)
        limit: int | None = getattr(self._limits, "value", None)
        if limit is None:
            self._install_alternate_stack()
            limit = self._limits.value = self._stack_limit()
        return limit

    @staticmethod
    def _check_idle(address: int) -> None:
        words = (ctypes.c_uint64 * (StoreContext.ASYNC_STATE // 8 + 1)).from_address(address)
        me = _thread.get_ident()  # pthread_self, which is the thread pointer on Linux x86-64
        active = words[StoreContext.HOST_SP // 8] != 0
        owner = words[StoreContext.THREAD // 8] & (_GENERATION - 1)
        if active and words[StoreContext.ASYNC_STATE // 8] != ASYNC_NONE:
            raise WasmtimeError(
                "the store is in use: an asynchronous call into it is suspended; await its end first, "
                "or use a store for each call"
            )
        if active and owner != me:
            raise WasmtimeError(
                "the store is in use: a call into it is running on another thread; use one store a thread, or a lock"
            )

    def _stack_limit(self) -> int:
        libc = self._libc
        attributes = ctypes.create_string_buffer(128)  # pthread_attr_t has 56 bytes
        base = ctypes.c_uint64()
        size = ctypes.c_uint64()
        if libc.pthread_getattr_np(ctypes.c_uint64(libc.pthread_self()), attributes) != 0:
            raise WasmtimeError("cannot find the bounds of the thread's stack")
        libc.pthread_attr_getstack(attributes, ctypes.byref(base), ctypes.byref(size))
        libc.pthread_attr_destroy(attributes)
        return base.value + min(HOST_STACK_RESERVE, size.value // 2)

    def _install_alternate_stack(self) -> None:
        """Gives the thread an alternate stack unless it has a large enough one, for instance faulthandler's."""
        libc = self._libc
        words = (ctypes.c_uint64 * 3)()
        libc.sigaltstack(None, words)
        enabled = words[1] & 2 == 0  # not SS_DISABLE
        if enabled and words[2] >= ALTERNATE_STACK_SIZE // 4:
            return
        mapping = libc.mmap(None, _PAGE + ALTERNATE_STACK_SIZE, 3, 0x22, -1, 0)
        if mapping is None or mapping == 2**64 - 1:
            raise WasmtimeError("no memory for an alternate signal stack")
        libc.mprotect(mapping, _PAGE, 0)
        words[:] = [mapping + _PAGE, 0, ALTERNATE_STACK_SIZE]
        if libc.sigaltstack(words, None) != 0:
            libc.munmap(mapping, _PAGE + ALTERNATE_STACK_SIZE)
            raise WasmtimeError(f"cannot install an alternate signal stack: error {ctypes.get_errno()}")
        libc.pthread_setspecific(self._key, mapping)

"""The whole text of the gates: the parts of all files of this room plus the declarations of what they call. `build.py`
compiles it; `loader.py` fills one slot for each name declared here.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native import (
    async_calls,
    boxing,
    calls,
    entry,
    exits,
    frames,
    host_calls,
    interrupts,
    raising,
    signals,
    threads,
    wasi_calls,
)

__all__ = ["DATA_IMPORTS", "FUNCTION_IMPORTS", "gates_ir"]

FUNCTION_IMPORTS: Final = {
    # CPython's stable ABI, and PyObject_Vectorcall (exported since 3.8, in the stable ABI since 3.12).
    "PyBuffer_Release": "void (ptr)",
    "PyBytes_FromStringAndSize": "ptr (ptr, i64)",
    "PyErr_CheckSignals": "i32 ()",
    "PyErr_Clear": "void ()",
    "PyErr_ExceptionMatches": "i32 (ptr)",
    "PyErr_Fetch": "void (ptr, ptr, ptr)",
    "PyErr_Format": "ptr (ptr, ptr, ...)",
    "PyErr_NormalizeException": "void (ptr, ptr, ptr)",
    "PyErr_Occurred": "ptr ()",
    "PyErr_Restore": "void (ptr, ptr, ptr)",
    "PyErr_SetObject": "void (ptr, ptr)",
    "PyErr_SetString": "void (ptr, ptr)",
    "PyEval_RestoreThread": "void (ptr)",
    "PyEval_SaveThread": "ptr ()",
    "PyException_SetCause": "void (ptr, ptr)",
    "PyException_SetContext": "void (ptr, ptr)",
    "PyException_SetTraceback": "i32 (ptr, ptr)",
    "PyFloat_AsDouble": "double (ptr)",
    "PyFloat_FromDouble": "ptr (double)",
    "PyList_New": "ptr (i64)",
    "PyList_SetItem": "i32 (ptr, i64, ptr)",
    "PyLong_AsLong": "i64 (ptr)",
    "PyLong_AsLongAndOverflow": "i64 (ptr, ptr)",
    "PyLong_AsUnsignedLong": "i64 (ptr)",
    "PyLong_AsUnsignedLongLongMask": "i64 (ptr)",
    "PyLong_AsVoidPtr": "ptr (ptr)",
    "PyLong_FromLong": "ptr (i64)",
    "PyLong_FromUnsignedLong": "ptr (i64)",
    "PyIndex_Check": "i32 (ptr)",
    "PyNumber_Index": "ptr (ptr)",
    "PyNumber_Lshift": "ptr (ptr, ptr)",
    "PyNumber_Or": "ptr (ptr, ptr)",
    "PyNumber_Rshift": "ptr (ptr, ptr)",
    "PyObject_GetBuffer": "i32 (ptr, ptr, i32)",
    "PyObject_HasAttrString": "i32 (ptr, ptr)",
    "PyObject_SetAttr": "i32 (ptr, ptr, ptr)",
    "PyObject_Type": "ptr (ptr)",
    "PyObject_Vectorcall": "ptr (ptr, ptr, i64, ptr)",
    "PySequence_Check": "i32 (ptr)",
    "PySequence_GetItem": "ptr (ptr, i64)",
    "PySequence_Size": "i64 (ptr)",
    "PyTuple_New": "ptr (i64)",
    "PyTuple_SetItem": "i32 (ptr, i64, ptr)",
    "PyType_GetName": "ptr (ptr)",
    "Py_DecRef": "void (ptr)",
    "Py_IncRef": "void (ptr)",
    # libc
    "clock_gettime": "i32 (i32, ptr)",
    "getrandom": "i64 (ptr, i64, i32)",
    "lseek": "i64 (i32, i64, i32)",
    "preadv": "i64 (i32, ptr, i32, i64)",
    "pwritev": "i64 (i32, ptr, i32, i64)",
    "readv": "i64 (i32, ptr, i32)",
    "writev": "i64 (i32, ptr, i32)",
    "memmove": "ptr (ptr, ptr, i64)",
    "memset": "ptr (ptr, i32, i64)",
    "munmap": "i32 (ptr, i64)",
    "pthread_kill": "i32 (i64, i32)",
    "pthread_sigmask": "i32 (i32, ptr, ptr)",
    "raise": "i32 (i32)",
    "sigaction": "i32 (i32, ptr, ptr)",
    "sigaltstack": "i32 (ptr, ptr)",
}

DATA_IMPORTS: Final = (
    "PyExc_OverflowError",
    "PyExc_RecursionError",
    "PyExc_RuntimeError",
    "PyExc_SystemError",
    "PyExc_TypeError",
    "PyLong_Type",
    "PyExc_ValueError",
    "_Py_NoneStruct",
)

HOOKS: Final = (
    "hook_on_first_trap",
    "hook_on_fault",
    "hook_on_exception",
    "hook_on_stop",
    "hook_on_async_misuse",
    "hook_new_thread",
    "hook_box_ref",
    "hook_unbox_ref",
    "hook_result_error",
)
"""Globals that hold the `PyObject *` of the runtime's callables; `Gates` keeps the references."""

ROOTS: Final = (
    "universal_call",
    "async_call",
    "async_resume",
    "async_throw",
    "hooks_lost",
    "host_call",
    "builtin_call",
    "check_signals",
    "explain_out_of_order",
    "inject_body",
    "unwind",
    "record_at_entry",
    "on_fault",
    "on_interrupt",
    "on_stop",
    "thread_exit",
    *(f"wasi_{name}_body" for name in wasi_calls.STUBS),
)
"""Functions that only assembly or the loader refers to."""


def _declarations() -> str:
    out = []
    for name, signature in FUNCTION_IMPORTS.items():
        result, parameters = signature.split(" ", 1)
        # nonlazybind: call through the slot that the linker makes, not through a procedure linkage table.
        out.append(f"declare {result} @{name}{parameters} nonlazybind nounwind")
    out.extend(f"@{name} = external global ptr" for name in DATA_IMPORTS)
    out.extend(f"@{name} = hidden global ptr null" for name in HOOKS)
    roots = ", ".join(f"ptr @{name}" for name in ROOTS)
    out.append(f'@llvm.used = appending global [{len(ROOTS)} x ptr] [{roots}], section "llvm.metadata"')
    return "\n".join(out) + "\n"


def gates_ir() -> str:
    """The module that the gates' image is compiled from."""
    parts = [
        'target triple = "x86_64-unknown-linux-gnu"\n',
        _declarations(),
        frames.ir(),
        boxing.ir(),
        entry.ir(),
        exits.ir(),
        host_calls.ir(),
        calls.ir(),
        raising.ir(),
        async_calls.ir(),
        signals.ir(),
        interrupts.ir(),
        threads.ir(),
        wasi_calls.ir(),
    ]
    text = "".join(parts) + METADATA
    # Metadata attached to instructions has numbers, which would make poor reading in the parts.
    return text.replace("!prof !likely", "!prof !0").replace("!prof !unlikely", "!prof !1")


METADATA: Final = """!0 = !{!"branch_weights", i32 2000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 2000}
!2 = !{i32 7, !"RtLibUseGOT", i32 1}
!llvm.module.flags = !{!2}
"""

"""The one lock of the runtime's process-wide tables: types, code ranges, memory ranges, stacks, memory images.

One lock, because a garbage collection may start while it is held and run finalisers that change any other of these
tables: with a lock a table, two threads took two of them in opposite orders and waited for each other for ever. It
is reentrant for the same reason. Held for microseconds, never across Python code of the embedder other than finalisers.
"""

import _thread
import os

__all__ = ["LOCK"]

LOCK = _thread.RLock()

# A child of fork has one thread, and another thread of the parent may have held the lock.
os.register_at_fork(after_in_child=LOCK._at_fork_reinit)  # type: ignore[attr-defined]

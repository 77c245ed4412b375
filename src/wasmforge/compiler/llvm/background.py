"""LLVM in the background: one worker process that compiles groups of hot functions while the program runs. The tier-up
of lazily compiled modules submits groups and asks, whenever it gets the chance, what has come of them.

Nothing here ever waits: the pipes do not block, and a program that never asks again only keeps an idle process. The
process ends with ours, however that happens, because its standard input does (`worker._watch`). Whatever goes wrong
with it costs speed only: the functions stay in the code that they have.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import time
import zlib
from typing import Any, Final

from wasmforge.compiler.llvm.context import BACKGROUND
from wasmforge.compiler.llvm.pool import REPLY_HEADER, Chunk, encode_request, start_process

__all__ = ["BackgroundCompiler", "background_compiler"]

SECONDS: Final = 30.0
SECONDS_PER_INSTRUCTION: Final = 0.002
"""Of the clock, until a worker that has not answered is given up. It limits its own processor time to a quarter of
that; the rest is for machines that are busy with something else, since it runs at low priority."""

MAX_FAILURES: Final = 3
"""Workers in a row that failed without a single success, after which no other is started."""

REPLY_LIMIT: Final = 256 << 20
"""Bytes. Threat: a length that the worker did not mean would have us collect without end."""

_READ: Final = 1 << 18
_F_SETPIPE_SZ: Final = 1031
_PIPE_SIZE: Final = 1 << 20


class BackgroundCompiler:
    """One group at a time; `submit` when `is_idle`. Not for several threads at once."""

    def __init__(self) -> None:
        self._process: Any = None  # subprocess.Popen
        self._module = 0  # whose context the worker has
        self._unsent = b""
        self._received = bytearray()
        self._deadline = 0.0
        self._busy = False
        self._failures = 0

    @property
    def is_idle(self) -> bool:
        """Whether it takes a group now."""
        return not self._busy and not self.is_disabled

    @property
    def is_disabled(self) -> bool:
        """Whether it will never take a group again, because workers do not work here."""
        return self._failures >= MAX_FAILURES

    def submit(self, module: int, context: bytes, chunk: Chunk) -> bool:
        """Hands a group over; False if that was not possible. `module` is a number that stands for `context`."""
        assert self.is_idle
        try:
            if self._process is None or self._process.poll() is not None:
                self._start()
            known = self._module == module
            self._unsent = encode_request(module, None if known else context, chunk, chunk.pipeline, slots=True)
            self._module = module
            self._busy = True
            self._deadline = time.monotonic() + SECONDS + SECONDS_PER_INSTRUCTION * chunk.instructions
            self._send()
        except OSError:  # no process, no memory, or it died just now
            self._fail()
            return False
        return True

    def poll(self) -> tuple[dict[str, Any] | None] | None:
        """What has come of the group that was submitted: None while it is being compiled, else the reply, or None
        in its place when it failed. Takes a few microseconds."""
        if not self._busy:
            return None
        try:
            self._send()
            data = self._receive()
        except OSError:
            return self._fail()
        if data is None:
            return self._fail() if time.monotonic() > self._deadline else None
        self._busy = False
        try:
            reply = marshal.loads(data)
        except (EOFError, ValueError, TypeError):
            return self._fail()
        if not isinstance(reply, dict):
            return self._fail()
        self._failures = 0
        return (None if "error" in reply else reply,)

    def close(self) -> None:
        """Ends the worker and reaps it."""
        process, self._process = self._process, None
        self._busy = False
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                stream.close()
            process.wait()

    def forget(self) -> None:
        """In a child made by fork: the worker belongs to the parent, and would live as long as we if we kept its
        pipe."""
        process, self._process = self._process, None
        self._busy = False
        self._failures = 0
        if process is not None:
            process.returncode = 0  # not ours to wait for
            for stream in (process.stdin, process.stdout):
                stream.close()

    # --- The process --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.close()
        self._module = 0
        self._unsent = b""
        self._received.clear()
        process = start_process(BACKGROUND)
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
            _enlarge(stream.fileno())

    def _fail(self) -> tuple[None]:
        self._failures += 1
        self.close()
        return (None,)

    def _send(self) -> None:
        while self._unsent:
            try:
                sent = os.write(self._process.stdin.fileno(), self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]

    def _receive(self) -> bytes | None:
        """The bytes of a whole reply, None while there is none. Raises OSError when there will be none."""
        received = self._received
        while True:
            try:
                piece = os.read(self._process.stdout.fileno(), _READ)
            except BlockingIOError:
                return None
            if not piece:
                raise OSError("the worker is gone")
            received += piece
            if len(received) < REPLY_HEADER:
                continue
            size = int.from_bytes(received[:4], "little")
            # Threat: what a worker writes that was killed half-way, or has gone mad, is not code. `marshal` must not
            # even see it, since it is not made for garbage.
            if size > REPLY_LIMIT or len(received) > REPLY_HEADER + size:
                raise OSError("the worker writes garbage")
            if len(received) == REPLY_HEADER + size:
                data = bytes(received[REPLY_HEADER:])
                if zlib.crc32(data) != int.from_bytes(received[4:REPLY_HEADER], "little"):
                    raise OSError("the worker writes garbage")
                received.clear()
                return data


def _enlarge(fd: int) -> None:
    """A context of a large module is 100 KB: it should pass at once."""
    import fcntl

    with contextlib.suppress(OSError):  # over the user's limit: it passes in pieces
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)


_compiler: Final = BackgroundCompiler()
atexit.register(_compiler.close)
os.register_at_fork(after_in_child=_compiler.forget)


def background_compiler() -> BackgroundCompiler:
    """The one of this process."""
    return _compiler

"""The pool of worker processes that run LLVM.

LLVM runs in child processes because it ends its process when it meets something that it cannot handle, because
llvmlite holds one lock around every call, and because a process that only loads images never needs it.
Workers start when the first module is compiled and stay for later ones. Several threads may compile at once.

A worker ends when its standard input ends, so none outlives this process; it has a process group of its own, so
Ctrl-C reaches only us, and then we kill what is still working for the interrupted compilation.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Final, NamedTuple

from wasmforge.syntax.errors import WasmtimeError

__all__ = [
    "REPLY_HEADER",
    "Chunk",
    "compile_chunks",
    "default_workers",
    "encode_request",
    "next_module",
    "start_process",
]

_RETRY_PIPELINE: Final = "fast"


class Chunk(NamedTuple):
    """A piece of work: `functions` are (index, locals, body, position in the binary), `trampolines` (kind, type
    index); `pipeline` as in `codegen.compile_ir`; `instructions` is the size of the work, for progress and limits.
    `ir` is the LLVM IR of all that if the worker is not to make it itself (`annotate`)."""

    functions: list[tuple[int, tuple[tuple[int, int], ...], bytes, int]]
    trampolines: list[tuple[str, int]]
    pipeline: str
    instructions: int
    ir: str = ""


REPLY_HEADER: Final = 8
"""Bytes: the length of what follows, and its CRC-32."""


def start_process(*arguments: str) -> subprocess.Popen[bytes]:
    """A worker process, with pipes to its standard input and output."""
    environment = dict(os.environ)
    # The child finds the same packages as we do. Threat: `-P` keeps the current directory, which an attacker may
    # be able to write to, out of its path; so is the empty entry that stands for it.
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "wasmforge.compiler.llvm.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if "WASMFORGE_LOG" in os.environ else subprocess.DEVNULL,
        env=environment,
        process_group=0,
    )


def encode_request(module: int, context: bytes | None, chunk: Chunk, pipeline: str, slots: bool = False) -> bytes:
    """The bytes that ask a worker for a chunk. `context` is None for a worker that has the module's. With `slots`,
    functions of other chunks are called through their code pointer slots."""
    request: dict[str, Any] = {
        "module": module,
        "functions": chunk.functions,
        "trampolines": chunk.trampolines,
        "pipeline": pipeline,
        "instructions": chunk.instructions,
        "slots": slots,
        "ir": chunk.ir,
    }
    if context is not None:
        request["context"] = context
    data = marshal.dumps(request)
    return len(data).to_bytes(4, "little") + data


class _WorkerDiedError(Exception):
    """The process ended before it had answered; `status` is its return code (negative: a signal)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Worker:
    def __init__(self) -> None:
        self.process = start_process()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input: IO[bytes] = self.process.stdin
        self.output: IO[bytes] = self.process.stdout
        self.module: int | None = None  # whose context it holds

    def send(self, module: int, context: bytes, chunk: Chunk, pipeline: str) -> None:
        data = encode_request(module, None if self.module == module else context, chunk, pipeline)
        self.module = module
        try:
            self.input.write(data)
            self.input.flush()
        except OSError:
            raise self.died() from None

    def receive(self) -> dict[str, Any]:
        header = self.output.read(REPLY_HEADER)
        if len(header) == REPLY_HEADER:
            size = int.from_bytes(header[:4], "little")
            data = self.output.read(size)
            if len(data) == size:
                reply: dict[str, Any] = marshal.loads(data)
                return reply
        raise self.died()

    def died(self) -> _WorkerDiedError:
        self.end()
        return _WorkerDiedError(self.process.returncode)

    def end(self) -> None:
        """Ends the process and reaps it."""
        self.process.kill()
        self.close()
        self.process.wait()

    def close(self) -> None:
        """Closes our ends of the pipes."""
        for stream in (self.input, self.output):
            with contextlib.suppress(OSError):  # unsent data for a process that is gone
                stream.close()


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[_Worker] = []
        self.all: set[_Worker] = set()
        self.modules = 0

    def next_module(self) -> int:
        with self.lock:
            self.modules += 1
            return self.modules

    def acquire(self, limit: int) -> _Worker | None:
        """An idle worker, or a new one if fewer than `limit` exist."""
        with self.lock:
            while self.idle:
                worker = self.idle.pop()
                if worker.process.poll() is None:
                    return worker
                worker.close()  # it was idle for too long, or somebody killed it
                self.all.discard(worker)
            if len(self.all) >= limit:
                return None
            worker = _Worker()
            self.all.add(worker)
            return worker

    def release(self, worker: _Worker) -> None:
        with self.lock:
            self.idle.append(worker)

    def discard(self, worker: _Worker) -> None:
        worker.end()
        with self.lock:
            self.all.discard(worker)

    def end_all(self) -> None:
        for worker in list(self.all):
            worker.end()
        self.all.clear()
        self.idle.clear()

    def forget(self) -> None:
        """In a child made by os.fork: the workers belong to the parent. Without closing the pipes here, they would
        live as long as this process does."""
        for worker in self.all:
            worker.process.returncode = 0  # not ours to wait for
            os.close(worker.input.fileno())
            os.close(worker.output.fileno())
        self.__init__()  # type: ignore[misc]


_pool: Final = _Pool()
atexit.register(_pool.end_all)
os.register_at_fork(after_in_child=_pool.forget)


def next_module() -> int:
    """A number for a module's context, by which workers know it again."""
    return _pool.next_module()


def default_workers() -> int:
    """How many processes a compilation uses if nobody says otherwise: one a processor that we may run on."""
    return len(os.sched_getaffinity(0))


def compile_chunks(
    chunks: list[Chunk], context: bytes, workers: int, progress: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    """Compiles chunks in parallel and returns the workers' replies in the order of `chunks`.

    `progress` is called with the instructions compiled so far and in all. A chunk whose worker dies is tried once
    more, with the pipeline that asks least of LLVM if LLVM ended the process or took too long. Raises `WasmtimeError`
    when that fails too, or for an error that the worker reports. Whatever is raised, no worker is left busy.
    """
    return _Compilation(chunks, context, progress).run(max(1, min(workers, len(chunks))))


class _Compilation:
    def __init__(self, chunks: list[Chunk], context: bytes, progress: Callable[[int, int], None] | None) -> None:
        self.chunks = chunks
        self.context = context
        self.progress = progress
        self.module = _pool.next_module()
        self.replies: list[dict[str, Any] | None] = [None] * len(chunks)
        # The largest first, so that no processor waits at the end for a giant that came last.
        self.waiting = sorted(range(len(chunks)), key=lambda k: (chunks[k].instructions, -k))
        self.pipelines = [c.pipeline for c in chunks]
        self.retried: set[int] = set()
        self.busy: dict[_Worker, int] = {}
        self.done = 0
        self.total = sum(c.instructions for c in chunks)

    def run(self, workers: int) -> list[dict[str, Any]]:
        selector = selectors.DefaultSelector()
        try:
            while self.waiting or self.busy:
                while self.waiting and len(self.busy) < workers:
                    # Each compilation gets one worker at least, however many there are: none waits for another.
                    worker = _pool.acquire(1 << 30 if not self.busy else workers)
                    if worker is None:
                        break
                    self.start(worker, selector)
                for key, _ in selector.select():
                    self.finish(key.data, selector)
        finally:
            selector.close()
            for worker in self.busy:  # interrupted: they compile what nobody wants any more
                _pool.discard(worker)
        return [r for r in self.replies if r is not None]

    def start(self, worker: _Worker, selector: selectors.BaseSelector) -> None:
        k = self.waiting.pop()
        self.busy[worker] = k
        try:
            worker.send(self.module, self.context, self.chunks[k], self.pipelines[k])
        except _WorkerDiedError as e:
            self.retry(worker, k, e.status)
            return
        selector.register(worker.output, selectors.EVENT_READ, worker)

    def finish(self, worker: _Worker, selector: selectors.BaseSelector) -> None:
        k = self.busy[worker]
        selector.unregister(worker.output)
        try:
            reply = worker.receive()
        except _WorkerDiedError as e:
            self.retry(worker, k, e.status)
            return
        del self.busy[worker]
        _pool.release(worker)
        if "error" in reply:
            raise WasmtimeError(reply["error"])
        self.replies[k] = reply
        self.done += self.chunks[k].instructions
        if self.progress is not None:
            self.progress(self.done, self.total)

    def retry(self, worker: _Worker, k: int, status: int) -> None:
        del self.busy[worker]
        _pool.discard(worker)
        killed = status in (0, -signal.SIGKILL, -signal.SIGTERM)  # by something outside; all else would happen again
        if k in self.retried or (not killed and self.pipelines[k] == _RETRY_PIPELINE):
            indices = [f[0] for f in self.chunks[k].functions]
            what = f"functions {indices[0]} to {indices[-1]}" if indices else "trampolines"
            raise WasmtimeError(
                f"LLVM could not compile {what} ({_describe(status)}): they may be too complex, or memory short"
            )
        self.retried.add(k)
        if not killed:
            self.pipelines[k] = _RETRY_PIPELINE
        self.waiting.append(k)


def _describe(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "out of processor time"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"

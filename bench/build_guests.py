"""Build the guests of bench/guests with the C compiler of PyPI's ziglang, for wasm32-wasi and for this machine.

`python bench/build_guests.py [NAME...]` builds what is out of date into bench/build. The benchmark and tests/guests
call `build`. The wasm programs use WebAssembly 2.0, and vectors only where these are what they are about. Both builds
round every floating-point operation on its own (no fused multiply-add), so that all of them print the same bytes.
Native code is made for the processor of this machine, vector units included (the default of zig's compiler): the bound
that a machine without a sandbox reaches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # started as a script: make `bench` importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.catalogue import BENCH, BUILD, GUESTS, VECTOR_GUESTS, Guest

COMMON: Final = ("-O2", "-std=c17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-s")
# A shadow stack of 1 MiB: the recursion of the guests is bounded, but deeper than the default of the linker allows for.
WASM: Final = ("--target=wasm32-wasi", "-Wl,-z,stack-size=1048576")
SIMD: Final = ("-msimd128",)
NATIVE: Final = ("-lm",)
ZIG_CACHE: Final = BENCH.parent / ".cache" / "zig"


class BuildError(Exception):
    """A guest cannot be built; the message is the compiler's or says which package is missing."""


def compiler_missing() -> str | None:
    """None when ziglang is installed, else a sentence that says how to get it (used as the reason of skipped tests)."""
    if util.find_spec("ziglang") is not None:
        return None
    return "the PyPI package ziglang is not installed: pip install 'wasmforge[bench]'"


def _command(source: Path, flags: Sequence[str], output: Path) -> list[str]:
    return [sys.executable, "-m", "ziglang", "cc", *COMMON, *flags, "-o", str(output), str(source)]


def _stamp(source: Path, flags: Sequence[str]) -> str:
    """Everything that the output depends on: the text of the source, the flags and the version of the compiler."""
    headers = [path.read_text(encoding="utf-8") for path in sorted(source.parent.glob("*.h"))]
    key = json.dumps([source.read_text(encoding="utf-8"), headers, COMMON, flags, metadata.version("ziglang")])
    return hashlib.sha256(key.encode()).hexdigest()


def compile_c(source: Path, output: Path, flags: Sequence[str] = WASM, *, force: bool = False) -> bool:
    """Compile one C file unless `output` is current. Returns whether the compiler ran; raises BuildError."""
    missing = compiler_missing()
    if missing:
        raise BuildError(missing)
    stamp_file = output.with_name(output.name + ".stamp")
    stamp = _stamp(source, flags)
    if not force and output.exists() and stamp_file.exists() and stamp_file.read_text() == stamp:
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(ZIG_CACHE / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(ZIG_CACHE / "local"),
    }
    # Written beside and renamed: tests in several processes may build the same guest at the same time.
    temporary = output.with_name(f"{output.name}.{os.getpid()}")
    result = subprocess.run(
        _command(source, flags, temporary), capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode != 0:
        temporary.unlink(missing_ok=True)
        raise BuildError(f"{source.name}: {result.stderr.strip() or result.stdout.strip()}")
    temporary.replace(output)
    stamp_file.write_text(stamp)
    return True


def build(
    guests: Iterable[Guest] = GUESTS, *, native: bool = True, force: bool = False, workers: int = 2
) -> list[Path]:
    """Bring the given guests up to date, two compilers at a time. Returns the files written; raises BuildError."""
    jobs: list[tuple[Path, Path, Sequence[str]]] = []
    for guest in guests:
        jobs.append((guest.source, guest.wasm, (*WASM, *SIMD) if guest.vectors else WASM))
        if native:
            jobs.append((guest.source, guest.native, NATIVE))
    with ThreadPoolExecutor(workers) as pool:
        ran = pool.map(lambda job: compile_c(job[0], job[1], job[2], force=force), jobs)
        return [job[1] for job, did in zip(jobs, ran, strict=True) if did]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="build_guests.py", description="Build the guests of the benchmark.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="guests to build (default: all)")
    parser.add_argument("--force", action="store_true", help="build even what is up to date")
    parser.add_argument("--no-native", action="store_true", help="only the wasm programs")
    options = parser.parse_args(arguments)
    every = (*GUESTS, *VECTOR_GUESTS)
    unknown = set(options.names) - {guest.name for guest in every}
    if unknown:
        parser.error(f"unknown guests: {', '.join(sorted(unknown))}; there are {', '.join(g.name for g in every)}")
    guests = [guest for guest in every if not options.names or guest.name in options.names]
    try:
        written = build(guests, native=not options.no_native, force=options.force)
    except BuildError as error:
        print(f"build_guests.py: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"{path.relative_to(BUILD.parent.parent)}  {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

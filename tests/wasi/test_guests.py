"""CPython and QuickJS for WASI, large programs that nobody wrote for this project: they import their libraries, read
and write files, exit with their codes, and print what they print under the wasmtime package, byte for byte. `make
guests` fetches them.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from bench.fetch_guests import fetched

import wasmforge
from tests.wasi.suite import REPOSITORY, _engine, compiled
from wasmforge import MemoryDirectory, TimeoutExpired

NAMES = ("python", "quickjs")
pytestmark = pytest.mark.skipif(
    any(fetched(f"{name}.wasm") is None for name in NAMES), reason="no CPython and QuickJS for WASI: run `make guests`"
)

LIBRARY = """
import ast, base64, collections, csv, datetime, decimal, difflib, fractions, hashlib, heapq, io, itertools, json, math
import random, re, statistics, struct, textwrap, unicodedata, zlib
print(json.dumps({"a": [1, 2.5, None], "b": "äöü"}, sort_keys=True))
print(re.findall(r"(\\w+)@(\\w+)", "me@here you@there"))
print(hashlib.sha256(b"x" * 1000).hexdigest(), zlib.crc32(b"abc"), base64.b64encode(bytes(range(20))))
print(decimal.Decimal(2).sqrt(), fractions.Fraction(1, 3) + 1, math.factorial(50), 2 ** 0.5, 1e300 * 1e10)
print(datetime.date(2024, 2, 29).strftime("%A %d %B %Y"), statistics.stdev([1, 2, 4]))
print(textwrap.fill("the quick brown fox " * 6, 30))
print(random.Random(1).random(), unicodedata.name("ß"), ast.dump(ast.parse("a + 1")))
print(sorted(collections.Counter("mississippi").items()), heapq.nsmallest(3, [5, 1, 4, 2]))
class Node:
    def __init__(self, depth): self.child = Node(depth - 1) if depth else None
try:
    def f(): f()
    f()
except RecursionError as error:
    print(type(error).__name__)
print(len(repr(Node(50))) > 0, sum(i * i for i in range(20000)))
"""

FILES = """
import os, pathlib, shutil, sys, tempfile
root = pathlib.Path("/work")
print(sorted(p.name for p in root.iterdir()))
print((root / "in.txt").read_text())
(root / "a" / "b").mkdir(parents=True)
(root / "a" / "b" / "out.bin").write_bytes(bytes(range(256)) * 100)
with open(root / "lines", "w+") as file:
    file.writelines(f"{i}\\n" for i in range(1000))
    file.seek(10)
    print(file.readline(), file.tell())
    file.truncate(100)
os.rename(root / "lines", root / "a" / "moved")
os.symlink("moved", root / "a" / "link")
print(os.readlink(root / "a" / "link"), os.stat(root / "a" / "link").st_size, os.lstat(root / "a" / "link").st_size)
print([(r, sorted(d), sorted(f)) for r, d, f in os.walk(root)])
for path in ("/work/nothing", "/etc/passwd", "/work/../../etc/passwd"):
    try:
        open(path)
    except OSError as error:
        print(path, error.errno, error.strerror)
shutil.rmtree(root / "a")
os.utime(root / "in.txt", (1, 2))
print(os.stat(root / "in.txt").st_mtime, sorted(os.listdir(root)))
print(sys.stdin.read().upper(), os.environ["NAME"], sys.argv)
sys.stderr.write("an error\\n")
sys.exit(42)
"""

SCRIPT = """
console.log(JSON.stringify({a: [1, 2.5, 'x']}), 0.1 + 0.2, 2n ** 100n, [3, 1, 2].sort(), /a+/.exec('baab'));
let m = new Map(); for (let i = 0; i < 20000; i++) m.set(i, i * i); console.log(m.get(777), Math.sqrt(2));
console.log([...'äöü'].map(c => c.codePointAt(0)), new Date(0).toISOString());
"""

PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "python, the library": ("python", ["-c", LIBRARY]),
    "python, files": ("python", ["-c", FILES, "one", "two"]),
    "python, an exception": ("python", ["-c", "def f():\n    return 1 / 0\nf()"]),
    "python, a syntax error": ("python", ["-c", "def f(:"]),
    "quickjs": ("quickjs", ["-e", SCRIPT]),
    "quickjs, an exception": ("quickjs", ["-e", "throw new Error('thrown')"]),
}


def program(name: str) -> Path:
    path = fetched(f"{name}.wasm")
    assert path is not None
    return path


def module(name: str) -> Any:
    return compiled(_engine("baseline"), program(name), "baseline")


@cache
def _package_module(name: str) -> tuple[Any, Any]:
    """The program compiled by the wasmtime package, which takes it many seconds the first time."""
    import wasmtime

    engine = wasmtime.Engine()
    key = hashlib.sha256(program(name).read_bytes()).hexdigest()[:16]
    image = REPOSITORY / ".cache" / "wasi-suite" / f"{key}-wasmtime-42.cwasm"
    if image.exists():
        return engine, wasmtime.Module.deserialize_file(engine, str(image))
    found = wasmtime.Module.from_file(engine, str(program(name)))
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(found.serialize())
    return engine, found


def run_with_package(name: str, arguments: list[str], folder: Path) -> tuple[int, bytes, bytes]:
    import wasmtime

    engine, found = _package_module(name)
    store = wasmtime.Store(engine)
    config = wasmtime.WasiConfig()
    config.argv = [name, *arguments]
    config.env = [("NAME", "value")]
    (folder / "stdin").write_bytes(b"input")
    config.stdin_file = str(folder / "stdin")
    config.stdout_file = str(folder / "stdout")
    config.stderr_file = str(folder / "stderr")
    (folder / "work").mkdir()
    (folder / "work" / "in.txt").write_text("contents")
    config.preopen_dir(str(folder / "work"), "/work")
    store.set_wasi(config)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    code = 0
    try:
        linker.instantiate(store, found).exports(store)["_start"](store)
    except wasmtime.ExitTrap as error:
        code = error.code
    store.close()
    return code, (folder / "stdout").read_bytes(), (folder / "stderr").read_bytes()


@pytest.mark.parametrize("what", PROGRAMS)
def test_prints_what_it_prints_under_the_package(tmp_path: Path, what: str) -> None:
    """Exit status, standard output and error; our side's directory is in memory, theirs is on the host."""
    pytest.importorskip("wasmtime", reason="the wasmtime package is the yardstick: pip install wasmforge[bench]")
    name, arguments = PROGRAMS[what]
    work = MemoryDirectory({"in.txt": "contents"})
    ours = wasmforge.run(
        module(name), arguments, argv0=name, stdin=b"input", env={"NAME": "value"}, dirs={"/work": work}, timeout=300
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == run_with_package(name, arguments, tmp_path)
    assert ours.stdout or ours.stderr


def test_untrusted_python_is_stopped() -> None:
    """Endless loops in bytecode and inside the interpreter's own C, sleep, memory, output, processes."""
    python = module("python")

    def run(code: str, **limits: Any) -> Any:
        return wasmforge.run(python, ["-c", code], argv0="python", **limits)

    for code in ("while True: pass", "10 ** 10 ** 8", "import time; time.sleep(1000)"):
        with pytest.raises(TimeoutExpired):
            run(code, timeout=1.5)
    with pytest.raises(wasmforge.MemoryLimitExceeded):
        run("x = 'x' * 10 ** 9", max_memory=100 << 20)
    with pytest.raises(wasmforge.OutputLimitExceeded) as caught:
        run("while True: print('x' * 1000)", max_output=100_000)
    assert caught.value.stdout is not None
    assert len(caught.value.stdout) == 100_000
    assert run("import os; os.fork()").returncode == 1


def test_the_example(tmp_path: Path) -> None:
    """With its own script, up to the endless loop that only the time limit ends (as in the test above)."""
    example = REPOSITORY / "examples" / "untrusted_python.py"
    script = tmp_path / "script.py"
    text = example.read_text().split('UNTRUSTED = """')[1].split('"""')[0]
    script.write_text(text.replace("while True:\n    pass", ""))
    command = [sys.executable, str(example), str(script), "200"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.stdout.splitlines() == [
        "files: ['main.py', 'input.txt']",
        "/etc/passwd - No such file or directory",
        "../../etc/passwd - Operation not permitted",
        "exit status: 0",
        "left behind: {'input.txt': b'to be or not to be', 'report.json': b'{\"words\": 6}'}",
    ], result.stderr

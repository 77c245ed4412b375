"""Runs Python code that nobody has read: in CPython for WASI, with a time limit, a memory limit and a directory that
exists only in memory. `make guests` fetches the interpreter; its first run here compiles it, which takes seconds.

    python examples/untrusted_python.py [SCRIPT [SECONDS]]
"""

import sys
from pathlib import Path

import wasmforge

PYTHON = Path(__file__).parent.parent / "bench" / "build" / "python.wasm"

UNTRUSTED = """
import json, os, socket
print("files:", os.listdir("/"))
text = open("/input.txt").read()
json.dump({"words": len(text.split())}, open("/report.json", "w"))
for forbidden in ("/etc/passwd", "../../etc/passwd"):
    try:
        open(forbidden)
    except OSError as error:
        print(forbidden, "-", error.strerror)
while True:
    pass
"""


def main() -> None:
    if not PYTHON.exists():
        sys.exit("no bench/build/python.wasm: run `make guests` first")
    code = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else UNTRUSTED
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    files = wasmforge.MemoryDirectory({"main.py": code, "input.txt": "to be or not to be"}, max_size=16 << 20)
    config = wasmforge.Config()
    config.strategy = "baseline"
    try:
        result = wasmforge.run(
            PYTHON,
            ["-u", "/main.py"],
            argv0="python",
            files=files,
            timeout=seconds,
            max_memory=256 << 20,
            max_output=1 << 20,
            max_open_files=32,
            text=True,
            config=config,
        )
        print(result.stdout, end="")
        print(result.stderr, end="", file=sys.stderr)
        print("exit status:", result.returncode)
    except wasmforge.LimitExceeded as error:
        print(error.stdout, end="")
        print("stopped:", error)
    print("left behind:", {name: data for name, data in files.to_dict().items() if name != "main.py"})


if __name__ == "__main__":
    main()

"""A WASI program in its sandbox: it sees the arguments, streams and directories that it is given, and nothing else.

python examples/sandbox.py
"""

import tempfile
from pathlib import Path

from wasmforge import DirPerms, Engine, ExitTrap, FilePerms, Linker, Module, Store, WasiConfig

PROGRAM = Path(__file__).with_name("cat.wat")


def run(linker: Linker, module: Module, folder: Path, name: str) -> tuple[int, bytes, bytes]:
    """Run the program with one argument. Returns its exit status and what it wrote."""
    output, errors = bytearray(), bytearray()
    wasi = WasiConfig()
    wasi.argv = ["cat", name]
    wasi.stdout_custom = output.extend  # any callable that takes bytes
    wasi.stderr_custom = errors.extend
    wasi.preopen_dir(str(folder), ".", DirPerms.READ_ONLY, FilePerms.READ_ONLY)
    store = Store(linker.engine)
    store.set_wasi(wasi)
    status = 0
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)
    except ExitTrap as exit_trap:
        status = exit_trap.code
    return status, bytes(output), bytes(errors)


def main() -> None:
    engine = Engine()
    module = Module(engine, PROGRAM.read_text())  # compiled once, run in a new store each time
    linker = Linker(engine)
    linker.define_wasi()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "shared"
        folder.mkdir()
        (folder / "greeting.txt").write_text("Hello from inside.\n")
        (folder / "link.txt").symlink_to("greeting.txt")
        (Path(parent) / "secret.txt").write_text("Nobody reads this.\n")
        (folder / "escape.txt").symlink_to("../secret.txt")
        for name in ("greeting.txt", "link.txt", "missing.txt", "../secret.txt", "/etc/passwd", "escape.txt"):
            status, output, errors = run(linker, module, folder, name)
            print(f"cat {name}: status {status}, {(output or errors).decode().strip()!r}")


if __name__ == "__main__":
    main()

"""Compiles the gates with LLVM: `python -m wasmforge.runtime.native.build [FILE]` writes the image to FILE, by default
`gates.bin` beside this file, where a wheel carries it; `-` writes to standard output, which is how `loader.py` runs it
in a child process, because importing LLVM takes longer than a whole cached start and an LLVM crash must not take the
parent along.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wasmforge.runtime.native.image import encode
from wasmforge.runtime.native.link import link
from wasmforge.runtime.native.loader import PACKAGED_IMAGE, source_key
from wasmforge.runtime.native.text import gates_ir

__all__ = ["compile_object", "main"]


def compile_object(ir: str) -> bytes:
    """Position-independent object code for any x86-64, so that an image can be shipped."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        cpu="x86-64", opt=2, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(ir)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def main(arguments: list[str]) -> int:
    """Builds the image. Returns the exit status."""
    data = encode(link(compile_object(gates_ir()), source_key()))
    target = arguments[0] if arguments else str(PACKAGED_IMAGE)
    if target == "-":
        sys.stdout.buffer.write(data)
        return 0
    temporary = Path(f"{target}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

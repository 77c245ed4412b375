"""From LLVM IR text to an ELF object, through llvmlite. Only worker processes import this file: LLVM ends the process
when it meets something that it cannot handle, and llvmlite alone takes a hundred milliseconds to import.
"""

from __future__ import annotations

from typing import Any, Final

import llvmlite.binding as llvm

from wasmforge.compiler.llvm.context import VECTOR
from wasmforge.compiler.llvm.locations import with_locations_of_loads
from wasmforge.compiler.llvm.rows import DECLARATIONS
from wasmforge.compiler.llvm.vector_rows import declarations as vector_declarations
from wasmforge.compiler.target import TRIPLE, llvm_cpu

__all__ = ["FIRST_SCOPE", "PIPELINES", "compile_ir", "module_text", "optimise"]

FIRST_SCOPE: Final = 10
"""Number of the first function's DISubprogram node; smaller ones belong to the module's frame."""

_DATA_LAYOUT: Final = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"

_OPTIONS: Final = (
    # A frame must stand before anything in the function can trap, and the walk of frame pointers must find it.
    "-enable-shrink-wrap=false",
    # Merged tails would give two instructions one program counter, and so one position.
    "-enable-tail-merge=false",
    # The conversion of conditional moves to branches would move a load that was folded into one behind the branch, a
    # volatile one too, and lose its trap when the branch is not taken.
    "-x86-cmov-converter-force-mem-operand=false",
    # Instructions without a location get rows of their own, with line 0; `worker._table_rows` needs to tell them.
    "-use-unknown-locations=Enable",
    # A loop that would begin in the second half of a cache line begins with the next one. The head of an interpreter
    # loop that straddles two lines costs up to two thirds more, by nothing but the length of the code before it.
    "-x86-experimental-pref-innermost-loop-alignment=6",
    "-max-bytes-for-alignment=31",
)

_FRAME: Final = """\
attributes #0 = { nounwind "frame-pointer"="all" "probe-stack"="inline-asm" "stack-probe-size"="32768" "no-builtins" }
attributes #1 = { cold noreturn nounwind nomerge }
attributes #2 = { nounwind nomerge }
!llvm.dbg.cu = !{!1}
!llvm.module.flags = !{!4, !5}
!0 = !{}
!1 = distinct !DICompileUnit(language: DW_LANG_C99, file: !2, emissionKind: LineTablesOnly)
!2 = !DIFile(filename: "module.wasm", directory: "/")
!3 = !DISubroutineType(types: !0)
!4 = !{i32 2, !"Debug Info Version", i32 3}
!5 = !{i32 7, !"Dwarf Version", i32 4}
!6 = !{!"branch_weights", i32 1, i32 1048575}
"""

_initialised = False


def _initialise() -> None:
    global _initialised
    if _initialised:
        return
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for option in _OPTIONS:
        llvm.set_option("wasmforge", option)
    _initialised = True


def module_text(functions: list[str], subprograms: list[tuple[int, int]], declarations: list[str]) -> str:
    """A whole LLVM module. `subprograms` are (function index, line of its first instruction) in the order of the
    functions' scopes, `declarations` the functions that other chunks define."""
    parts = [f'target datalayout = "{_DATA_LAYOUT}"\ntarget triple = "{TRIPLE}"\n', DECLARATIONS, *functions]
    if any(VECTOR in text for text in functions):
        parts.append(vector_declarations())
    parts.append("\n".join(declarations) + "\n")
    parts.append(_FRAME)
    for k, (index, line) in enumerate(subprograms):
        parts.append(
            f'!{FIRST_SCOPE + k} = distinct !DISubprogram(name: "f{index}", scope: !2, file: !2, line: {line}, '
            f"type: !3, scopeLine: {line}, unit: !1, spFlags: DISPFlagDefinition)\n"
        )
    return "".join(parts)


PIPELINES: Final = ("hot", "speed", "none", "fast")
"""What LLVM does to a chunk:

- `hot`: for functions that are known to be hot.
- `speed`: SROA, InstCombine, SimplifyCFG, code generation at level 1. Three quarters of what a full O2 gains over
  nothing costs a quarter of its time.
- `none`: SROA only, code generation at level 1.
- `fast`: no pass, and code generation at level 0, which alone is linear in the size of a function (SROA takes time by
  the product of locals and blocks; the translator cuts long basic blocks, as instruction selection is not linear in
  these). Twice as slow to run: for functions that the others cannot compile in time.
"""


_ROUNDS: Final = {"hot": 2, "speed": 1, "none": 0}


def _target_machine(level: int) -> Any:
    return llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu=llvm_cpu(), features="", opt=level, reloc="pic", codemodel="small"
    )


def optimise(module: Any, machine: Any, pipeline: str) -> None:
    """Runs the passes of a pipeline: function passes only. No inlining, so that every wasm frame keeps a frame of its
    own."""
    if pipeline == "fast":
        return
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
    # One run for the whole module: a run sets every analysis up anew, which takes longer than a small function does.
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    for _ in range(_ROUNDS[pipeline]):
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def compile_ir(text: str, pipeline: str, verify: bool = False) -> bytes:
    """The object for a module's text, by one of `PIPELINES`. `verify` has LLVM check the text's consistency, which
    raises RuntimeError for what would be a bug of the translator."""
    _initialise()
    module = llvm.parse_assembly(text)
    if verify:
        module.verify()
    machine = _target_machine(0 if pipeline == "fast" else 1)
    optimise(module, machine, pipeline)
    if pipeline != "fast":
        # llvmlite cannot change an instruction's metadata: the module goes through its text.
        module = llvm.parse_assembly(with_locations_of_loads(str(module)))
    return bytes(machine.emit_object(module))

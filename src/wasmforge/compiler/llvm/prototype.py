"""Function types as LLVM prototypes of the internal calling convention (rules in `compiler.environ`), and the two
kinds of trampolines between it and the array call.

The translator uses the prototypes for definitions and calls; the worker adds the trampolines to the first chunk.
"""

from __future__ import annotations

from wasmforge.compiler.environ import (
    VALRAW_SIZE,
    HostFuncContext,
    StoreContext,
    VMContextOffsets,
    assign_params,
    assign_results,
)
from wasmforge.compiler.llvm.context import IR_TYPES, alignment
from wasmforge.syntax.types import FuncType

__all__ = ["Prototype", "array_to_wasm", "wasm_to_array"]


class Prototype:
    """How a function type travels: which parameters and results are LLVM's, and which go through the areas of the
    store context.

    `register_params` and `register_results` are `(index, IR type)`; `area_params` and `area_results` are
    `(index, IR type, offset in the store context)`. `returns` is LLVM's return type: never wider than the result
    registers, or LLVM would return through a hidden pointer.
    """

    def __init__(self, ft: FuncType) -> None:
        self.params = [IR_TYPES[t] for t in ft.params]
        self.results = [IR_TYPES[t] for t in ft.results]
        self.register_params: list[tuple[int, str]] = []
        self.area_params: list[tuple[int, str, int]] = []
        self.register_results: list[tuple[int, str]] = []
        self.area_results: list[tuple[int, str, int]] = []
        for k, location in enumerate(assign_params(ft)):
            if location.kind == "area":
                offset = StoreContext.OVERFLOW_AREA + VALRAW_SIZE * location.index
                self.area_params.append((k, self.params[k], offset))
            else:
                self.register_params.append((k, self.params[k]))
        for k, location in enumerate(assign_results(ft)):
            if location.kind == "area":
                offset = StoreContext.RESULTS_AREA + VALRAW_SIZE * location.index
                self.area_results.append((k, self.results[k], offset))
            else:
                self.register_results.append((k, self.results[k]))
        types = [t for _, t in self.register_results]
        self.returns = "void" if not types else types[0] if len(types) == 1 else "{" + ", ".join(types) + "}"
        self.declared_params = "".join(f", {t}" for _, t in self.register_params)


def _address(lines: list[str], name: str, base: str, offset: int) -> str:
    lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {offset}")
    return name


def array_to_wasm(name: str, ft: FuncType) -> str:
    """The trampoline by which the host calls wasm functions of a type: unpacks the slots, calls, packs the results."""
    p = Prototype(ft)
    lines = [f"define hidden void @{name}(ptr %callee, ptr %caller, ptr %values, i64 %count, ptr %call) #0 {{"]
    if p.area_params or p.area_results:
        _address(lines, "%sca", "%callee", VMContextOffsets.STORE_CONTEXT)
        lines.append("  %sc = load ptr, ptr %sca")
    for k, t in enumerate(p.params):
        _address(lines, f"%s{k}", "%values", VALRAW_SIZE * k)
        lines.append(f"  %p{k} = load {t}, ptr %s{k}{alignment(t)}")
    for k, t, offset in p.area_params:
        _address(lines, f"%o{k}", "%sc", offset)
        lines.append(f"  store {t} %p{k}, ptr %o{k}{alignment(t)}")
    arguments = "".join(f", {t} %p{k}" for k, t in p.register_params)
    assign = "%r = " if p.register_results else ""
    lines.append(f"  {assign}notail call swiftcc {p.returns} %call(ptr swiftself %callee, ptr nest %caller{arguments})")
    for position, (k, t) in enumerate(p.register_results):
        value = "%r"
        if len(p.register_results) > 1:
            value = f"%x{k}"
            lines.append(f"  {value} = extractvalue {p.returns} %r, {position}")
        _address(lines, f"%q{k}", "%values", VALRAW_SIZE * k)
        lines.append(f"  store {t} {value}, ptr %q{k}{alignment(t)}")
    for k, t, offset in p.area_results:
        _address(lines, f"%a{k}", "%sc", offset)
        lines.append(f"  %x{k} = load {t}, ptr %a{k}{alignment(t)}")
        _address(lines, f"%q{k}", "%values", VALRAW_SIZE * k)
        lines.append(f"  store {t} %x{k}, ptr %q{k}{alignment(t)}")
    lines.append("  ret void\n}\n")
    return "\n".join(lines)


def wasm_to_array(name: str, ft: FuncType) -> str:
    """The trampoline by which wasm calls host functions of a type: packs the slots, makes the array call, unpacks."""
    p = Prototype(ft)
    params = "".join(f", {t} %p{k}" for k, t in p.register_params)
    lines = [f"define hidden swiftcc {p.returns} @{name}(ptr swiftself %callee, ptr nest %caller{params}) #0 {{"]
    if p.area_params or p.area_results:
        _address(lines, "%sca", "%callee", HostFuncContext.STORE_CONTEXT)
        lines.append("  %sc = load ptr, ptr %sca")
    for k, t, offset in p.area_params:
        _address(lines, f"%o{k}", "%sc", offset)
        lines.append(f"  %p{k} = load {t}, ptr %o{k}{alignment(t)}")
    count = max(len(p.params), len(p.results))
    lines.append(f"  %values = alloca [{VALRAW_SIZE * count} x i8], align 16")
    for k, t in enumerate(p.params):
        _address(lines, f"%s{k}", "%values", VALRAW_SIZE * k)
        lines.append(f"  store {t} %p{k}, ptr %s{k}{alignment(t)}")
    _address(lines, "%fa", "%callee", HostFuncContext.ARRAY_CALL)
    lines.append("  %f = load ptr, ptr %fa")
    lines.append(f"  notail call void %f(ptr %callee, ptr %caller, ptr %values, i64 {count}, ptr null)")
    for k, t in enumerate(p.results):
        _address(lines, f"%q{k}", "%values", VALRAW_SIZE * k)
        lines.append(f"  %x{k} = load {t}, ptr %q{k}{alignment(t)}")
    for k, t, offset in p.area_results:
        _address(lines, f"%a{k}", "%sc", offset)
        lines.append(f"  store {t} %x{k}, ptr %a{k}{alignment(t)}")
    value = ""
    if len(p.register_results) == 1:
        k, t = p.register_results[0]
        value = f" %x{k}"
    elif p.register_results:
        value = " poison"
        for position, (k, t) in enumerate(p.register_results):
            lines.append(f"  %z{position} = insertvalue {p.returns}{value}, {t} %x{k}, {position}")
            value = f" %z{position}"
    lines.append(f"  ret {p.returns if p.register_results else 'void'}{value}\n}}\n")
    return "\n".join(lines)

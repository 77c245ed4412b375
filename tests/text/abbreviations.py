"""Pairs of texts that mean the same module: an abbreviation of the text format, and what it stands for. The second of
each pair uses no abbreviation but those of other pairs."""

# ruff: noqa: E501, ISC004 (texts of modules)
from __future__ import annotations

ABBREVIATIONS: dict[str, tuple[str, str]] = {
    # 6.4 types
    "params": (
        "(type (func (param i32 i64) (result f32 f64)))",
        "(type (func (param i32) (param i64) (result f32) (result f64)))",
    ),
    "empty params": ("(type (func (param) (result) ))", "(type (func))"),
    "named params": ("(type (func (param $x i32)))", "(type (func (param i32)))"),
    "funcref": ("(global (mut funcref) (ref.null func))", "(global (mut (ref null func)) (ref.null func))"),
    "externref": ("(table 1 externref)", "(table 1 (ref null extern))"),
    "address type of a memory": ("(memory 1 2)", "(memory i32 1 2)"),
    "address type of a table": ("(table 1 2 funcref)", "(table i32 1 2 funcref)"),
    # 6.4.8 type uses
    "inline type": (
        "(func (param i32) (result i32) (local.get 0))",
        "(type (func (param i32) (result i32))) (func (type 0) (local.get 0))",
    ),
    "inline type repeated": (
        "(type (func (param i32))) (func (type 0) (param i32))",
        "(type (func (param i32))) (func (type 0))",
    ),
    "inline type takes the first match": (
        "(type (func)) (type (func (param i32))) (type (func (param i32))) (func (param i32))",
        "(type (func)) (type (func (param i32))) (type (func (param i32))) (func (type 1))",
    ),
    "inline types come behind the others, in the order of the text": (
        "(func (param i64) (block (param f32) (unreachable))) (func (param f64)) (type (func (param i32)))",
        "(type (func (param i32))) (type (func (param i64))) (type (func (param f32))) (type (func (param f64)))"
        "(func (type 1) (block (type 2) (unreachable))) (func (type 3))",
    ),
    "a number may mean an inline type that comes later": (
        "(func (type 0) (local $x i32) (drop (local.get $x))) (func (param i64 i64))",
        "(type (func (param i64 i64))) (func (type 0) (local i32) (drop (local.get 2))) (func (type 0))",
    ),
    "a function without any type": ("(func)", "(type (func)) (func (type 0))"),
    "imported function": (
        '(import "a" "b" (func (param i32)))',
        '(type (func (param i32))) (import "a" "b" (func (type 0)))',
    ),
    # 6.5.2 blocks
    "empty block type": ("(func block end)", "(func (block))"),
    "one result": ("(func (drop (block (result i32) i32.const 1)))", "(func block (result i32) i32.const 1 end drop)"),
    "inline block type": (
        "(func i32.const 1 (block (param i32) (result i32)) drop)",
        "(type (func)) (type (func (param i32) (result i32))) (func (type 0) i32.const 1 (block (type 1)) drop)",
    ),
    "two results": (
        "(func (block (result i32 i32) unreachable) drop drop)",
        "(type (func)) (type (func (result i32 i32))) (func (type 0) (block (type 1) unreachable) drop drop)",
    ),
    "repeated labels": ("(func block $a loop $b end $b end $a)", "(func block loop end end)"),
    "if without else": ("(func (if (i32.const 1) (then nop)))", "(func i32.const 1 if nop end)"),
    "if with else": (
        "(func (if (i32.const 1) (then nop) (else unreachable)))",
        "(func i32.const 1 if nop else unreachable end)",
    ),
    "if with several operands": (
        "(func (drop (if (param i32) (result i32) (i32.const 2) (i32.const 1) (then) (else (drop) (i32.const 3)))))",
        "(func i32.const 2 i32.const 1 if (param i32) (result i32) else drop i32.const 3 end drop)",
    ),
    "if without operand": ("(func i32.const 1 (if (then nop)))", "(func i32.const 1 if nop end)"),
    "else with label": ("(func i32.const 1 if $l else $l end $l)", "(func i32.const 1 if else end)"),
    # 6.5 folded instructions
    "folded": (
        "(func (result i32) (i32.add (i32.const 1) (i32.mul (i32.const 2) (i32.const 3))))",
        "(func (result i32) i32.const 1 i32.const 2 i32.const 3 i32.mul i32.add)",
    ),
    "folded partly": (
        "(func (result i32) i32.const 1 (i32.add (i32.const 2)))",
        "(func (result i32) i32.const 1 i32.const 2 i32.add)",
    ),
    "folded with a block as operand": (
        "(func (drop (i32.eqz (block (result i32) i32.const 1 (drop) (i32.const 2)))))",
        "(func block (result i32) i32.const 1 drop i32.const 2 end i32.eqz drop)",
    ),
    "folded loop": ("(func (loop $l (br $l)))", "(func loop br 0 end)"),
    "labels shadow": (
        "(func (block $l (block $l (br $l)) (br $l)) )",
        "(func (block (block (br 0)) (br 0)))",
    ),
    "the label of a folded if is not in scope in its condition": (
        "(func (block $l (if $l (br_if $l (i32.const 0) (i32.const 0)) (then (br $l)))))",
        "(func (block (if (br_if 0 (i32.const 0) (i32.const 0)) (then (br 0)))))",
    ),
    "call_indirect": (
        "(table 1 funcref) (func (call_indirect (i32.const 0)))",
        "(table 1 funcref) (func (call_indirect 0 (type 0) (i32.const 0)))",
    ),
    "call_indirect with inline type": (
        "(table 1 funcref) (func (drop (call_indirect (param i32) (result i64) (i32.const 0) (i32.const 0))))",
        "(type (func)) (type (func (param i32) (result i64))) (table 1 funcref) (func (type 0) i32.const 0 i32.const 0 call_indirect 0 (type 1) drop)",
    ),
    "table instructions": (
        "(table 9 funcref) (elem func) (func"
        " (drop (table.get (i32.const 0))) (table.set (i32.const 0) (ref.null func)) (drop (table.size))"
        " (drop (table.grow (ref.null func) (i32.const 0))) (table.fill (i32.const 0) (ref.null func) (i32.const 0))"
        " (table.copy (i32.const 0) (i32.const 0) (i32.const 0)) (table.init 0 (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(table 9 funcref) (elem func) (func"
        " (drop (table.get 0 (i32.const 0))) (table.set 0 (i32.const 0) (ref.null func)) (drop (table.size 0))"
        " (drop (table.grow 0 (ref.null func) (i32.const 0))) (table.fill 0 (i32.const 0) (ref.null func) (i32.const 0))"
        " (table.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 0)) (table.init 0 0 (i32.const 0) (i32.const 0) (i32.const 0)))",
    ),
    "memory instructions": (
        '(memory 1) (data "a") (func'
        " (drop (memory.size)) (drop (memory.grow (i32.const 0))) (drop (i32.load (i32.const 0)))"
        " (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (memory.copy (i32.const 0) (i32.const 0) (i32.const 0))"
        " (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0)))",
        '(memory 1) (data "a") (func'
        " (drop (memory.size 0)) (drop (memory.grow 0 (i32.const 0))) (drop (i32.load 0 offset=0 align=4 (i32.const 0)))"
        " (memory.fill 0 (i32.const 0) (i32.const 0) (i32.const 0)) (memory.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 0))"
        " (memory.init 0 0 (i32.const 0) (i32.const 0) (i32.const 0)))",
    ),
    "natural alignment": (
        "(memory 1) (func (drop (i64.load16_u (i32.const 0))))",
        "(memory 1) (func (drop (i64.load16_u align=2 (i32.const 0))))",
    ),
    "select": (
        "(func (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3))))",
        "(func i32.const 1 i32.const 2 i32.const 3 select (result i32) drop)",
    ),
    "constants above the signed range": (
        "(func (drop (i32.const 0xffffffff)) (drop (i64.const 0xffffffffffffffff)))",
        "(func (drop (i32.const -1)) (drop (i64.const -1)))",
    ),
    # 6.6 modules
    "inline export": ('(func (export "a") (export "b"))', '(func) (export "a" (func 0)) (export "b" (func 0))'),
    "inline exports": (
        '(table (export "t") 1 funcref) (memory (export "m") 1) (global (export "g") i32 (i32.const 0))',
        '(table 1 funcref) (memory 1) (global i32 (i32.const 0)) (export "t" (table 0)) (export "m" (memory 0)) (export "g" (global 0))',
    ),
    "inline import": ('(func (import "a" "b") (param i32))', '(import "a" "b" (func (param i32)))'),
    "inline imports": (
        '(table (import "a" "t") 1 funcref) (memory (import "a" "m") 1 2) (global (import "a" "g") (mut i64))',
        '(import "a" "t" (table 1 funcref)) (import "a" "m" (memory 1 2)) (import "a" "g" (global (mut i64)))',
    ),
    "inline export of an import": (
        '(func (export "x") (import "a" "b"))',
        '(import "a" "b" (func)) (export "x" (func 0))',
    ),
    "inline elements": (
        "(table funcref (elem $f $f)) (func $f)",
        "(table 2 2 funcref) (elem (offset (i32.const 0)) func 0 0) (func)",
    ),
    "inline element expressions": (
        "(table funcref (elem (ref.func 0) (item ref.null func))) (func)",
        "(table 2 2 funcref) (elem (table 0) (offset (i32.const 0)) funcref (item (ref.func 0)) (item (ref.null func))) (func)",
    ),
    "inline data": ('(memory (data "ab" "c"))', '(memory 1 1) (data (memory 0) (offset (i32.const 0)) "abc")'),
    "address type of inline data": ('(memory i32 (data "a"))', '(memory 1 1) (data (i32.const 0) "a")'),
    "address type of inline elements": (
        "(table i32 funcref (elem 0)) (func)",
        "(table 1 1 funcref) (elem (table 0) (offset (i32.const 0)) func 0) (func)",
    ),
    "inline data of several pages": (
        f'(memory (data "{"x" * 65537}"))',
        f'(memory 2 2) (data (i32.const 0) "{"x" * 65537}")',
    ),
    "no inline data": ("(memory (data))", '(memory 0 0) (data (i32.const 0) "")'),
    "active element segment": (
        "(table 1 funcref) (func) (elem (i32.const 0) 0)",
        "(table 1 funcref) (func) (elem (table 0) (offset (i32.const 0)) func 0)",
    ),
    "active element segment with expressions": (
        "(table 1 funcref) (func) (elem (i32.const 0) funcref (ref.func 0))",
        "(table 1 funcref) (func) (elem (table 0) (offset i32.const 0) funcref (item (ref.func 0)))",
    ),
    "active segment of another table": (
        "(table $a 1 funcref) (table $b 1 funcref) (func $f) (elem (table $b) (i32.const 0) func $f)",
        "(table 1 funcref) (table 1 funcref) (func) (elem (table 1) (offset (i32.const 0)) func 0)",
    ),
    "active data segment": (
        '(memory 1) (data (i32.const 0) "a")',
        '(memory 1) (data (memory 0) (offset (i32.const 0)) "a")',
    ),
    "data in several strings": ('(data "a" "" "bc")', '(data "abc")'),
    "fields in a module": ("(module (func))", "(func)"),
    "start": ("(func $f) (start $f)", "(func) (start 0)"),
    "global init": (
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        "(global i32 i32.const 1 i32.const 2 i32.add)",
    ),
    "locals": (
        "(func (local i32 i64) (local $x f32) (local) (local f32))",
        "(func (local i32) (local i64) (local f32) (local f32))",
    ),
    "identifiers of every kind": (
        '(import "a" "b" (func $i)) (type $t (func)) (table $T 1 funcref) (memory $m 1) (global $g (mut i32) (i32.const 0))'
        ' (elem $e func $f) (data $d "x") (func $f (type $t) (local $l i32) (local.set $l (global.get $g))'
        " (call $i) (elem.drop $e) (data.drop $d) (drop (table.size $T)) (drop (memory.size $m)))"
        ' (export "f" (func $f)) (start $i)',
        '(type (func)) (import "a" "b" (func (type 0))) (table 1 funcref) (memory 1) (global (mut i32) (i32.const 0))'
        ' (elem func 1) (data "x") (func (type 0) (local i32) (local.set 0 (global.get 0))'
        " (call 0) (elem.drop 0) (data.drop 0) (drop (table.size 0)) (drop (memory.size 0)))"
        ' (export "f" (func 1)) (start 0)',
    ),
}

"""A module of many small functions that call each other, for tests of what happens at first calls."""

from __future__ import annotations


def numbered(count: int) -> str:
    """Exports `f0`, ...: each adds its own number to what the one of half its number returns."""
    return (
        "(module"
        + "".join(
            f'(func $f{n} (export "f{n}") (param i32) (result i32) (i32.add (i32.const {n}) '
            + (f"(call $f{n // 2} (local.get 0))" if n else "(local.get 0)")
            + "))"
            for n in range(count)
        )
        + ")"
    )


def sum_of(n: int, x: int) -> int:
    """What `f<n>` returns for x."""
    while n:
        x += n
        n //= 2
    return x

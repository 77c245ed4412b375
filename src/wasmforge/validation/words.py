"""`vec`, an array of machine words for what the walk over a body keeps. Uncompiled it is a list; compiled by mypyc it
is mypyc's own array (package librt), whose items are plain 64-bit integers instead of objects that are counted.

Only indexing, `len`, iteration and `vec[i64](values)` exist in both; the walk keeps the index of the top itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from librt.vecs import vec
    from mypy_extensions import i64
else:
    i64 = int
    vec = list

__all__ = ["i64", "interpreted", "put", "same", "vec"]


def interpreted(function: object) -> bool:
    """Whether a function is one of Python's: then slices of lists, which run in C, are worth it."""
    return hasattr(function, "__code__")


def put(words: vec[i64], at: int, values: list[int]) -> None:
    """Writes values into a list in one go. Uncompiled only."""
    words[at : at + len(values)] = values  # type: ignore[index, assignment]


def same(words: vec[i64], at: int, values: list[int]) -> bool:
    """Whether these values stand in a list, from an index on. Uncompiled only."""
    return words[at : at + len(values)] == values  # type: ignore[comparison-overlap]

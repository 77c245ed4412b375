"""Validation (specification, chapter 3): the type system that every module passes before it is compiled.

`validate` checks a module and returns a `ModuleValidation`, or raises `InvalidError`. The encoding of function bodies
is checked in the same walk and raises `MalformedError`, so that decoding and validation together accept exactly
the well-formed and valid modules.
"""

from wasmforge.validation.errors import InvalidError
from wasmforge.validation.validator import ModuleValidation, validate

__all__ = ["InvalidError", "ModuleValidation", "validate"]

"""The side tables of a compiled module, one file a table: each describes its encoding where it is decoded, and
offers `encode` for the compilers and `lookup` for the runtime."""

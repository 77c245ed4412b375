"""`python -m wasmforge`: the command line."""

if __name__ == "__main__":  # tools that inspect packages import this
    import sys

    from wasmforge.cli import main

    sys.exit(main())

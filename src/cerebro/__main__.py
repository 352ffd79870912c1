"""``python -m cerebro VERB ...``: the same as ``cerebro VERB ...``, by the interpreter that one names."""

import sys

from cerebro.cli.main import main

if __name__ == "__main__":  # processes that are spawned import this file again
    sys.exit(main())

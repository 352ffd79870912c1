"""``cerebro`` with the toy classes: python toy_cli.py VERB ..., as a process that a test may kill."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def install() -> None:
    """Let the command line know the toy classes and train on toy data."""
    import toy

    from cerebro.cli import fit

    fit.DATA_CLASS = toy.ToyData
    if "toy" not in fit.ALLOWED_IMPORTS:
        fit.ALLOWED_IMPORTS.append("toy")


if __name__ == "__main__":
    from cerebro.cli.main import main

    install()
    sys.exit(main(sys.argv[1:]))

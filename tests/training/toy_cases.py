"""Several ``cerebro`` commands with the toy classes, one after the other: python toy_cases.py FILE, or by torchrun.

FILE is JSON, a list of lists of arguments. Starting processes takes longer than what they compute here.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if __name__ == "__main__":
    import toy_cli

    from cerebro.cli.main import main

    toy_cli.install()
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        code = main(arguments)
        if code != 0:
            sys.exit(code)

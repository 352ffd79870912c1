"""Which code is running."""

import subprocess
from functools import lru_cache
from pathlib import Path

import cerebro


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Commit of the running code, ``-dirty`` if it was changed since; its version where there is no repository."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"cerebro {cerebro.__version__}"
    return found.stdout.strip() or f"cerebro {cerebro.__version__}"

"""``cerebro VERB ...``: finds the verb, runs it, and turns a user's mistake into one line and exit code 2.

Verbs are imported when they are called, so that ``cerebro --help`` answers at once.
"""

import contextlib
import errno
import importlib
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType

from cerebro import __version__
from cerebro.collection import uncollected
from cerebro.errors import CerebroError

VERBS: dict[str, tuple[str, str, str]] = {
    "simulate": ("cerebro.cli.simulate", "simulate", "write a cohort of recordings with known truth"),
    "prepare": ("cerebro.cli.prepare", "prepare", "turn recordings into a store that trains fast"),
    "process-primary": ("cerebro.cli.process", "process_primary", "raw recordings and labels -> windows, and a store"),
    "process": ("cerebro.cli.process", "process", "process-primary, and features of every window"),
    "check": ("cerebro.cli.prepare", "check", "say what is wrong with a data set"),
    "fit": ("cerebro.cli.fit", "fit", "train one phase from a config"),
    "validate": ("cerebro.cli.fit", "validate", "score a checkpoint on its validation participants"),
    "test": ("cerebro.cli.fit", "test", "score a checkpoint on participants that it has not seen"),
    "predict": ("cerebro.cli.predict", "predict", "give probabilities of new recordings, and what carried them"),
    "probe": ("cerebro.cli.fit", "probe", "say what a checkpoint's embeddings tell of people, and who they are"),
    "run": ("cerebro.cli.study", "run", "run a recipe: phases, ablations, results"),
    "report": ("cerebro.cli.study", "report", "write the page that shows a study's results"),
    "export": ("cerebro.cli.export", "export", "write a store or the weights of a phase for other programs"),
    "doctor": ("cerebro.cli.doctor", "doctor", "print versions, accelerators and what is wrong with this machine"),
}


# Before torch is imported: idle OpenMP threads sleep instead of spinning, which beside other load costs many times the
# work itself. A user's own setting stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "TORCHELASTIC_RUN_ID" in os.environ:  # torch would advise, once a process, against looking for unused parameters
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


USERS_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
"""What an operating system answers to a path that a user can mend; anything else is a fault of cerebro."""


class _Terminated(BaseException):
    """SIGTERM arrived while a verb ran that does not handle it itself."""

    exit_code = 128 + signal.SIGTERM


def main(argv: list[str] | None = None) -> int:
    """Run a verb; gives its exit code.

    0 success, 1 the verb ran and found faults, 2 a user's mistake (one line on standard error), 130 or 143 interrupted,
    141 the program that read the output has ended.
    Can be called many times in one process: nothing is left behind.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"cerebro {__version__}")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        return _mistake(f"{verb!r} is no verb of cerebro; type one of {', '.join(VERBS)} (cerebro --help).")
    if verb != "fit" and _is_one_of_several():
        return _mistake(f"{verb} runs in one process; type it without torchrun.")
    module, function, _ = VERBS[verb]
    try:
        with warnings.catch_warnings(), _terminable():
            with uncollected():
                run: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
            return run(arguments[1:])
    except CerebroError as error:
        return _mistake(" ".join(str(error).split()))
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in USERS_ERRORS:
            raise
        return _mistake(f"{error.filename or 'a file'}: {error.strerror}; choose another path, or change this one.")
    except SystemExit as end:  # argparse prints its own line
        return end.code if isinstance(end.code, int) else (0 if end.code is None else _mistake(str(end.code)))
    except KeyboardInterrupt:
        return _ended("interrupted; the same command continues where it stopped", 130)
    except _Terminated:
        return _ended("terminated; the same command continues where it stopped", 143)


def _reader_is_gone() -> bool:
    """Whether standard output goes to a program that has ended, such as ``head``; then it goes nowhere from now on."""
    waiting = select.poll()
    waiting.register(sys.stdout.fileno(), 0)  # errors are reported whatever is asked for
    if not waiting.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def usage() -> str:
    """Text of ``cerebro --help``."""
    verbs = "\n".join(f"  {verb:<17}{what}" for verb, (_, _, what) in VERBS.items())
    return (
        "usage: cerebro VERB [...]\n\nFrom raw EEG to trained, evaluated and shareable models.\n\n"
        f"{verbs}\n\nexample: cerebro run recipes/demo.yaml\n         cerebro fit --help"
    )


def _mistake(line: str) -> int:
    return _ended(f"cerebro: {line}", 2)


def _ended(line: str, exit_code: int) -> int:
    """Say why a verb ended; of several processes of one run the first to fail does."""
    is_silent = False
    if _is_one_of_several():
        from cerebro.training.launch import is_first_to_fail

        is_silent = not is_first_to_fail(exit_code)
    if not is_silent:
        print(line, file=sys.stderr)
    return exit_code


def _is_one_of_several() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the verb, so that files and locks are closed; the former handler comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())

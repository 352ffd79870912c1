"""Runs ``cerebro`` commands one after another, each in a process forked from this one, so that imports cost nothing.

A line of standard input is a JSON list: folder to run in, file for the output, arguments, environment variables to
add. Two lines come back: the number of the process (and of its group), and how it ended (negative: by that signal).
"""

import json
import os
import sys
import threading

import mlflow.tracking  # noqa: F401  the slowest imports of the commands below

import cerebro.cli.fit
import cerebro.cli.prepare
import cerebro.cli.simulate
import cerebro.cli.study  # noqa: F401
from cerebro.cli.main import main


def serve() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        folder, log, arguments, environment = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()  # a group of its own, with every process that it starts
            os.chdir(folder)
            os.environ.update(environment)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = main(arguments)
            sys.stdout.flush()
            os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    assert threading.active_count() == 1, "a process with threads must not fork"
    serve()

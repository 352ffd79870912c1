"""python benchmarks/run.py SUBJECT --json FILE: measure one subject, print a table, write one flat JSON of figures."""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

SUBJECTS = {
    "data": "random windows from a store beside a plain copy and MNE",
    "primary": "an hour of raw recordings to windows, and the same steps with MNE",
    "preprocess": "filtering and resampling beside MNE",
    "labram": "training steps of LaBraM beside the GEMM rate, a plain step and braindecode",
    "signal_jepa": "training steps and memory of Signal-JEPA's encoder beside the stock one",
    "finetune": "50 epochs of a head on a frozen Mamba-2, beside epochs in which the encoder runs",
    "mamba2": "one Mamba-2 layer beside the chunked form, transformers' and a Transformer layer",
}
FEWEST_ROUNDS = 7
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main(argv: list[str]) -> int:
    epilog = "\n".join(f"  {subject:12} {what}" for subject, what in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"subjects:\n{epilog}\n\nexample:\n  python benchmarks/run.py preprocess --json preprocess.json",
    )
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help="interleaved rounds (default %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds {arguments.rounds} is too few for a median; use {FEWEST_ROUNDS} or more")
    os.environ.update(ONE_THREAD)  # before a subject imports numpy or torch
    start = time.perf_counter()
    figures: dict[str, float] = importlib.import_module(arguments.subject).main(arguments.rounds)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value:12.5g}")
    print(f"{arguments.rounds} rounds in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({name: float(value) for name, value in figures.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

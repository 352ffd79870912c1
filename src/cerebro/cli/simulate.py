"""`cerebro simulate`: write a simulated cohort with known ground truth."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from cerebro.cli.parser import VerbParser
from cerebro.errors import CerebroError, ConfigError, check_one_of, check_positive
from cerebro.files import read_json
from cerebro.simulate.clinical import MONTAGES, cap_of, simulate_clinical
from cerebro.simulate.cohort import MIN_PARTICIPANTS, Spec, make_spec, simulate_cohort
from cerebro.simulate.edf_tree import simulate_edf
from cerebro.simulate.presets import PRESETS, STRENGTHS
from cerebro.simulate.windows import MUSE, Form, label_place, simulate_windows

FORMATS = ("bids", "edf", "parquet", "clinical")
EXAMPLE = """\
example:
  cerebro simulate --out data/cohort --preset demo
  cerebro simulate --out data/null --preset demo --effect 0 --seed 7
  cerebro simulate --out data/tuh --preset demo --format edf
  cerebro simulate --out data/windows --preset demo --format parquet --remission column
  cerebro simulate --out data/clinic --preset clinical --format clinical --channels muse

The formats: bids has the form of HBN-EEG (read it with `class_path: HBN`), edf that of the TUH EEG Corpus (`TUH`),
parquet has one file of 8-s windows per participant and run, clinical raw EDF recordings and a table of labels.
DIR/ground_truth.json says what was planted, oracle_nrmse (the score when the planted feature is known exactly) and
reference_nrmse (ridge on features measured in the same signals), where there are groups also both AUCs. Running the
same command again after an interruption writes only what is missing.
"""


def simulate(argv: list[str]) -> int:
    """Run ``cerebro simulate`` with these arguments; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        check_positive("jobs", arguments.jobs)
        if arguments.participants is not None:
            check_positive("participants", arguments.participants)
        spec = make_spec(
            arguments.preset, arguments.participants or 0, arguments.seed, arguments.effect, arguments.strength
        )
        path = _write(arguments, spec)
    except CerebroError as error:
        print(f"cerebro simulate: {error}", file=sys.stderr)
        return 2
    truth = read_json(path)
    print(
        f"{arguments.out}: {truth['n_participants']} participants, preset {truth['preset']}, strength "
        f"{truth['strength']}, effect {truth['effect']:g}, seed {truth['seed']}"
    )
    print(f"{'target':<15}{'samples':>8}{'planted R2':>12}{'oracle NRMSE':>14}{'reference NRMSE':>17}")
    for target, r2 in truth["planted_r2"].items():
        oracle, reference = truth["oracle_nrmse"][target], truth["reference_nrmse"][target]
        print(f"{target:<15}{truth['n_samples'][target]:>8}{r2:>12.3f}{oracle:>14.3f}{reference:>17.3f}")
    return 0


def _write(arguments: Namespace, spec: Spec) -> Path:
    """Write the cohort in the format that was asked for; gives the path of its ground truth."""
    check_one_of("format", arguments.format, FORMATS)
    alone = {"channels": ("parquet", "clinical"), "remission": ("parquet",)}
    for name, formats in alone.items():
        if getattr(arguments, name) is not None and arguments.format not in formats:
            raise ConfigError(f"--{name} belongs to --format {' or '.join(formats)}; add that or leave it out.")
    if arguments.format == "edf":
        return simulate_edf(arguments.out, spec, arguments.jobs)
    if arguments.format == "parquet":
        channels = MUSE if arguments.channels is None else tuple(arguments.channels.split(","))
        form = Form(channels, label_place(arguments.remission or "table"))
        return simulate_windows(arguments.out, spec, form, arguments.jobs)
    if arguments.format == "clinical":
        return simulate_clinical(arguments.out, spec, cap_of(arguments.channels or "muse"), arguments.jobs)
    return simulate_cohort(arguments.out, spec, arguments.jobs)


def _parser() -> VerbParser:
    parser = VerbParser(
        prog="cerebro simulate",
        description="Write a simulated cohort as a BIDS tree, an EDF tree, Parquet windows or a clinic's recordings.",
        epilog=EXAMPLE,
    )
    sizes = ", ".join(f"{p.name}: {p.n_participants} people, {p.strength} couplings" for p in PRESETS.values())
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; new, or continued")
    parser.add_argument("--preset", required=True, help=f"size and default strength ({sizes})")
    parser.add_argument("--participants", type=int, metavar="N", help=f"people, {MIN_PARTICIPANTS} or more")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other people (default 0)")
    parser.add_argument(
        "--effect", type=float, default=1.0, metavar="E", help="factor on every planted coupling; 0 plants nothing"
    )
    parser.add_argument(
        "--strength", default="", help=f"sizes of the couplings: {' or '.join(STRENGTHS)} (default: the preset's)"
    )
    parser.add_argument("--format", default="bids", help=f"what to write: {', '.join(FORMATS)} (default bids)")
    parser.add_argument(
        "--channels",
        metavar="A,B,...",
        help=f"electrodes of --format parquet or clinical (default {','.join(MUSE)}); for clinical also "
        f"{' or '.join(MONTAGES)}",
    )
    parser.add_argument(
        "--remission",
        help="where --format parquet puts the label: table (participants.tsv alone, the default), column (also a "
        "column of each file) or primary (also columns Participant and Remission)",
    )
    jobs = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=jobs, metavar="J", help=f"processes (default {jobs})")
    return parser

"""``cerebro doctor``: what this machine has, and what is wrong with it."""

import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path

from cerebro import __version__
from cerebro.cli.parser import VerbParser
from cerebro.files import free_bytes

PACKAGES = ("torch", "lightning", "jsonargparse", "numpy", "mne", "mlflow", "pandas", "pyarrow")
LOWEST_FREE_BYTES = 2 * 2**30


def doctor(argv: list[str]) -> int:
    """Print versions, accelerators, threads and folders; exit code 1 with findings."""
    parser = VerbParser(
        prog="cerebro doctor",
        description="Print versions, accelerators, threads and folders, and what is wrong with them.",
        epilog="example: cerebro doctor --out outputs",
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder that runs will be written to")
    options = parser.parse_args(argv)
    findings = [*_versions(), *_accelerators(), *_folders(options.out)]
    for finding in findings:
        print(f"finding: {finding}")
    print(f"{len(findings)} findings" if findings else "nothing wrong")
    return 1 if findings else 0


def _versions() -> list[str]:
    findings = []
    print(f"cerebro {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            findings.append(f"{name} is not installed; run `make env` or `pip install cerebro-eeg`")
    lightning = _version("lightning")
    if lightning in ("2.6.2", "2.6.3"):
        findings.append(f"lightning {lightning} was malware on the package index; remove it and install 2.6.6 or later")
    return findings


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _accelerators() -> list[str]:
    import torch

    from cerebro.nn.ssd_kernels import state_of_kernels

    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"  {n_cores} cores usable, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            print(f"  GPU {number}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    else:
        print("  no GPU; phases run on the CPU")
    print(f"  {state_of_kernels()}")
    findings = []
    if torch.get_num_threads() > n_cores:
        findings.append(
            f"torch uses {torch.get_num_threads()} threads on {n_cores} cores; set OMP_NUM_THREADS={n_cores} "
            "before starting cerebro"
        )
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        findings.append("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets checkpoints run code in other programs; unset it")
    return findings


def _folders(out: Path) -> list[str]:
    findings = []
    for what, folder in (("runs", out), ("temporary files", Path(tempfile.gettempdir()))):
        existing = folder.absolute()
        while not existing.exists():
            existing = existing.parent
        free = free_bytes(existing)
        print(f"  {what}: {folder.absolute()}, {free / 2**30:.1f} GiB free")
        if not existing.is_dir():
            findings.append(f"{existing} is no folder; choose another one for {what}")
        elif not os.access(existing, os.W_OK):
            findings.append(f"{existing} cannot be written; change its permissions or choose another folder for {what}")
        elif free < LOWEST_FREE_BYTES:
            findings.append(f"only {free / 2**20:.0f} MiB are free in {existing}; free 2 GiB or choose another folder")
    return findings

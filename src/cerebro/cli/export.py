"""``cerebro export``: a store as Zarr or HDF5, the weights of a phase for other programs, or a model to share."""

from pathlib import Path
from typing import get_args

from cerebro.cli.parser import VerbParser
from cerebro.data.interchange import COMPRESSIONS, Compression, export_store
from cerebro.data.store import Store
from cerebro.errors import ConfigError, check_one_of

PACKAGE = "package"
MODEL_FORMATS = ("labram", "vqnsp", "braindecode", "mamba_ssm", PACKAGE)
MODEL_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def export(argv: list[str]) -> int:
    """Write a store or a phase's weights in another format; 0 also if the very same export is there already."""
    parser = VerbParser(
        prog="cerebro export",
        description=(
            "Write a store as a Zarr folder or an HDF5 file (samples, tables and a checksum for every chunk), or the "
            "weights of a phase as a file of official LaBraM, of braindecode (Labram, SignalJEPA) or of mamba-ssm "
            "(Mamba2), or a phase as a model to share (package: a folder, or one file that ends in .pt)."
        ),
        epilog=(
            "example: cerebro export stores/hbn --format zarr --out exports/hbn.zarr --compression zstd\n"
            "         cerebro export outputs/pretrain/best.ckpt --format labram --out exports/labram.pth\n"
            "         cerebro export outputs/finetune/best.ckpt --format package --out models/mine\n\n"
            "A store: class_path: Exported reads it back (cerebro prepare), cerebro check verifies it. Weights: "
            "model.init takes them."
        ),
    )
    parser.add_argument("source", type=Path, metavar="STORE or CKPT", help="folder of a store, or a checkpoint")
    parser.add_argument(
        "--format",
        required=True,
        metavar="FORMAT",
        help="of a store: zarr (a folder) or hdf5 (one file); of a checkpoint: labram, vqnsp, braindecode, "
        "mamba_ssm or package",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="folder or file to write; new")
    parser.add_argument(
        "--compression", default="none", metavar="METHOD", help="none (default), zstd (zarr only) or gzip (hdf5 only)"
    )
    options = parser.parse_args(argv)
    check_one_of("format", options.format, (*COMPRESSIONS, *MODEL_FORMATS))
    check_one_of("compression", options.compression, get_args(Compression))
    is_model = options.source.suffix in MODEL_SUFFIXES or (options.source / "model.safetensors").is_file()
    is_model_format = options.format in MODEL_FORMATS
    if is_model != is_model_format:
        raise ConfigError(
            f"{options.source} as {options.format}: a store goes out as {' or '.join(COMPRESSIONS)}, the checkpoint of "
            f"a phase as {', '.join(MODEL_FORMATS)}; type one of these after --format."
        )
    if is_model:
        if options.compression != "none":
            raise ConfigError(f"--compression {options.compression} is for stores; leave it out for weights.")
        if options.format == PACKAGE:
            return _export_package(options.source, options.out)
        return _export_weights(options.source, options.format, options.out)
    store = Store.open(options.source)
    is_new = export_store(store, options.out, options.format, options.compression)
    hours = float(store.index["n_times"].sum()) / store.sfreq / 3600
    print(f"{options.out} {'is written' if is_new else 'was there already, whole and of this store'}")
    print(f"{len(store):,} recordings, {hours:,.2f} h of {len(store.participants):,} participants")
    print(
        f"read back: class_path: Exported, path: {options.out}, preprocessing.sfreq: {store.sfreq:g}, "
        f"lsb_uV: {store.lsb_uV:g}"
    )
    return 0


def _export_weights(source: Path, form: str, out: Path) -> int:
    from cerebro.training.export import export_weights  # late: torch and Lightning take seconds
    from cerebro.training.exported import write_exported
    from cerebro.training.foreign import read_source

    exported = export_weights(read_source(source), form)
    is_new = write_exported(exported, out)
    print(f"{out} {'is written' if is_new else 'was there already, with the same weights'}")
    for line in exported.lines:
        print(line)
    print(f"read back: model.init: [{{source: {out}}}]")
    return 0


def _export_package(source: Path, out: Path) -> int:
    from cerebro.training.foreign import read_trained  # late, as above
    from cerebro.training.packaging import export_package

    package = export_package(read_trained(source), out)
    people = package.config["participants"]
    print(f"{out} holds phase {package.config['phase']}, {len(people.get('train', []))} participants trained it")
    if not package.config["processing"]:
        print("how its recordings were processed is unknown, so cerebro predict will ask for --processing")
    if not package.profile:
        print("what its training recordings are like is unknown, so cerebro predict cannot say which are unlike them")
    print(f"read back: model.init: [{{source: {out}}}]")
    return 0

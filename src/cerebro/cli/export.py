"""``cerebro export``: a store as Zarr or HDF5, for other programs."""

from pathlib import Path
from typing import get_args

from cerebro.cli.parser import VerbParser
from cerebro.data.interchange import COMPRESSIONS, Compression, export_store
from cerebro.data.store import Store
from cerebro.errors import ConfigError, check_one_of

MODEL_FORMATS = ("safetensors", "onnx")
MODEL_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def export(argv: list[str]) -> int:
    """Write a store in another format; 0 also if the very same export is there already."""
    parser = VerbParser(
        prog="cerebro export",
        description="Write a store as a Zarr folder or an HDF5 file: samples, tables and a checksum for every chunk.",
        epilog=(
            "example: cerebro export stores/hbn --format zarr --out exports/hbn.zarr --compression zstd\n\n"
            "class_path: Exported reads it back (cerebro prepare), cerebro check verifies it."
        ),
    )
    parser.add_argument("source", type=Path, metavar="STORE", help="folder of the store")
    parser.add_argument("--format", required=True, metavar="FORMAT", help="zarr (a folder) or hdf5 (one file)")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="folder or file to write; new")
    parser.add_argument(
        "--compression", default="none", metavar="METHOD", help="none (default), zstd (zarr only) or gzip (hdf5 only)"
    )
    options = parser.parse_args(argv)
    if options.format in MODEL_FORMATS or options.source.suffix in MODEL_SUFFIXES:
        known = " or ".join(COMPRESSIONS)
        raise ConfigError(
            f"{options.source} as {options.format}: `cerebro export` writes stores, as {known}, no models yet; type "
            "cerebro export STORE --format zarr --out PATH."
        )
    check_one_of("format", options.format, COMPRESSIONS)
    check_one_of("compression", options.compression, get_args(Compression))
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

"""Damaged inputs: what a mutated file of each format does to a build, with a list of checksums and without.

Eight of ten mutations change bytes in place (a flipped bit, a run of zeros or of noise, swapped blocks, another digit
in the header), two change the size. With ``SHA256SUMS`` all must be found. Without, no checksum tells damaged samples
from true ones (EDF, BrainVision, EEGLAB and FIF have none), but nothing may crash the build, hang it, or bring a value
that is no number into a store.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest
from damage import CHANNELS, N_TIMES, SFREQ, in_this_process, mutate, signal
from scipy.io import savemat

from cerebro.data.build import build
from cerebro.data.pieces import Recipe, make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import HBN, Folder, Scan
from cerebro.data.source_checksums import freeze, with_checksums
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.montage import hbn_129
from cerebro.simulate.writers import write_bdf, write_set

PLAN = Preprocessing(sfreq=50.0, lowpass_hz=20.0)
N_FEW, N_MANY = 25, 500


def write_edf(path: Path) -> None:
    """16-bit EDF, one record a second, 0.1 microvolt a step."""
    n, rate = len(CHANNELS), int(SFREQ)
    cells = [(80, "X X X X"), (80, "Startdate 01-JAN-2020 X X X"), (8, "01.01.20"), (8, "10.00.00")]
    cells += [(8, str(256 * (n + 1))), (44, ""), (8, str(N_TIMES // rate)), (8, "1"), (4, str(n))]
    cells += [(16, f"EEG {name}") for name in CHANNELS] + [(80, "AgCl")] * n + [(8, "uV")] * n
    cells += [(8, "-3276.8")] * n + [(8, "3276.7")] * n + [(8, "-32768")] * n + [(8, "32767")] * n
    cells += [(80, "HP:0.1Hz LP:40Hz")] * n + [(8, str(rate))] * n + [(32, "")] * n
    header = b"0       " + "".join(text.ljust(width) for width, text in cells).encode()
    counts = np.rint(signal() * 10).astype("<i2").reshape(n, -1, rate).swapaxes(0, 1)
    path.write_bytes(header + counts.tobytes())


def write_brainvision(path: Path) -> None:
    path.with_suffix(".eeg").write_bytes(signal().T.astype("<f4").tobytes())
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101100000000000\n"
        "Mk2=Stimulus,S  1,50,1,0\n"
    )
    channels = "".join(f"Ch{i}={name},,1,µV\n" for i, name in enumerate(CHANNELS, start=1))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(CHANNELS)}\nSamplingInterval={1e6 / SFREQ:g}\n\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )


def without_date(path: Path) -> None:
    """Blank the time of day that scipy writes, so that equal seeds give equal mutants."""
    with open(path, "r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))


def write_set_and_fdt(path: Path) -> None:
    """EEGLAB with its samples in a file of their own."""
    path.with_suffix(".fdt").write_bytes(signal().T.astype("<f4").tobytes())
    locations = np.zeros(len(CHANNELS), dtype=[("labels", object)])
    locations["labels"] = list(CHANNELS)
    eeg = {"nbchan": 4.0, "trials": 1.0, "pnts": float(N_TIMES), "srate": SFREQ, "xmin": 0.0, "event": np.zeros((0, 0))}
    eeg |= {"xmax": (N_TIMES - 1) / SFREQ, "data": path.with_suffix(".fdt").name, "chanlocs": locations}
    savemat(path, {"EEG": eeg}, appendmat=False, oned_as="row")
    without_date(path)


def write_fif(path: Path) -> None:
    info = mne.create_info(list(CHANNELS), SFREQ, "eeg")
    mne.io.RawArray(signal() * 1e-6, info, verbose="error").save(path, overwrite=True, verbose="error")


def write_compressed_set(path: Path) -> None:
    write_set_and_fdt(path)
    path.with_suffix(".fdt").unlink()
    locations = np.zeros(len(CHANNELS), dtype=[("labels", object)])
    locations["labels"] = list(CHANNELS)
    fields = {"nbchan": 4.0, "trials": 1.0, "pnts": float(N_TIMES), "srate": SFREQ, "data": signal()}
    savemat(
        path,
        fields | {"chanlocs": locations, "event": np.zeros((0, 0))},
        appendmat=False,
        do_compression=True,
        oned_as="row",
    )
    without_date(path)


# name -> suffix of the signal, suffix of the file that is mutated, writer of one recording
FORMATS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "EEGLAB .set": (".set", ".set", lambda path: write_set(path, signal(), CHANNELS, SFREQ)),
    "EEGLAB .set, compressed": (".set", ".set", write_compressed_set),
    "EEGLAB .set of an .fdt": (".set", ".set", write_set_and_fdt),
    "EEGLAB .fdt": (".set", ".fdt", write_set_and_fdt),
    "BDF": (".bdf", ".bdf", lambda path: write_bdf(path, signal(), CHANNELS, SFREQ)),
    "EDF": (".edf", ".edf", write_edf),
    "BrainVision .vhdr": (".vhdr", ".vhdr", write_brainvision),
    "BrainVision .vmrk": (".vhdr", ".vmrk", write_brainvision),
    "BrainVision .eeg": (".vhdr", ".eeg", write_brainvision),
    "FIF": (".fif", ".fif", write_fif),
}


def make_mutants(folder: Path, name: str, n: int) -> tuple[Folder, list[Path]]:
    """A whole recording and ``n`` damaged copies, with a list of what they should be; the damaged files."""
    suffix, damaged_suffix, write = FORMATS[name]
    root = folder / "recordings"
    root.mkdir()
    mutants = []
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    for number in range(n + 1):
        path = root / (f"m{number:03}_raw{suffix}" if suffix == ".fif" else f"m{number:03}{suffix}")
        write(path)
        mutants.append(path.with_suffix(damaged_suffix))
    (folder / "people.csv").write_text("who,age\nm,9\n")
    reader = Folder(root, "mine", folder / "people.csv", "who", "^(m)", {".": "rest"}, pattern=f"*{suffix}")
    freeze(reader)
    for mutant in mutants[1:]:
        mutant.write_bytes(mutate(mutant.read_bytes(), draw))
    return reader, mutants[1:]


def outcomes(reader: Folder, mutants: list[Path], out: Path) -> Counter[str]:
    """Build without the list; check what may never happen, and count what became of each mutant."""
    (reader.root / "SHA256SUMS").unlink()
    report = build(reader, PLAN, out)
    store = Store.open(out)
    assert store.verify() == []
    keys = [path.stem for path in mutants]
    findings = store.findings
    failed = findings[findings["severity"] == "failed"].set_index("where")
    assert report.failed == len(failed) == failed.index.nunique()
    count: Counter[str] = Counter()
    place = {key: row for row, key in enumerate(store.recordings["key"])}
    whole = store.samples(place["m000_raw" if "m000_raw" in place else "m000"])
    twins = set(findings[findings["rule"] == "same-signal-twice"]["where"])
    for key in keys:
        if key in failed.index:
            rule, detail = failed.loc[key, ["rule", "detail"]]
            assert "\n" not in detail
            assert "Traceback" not in detail
            assert rule != "checksum-differs"
            assert key in detail, detail
            count[f"refused: {rule}"] += 1
        elif key in place:
            row = place[key]
            assert np.isfinite(store.offsets_uV(row)).all()
            same = store.samples(row).shape == whole.shape and np.array_equal(store.samples(row), whole)
            count["same samples" if same else "other samples"] += 1
        elif key in twins:
            count["same samples"] += 1
        else:
            assert key in set(findings[findings["severity"] == "skipped"]["where"]), key
            count["skipped"] += 1
    assert sum(count.values()) == len(mutants)
    return count


def check_with_checksums(name: str, n: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, mutants = make_mutants(folder, name, n)
    with monkeypatch.context() as patch:
        patch.setattr("cerebro.data.spread.run_in_children", in_this_process)  # no damaged file is opened
        report = build(reader, PLAN, folder / "store")
    assert (report.read, report.failed, report.verified) == (1, n, 1)
    findings = Store.open(folder / "store").findings
    assert set(findings["rule"]) == {"checksum-differs"}
    for mutant, detail in zip(mutants, findings.sort_values("where")["detail"], strict=True):
        assert str(mutant) in detail
        assert "\n" not in detail


@pytest.mark.parametrize("name", FORMATS)
def test_every_mutation_is_found_and_named_with_checksums(name, tmp_path, monkeypatch):
    check_with_checksums(name, N_FEW, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", FORMATS)
def test_without_checksums_no_mutation_crashes_the_build_or_brings_a_value_that_is_no_number(
    name, tmp_path, monkeypatch
):
    if "EEGLAB" not in name:  # scipy has crashed on such files: those are read in a child, as always
        monkeypatch.setattr("cerebro.data.spread.run_in_children", in_this_process)
    count = outcomes(*make_mutants(tmp_path, name, N_FEW), tmp_path / "store")
    assert count["refused: unusable-recording"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_500_mutations_of_each_format(name, tmp_path, monkeypatch):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    check_with_checksums(name, N_MANY, tmp_path / "with", monkeypatch)
    count = outcomes(*make_mutants(tmp_path / "without", name, N_MANY), tmp_path / "store")
    refused = sum(n for what, n in count.items() if what.startswith("refused"))
    harmless, other = count["same samples"], count["other samples"] + count["skipped"]
    print(f"\n| {name} | {N_MANY} | {refused} | {harmless} | {other} |")
    assert not {"refused: reader-crashed", "refused: reader-hung", "refused: reader-error"} & set(count)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("BrainVision .vhdr", "BrainVision .vmrk")])
@pytest.mark.parametrize("change", ["one byte less", "half", "one byte more"])
def test_a_size_that_contradicts_the_header_is_refused(name, change, tmp_path):
    reader, (mutant,) = make_mutants(tmp_path, name, 1)
    suffix, _, write = FORMATS[name]
    write(mutant.with_suffix(suffix))
    whole = mutant.read_bytes()
    mutant.write_bytes({"one byte less": whole[:-1], "half": whole[: len(whole) // 2 - 1]}.get(change, whole + b"x"))
    (reader.root / "SHA256SUMS").unlink()
    entry = next(entry for entry in reader.scan().entries if entry.path.stem == mutant.stem)
    with pytest.raises(DataError, match=mutant.stem) as caught:
        reader.load(entry)
    assert "\n" not in str(caught.value)


TABLES = {
    "participants.tsv": "participants.tsv",
    "events.tsv": "sub-A/eeg/sub-A_task-RestingState_events.tsv",
    "channels.tsv": "sub-A/eeg/sub-A_task-RestingState_channels.tsv",
    "eeg.json": "sub-A/eeg/sub-A_task-RestingState_eeg.json",
}


@pytest.fixture
def tree(tmp_path: Path) -> HBN:
    """One release with one recording."""
    root = tmp_path / "hbn"
    folder = root / "sub-A" / "eeg"
    folder.mkdir(parents=True)
    (root / "participants.tsv").write_text(
        "participant_id\trelease_number\tsex\tage\tp_factor\tRestingState\n"
        "sub-A\tR1\tF\t9.25\t-0.731\tavailable\nsub-B\tR1\tM\t11.5\tn/a\tunavailable\n"
    )
    stem = "sub-A_task-RestingState"
    (folder / f"{stem}_events.tsv").write_text(
        "onset\tduration\tsample\tvalue\tevent_code\n0.5\tn/a\tn/a\tresting_start\tn/a\n"
        "1.25\tn/a\tn/a\tinstructed_toOpenEyes\tn/a\n3.5\tn/a\tn/a\tinstructed_toCloseEyes\tn/a\n"
    )
    names = hbn_129().channels
    (folder / f"{stem}_channels.tsv").write_text("name\ttype\tunits\n" + "".join(f"{n}\tEEG\tuV\n" for n in names))
    (folder / f"{stem}_eeg.json").write_text(
        '{"SamplingFrequency": 100, "EEGChannelCount": 129, "RecordingDuration": 5.0, "EEGReference": "Cz"}'
    )
    eeg = 20 * np.random.default_rng(0).standard_normal((129, N_TIMES))
    write_set(folder / f"{stem}_eeg.set", eeg.astype(np.float32), names, SFREQ)
    return HBN(root)


def scan_or_line(reader: HBN) -> tuple[Scan | None, str]:
    try:
        return with_checksums(reader, reader.scan()), ""
    except DataError as error:
        return None, str(error)


def check_tables(reader: HBN, name: str, n: int, staging: Path) -> Counter[str]:
    path = reader.root / TABLES[name]
    whole = path.read_bytes()
    freeze(reader)
    draw = np.random.default_rng(len(name))
    recipe = Recipe(reader, PLAN, 0.05, "code")
    count: Counter[str] = Counter()
    for _ in range(n):
        path.write_bytes(mutate(whole, draw))
        try:
            scan = with_checksums(reader, reader.scan())
            found = [finding for finding in scan.findings if finding.severity == "failed"]
            found += [make_piece(recipe, entry, (), staging).failure for entry in scan.entries]
            lines = [finding.detail for finding in found if finding is not None]
        except DataError as error:
            lines = [str(error)]
        assert any(path.name in line and "\n" not in line for line in lines), lines
        (reader.root / "SHA256SUMS").rename(staging / "list")
        scan, line = scan_or_line(reader)
        if scan is None:
            assert path.name in line
            assert "\n" not in line
        else:
            assert not np.isinf(scan.participants.select_dtypes(float).to_numpy()).any()
            assert np.isfinite([event.onset_s for entry in scan.entries for event in entry.events]).all()
        is_refused = scan is None or any(finding.severity == "failed" for finding in scan.findings)
        count["refused" if is_refused else "read"] += 1
        (staging / "list").rename(reader.root / "SHA256SUMS")
    return count


@pytest.mark.parametrize("name", TABLES)
def test_every_mutation_of_a_table_is_found_with_checksums_and_none_crashes_without(name, tree, tmp_path):
    assert check_tables(tree, name, N_FEW, tmp_path)["refused"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_500_mutations_of_each_table(name, tree, tmp_path):
    count = check_tables(tree, name, N_MANY, tmp_path)
    print(f"\n| {name} | {N_MANY} | {count['refused']} | | {count['read']} |")

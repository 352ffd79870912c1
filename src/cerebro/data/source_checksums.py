"""What the lists of checksums beside a data set say about its files: which differ, and which none names.

EDF, BrainVision, FIF and EEGLAB files carry no checksum; a list of SHA-256 sums is all that tells a damaged sample from
a true one. `cerebro.data.checksum_list` has the format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cerebro.data.checksum_list import (
    CHECKSUMS,
    Checksums,
    annex_key,
    read_checksums,
    recording_of,
    write_checksums,
)
from cerebro.data.readers.base import Entry, Finding, Reader, Scan
from cerebro.data.readers.found_files import files_below
from cerebro.data.source_files import data_files, file_of, known_digests_of, sidecar_files
from cerebro.errors import DataError
from cerebro.progress import progress

TABLE_SUFFIXES = frozenset({".tsv", ".csv", ".json"})
RULE_DIFFERS, RULE_UNLISTED, RULE_ABSENT = "checksum-differs", "not-in-checksums", "listed-file-absent"


def freeze(reader: Reader) -> tuple[Path, int]:
    """Write the checksums of every file of a reader's data set, after what is listed already was verified.

    Hidden files, half-written ones and files that are not there (links of git-annex that lead nowhere) are left out.

    Returns
    -------
    file : Path
        ``root/SHA256SUMS``.
    n_files : int
        Files in it.

    Raises
    ------
    DataError
        If a list is there already and a file differs from it or is absent: damage is never made the rule.
    """
    root = _root(reader)
    if root is None:
        raise DataError(f"reader {type(reader).__name__} has no folder for checksums; leave --freeze out.")
    files = [*_files_below(root), *(path for path in _tables_of(reader) if not path.is_relative_to(root))]
    if not files:
        raise DataError(f"{root} holds no file to freeze; set root to the folder of the recordings.")
    old = read_checksums(root / CHECKSUMS) if (root / CHECKSUMS).is_file() else None
    for name in progress(sorted(old.digests if old else ()), "verify", "file"):
        problem = _problem(old, name, {}) if old else ""
        if problem:
            raise DataError(
                f"{problem}; replace it by a whole copy, or remove {root / CHECKSUMS} if the change is meant, and run "
                "the same command again."
            )
    return write_checksums(root, files), len(files)


def recording_problem(path: Path, root: Path | None, digests: Mapping[Path, Mapping[str, str]]) -> str:
    """What of a recording's files contradicts a list of checksums or a git-annex key, in one line; empty if nothing.

    Parameters
    ----------
    path : Path
        Signal file, or a place in one.
    root : Path or None
        Folder of the data set: every ``SHA256SUMS`` between it and the file counts.
    digests : mapping of Path to mapping of str to str
        `digests_of` the files that were read already; others that a list names are read here.
    """
    problems = []
    path = file_of(path)
    for file, found in digests.items():
        key = annex_key(file)
        if key is not None and (found[key.algorithm] != key.digest or file.stat().st_size != key.n_bytes):
            problems.append(f"{file} is not what its git-annex key says ({key.algorithm} {key.digest[:12]}...)")
    for checksums in _lists_above(path, root):
        for name in checksums.of_recording.get(recording_of(checksums.name_of(path)), ()):
            problem = _problem(checksums, name, digests)
            if problem:
                problems.append(problem)
    if not problems:
        return ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}; replace it by a whole copy, or list it anew if the change is meant"


def with_checksums(reader: Reader, scan: Scan) -> Scan:
    """Add to a scan what the lists of checksums say about tables, and which files no list names.

    Signals are not opened; `recording_problem` compares them when they are read.

    Raises
    ------
    DataError
        If a table of the whole data set, such as ``participants.tsv``, is not what its checksum says: labels of all
        recordings hang on it.
    """
    root = _root(reader)
    lists = _lists(root, scan.entries)
    findings = list(scan.findings)
    for checksums in lists:
        recorded = {recording_of(checksums.name_of(file_of(entry.path))) for entry in scan.entries}
        absent = []
        for recording, names in checksums.of_recording.items():
            if recording in recorded:
                continue  # compared when the recording is read
            absent += [name for name in names if not checksums.path_of(name).exists()]
            is_recording = recording.rsplit("/", 1)[-1].startswith("sub-") or any(not _is_table(n) for n in names)
            for name in filter(_is_table, names):
                problem = _problem(checksums, name, {}) if checksums.path_of(name).exists() else ""
                if problem and not is_recording and not _is_signal(reader, checksums.path_of(name)):
                    raise DataError(
                        f"{problem}; replace it by a whole copy, or freeze the data set anew if the change is meant."
                    )
                if problem:
                    findings.append(Finding(RULE_DIFFERS, "failed", name, problem))
        if absent:
            detail = f"{len(absent)} of {len(checksums.digests)} listed files are absent, such as {min(absent)}"
            findings.append(Finding(RULE_ABSENT, "skipped", str(_shown(checksums.file, root)), detail))
    for table in _tables_of(reader):
        above = _lists_above(table, root)
        if above and not any(checksums.name_of(table) in checksums.digests for checksums in above):
            findings.append(Finding(RULE_UNLISTED, "repaired", table.name, f"{table.name} is in no {CHECKSUMS}"))
    for entry in scan.entries:
        unlisted = _unlisted(entry, root)
        if unlisted:
            detail = f"in no {CHECKSUMS}, not verified: {', '.join(unlisted)}"
            findings.append(Finding(RULE_UNLISTED, "repaired", entry.key, detail))
    return Scan(scan.entries, findings, scan.participants)


def count_verified(reader: Reader, entries: Iterable[Entry]) -> int:
    """How many recordings have a signal file whose checksum is known from a list or a git-annex key."""
    root = _root(reader)
    files = [file_of(entry.path) for entry in entries]
    return sum(annex_key(file) is not None or _is_listed(file, root) for file in files)


def _problem(checksums: Checksums, name: str, digests: Mapping[Path, Mapping[str, str]]) -> str:
    path = checksums.path_of(name)
    try:
        found = (digests.get(path) or known_digests_of(path))["sha256"]
    except FileNotFoundError:
        return f"{path} is listed in {checksums.file.name} and absent"
    expected = checksums.digests[name]
    if found == expected:
        return ""
    return f"{path} differs from {checksums.file.name} (SHA-256 {found[:12]}... instead of {expected[:12]}...)"


def _lists(root: Path | None, entries: Sequence[Entry]) -> list[Checksums]:
    """Every list that speaks of a recording or of the root, each once."""
    folders = {folder for entry in entries for folder in _folders_above(entry.path, root)}
    files = {folder / CHECKSUMS for folder in folders | ({root} if root else set())}
    return [read_checksums(file) for file in sorted(files) if file.is_file()]


def _lists_above(path: Path, root: Path | None) -> list[Checksums]:
    files = [folder / CHECKSUMS for folder in _folders_above(path, root)]
    return [read_checksums(file) for file in files if file.is_file()]


def _folders_above(path: Path, root: Path | None) -> Iterator[Path]:
    """Folders from a file up to the root of its data set; the root alone where the file lies outside."""
    if root is None:
        return
    if root in path.parents:
        for folder in path.parents:
            if folder == root:
                break
            yield folder
    yield root


def _is_listed(path: Path, root: Path | None) -> bool:
    return any(checksums.name_of(path) in checksums.digests for checksums in _lists_above(path, root))


def _unlisted(entry: Entry, root: Path | None) -> list[str]:
    """Names of a recording's files that no list holds, where there is a list; files of git-annex need none."""
    if not _lists_above(entry.path, root):
        return []
    path = file_of(entry.path)
    files = [*data_files(path), *sidecar_files(path)]
    return [file.name for file in files if annex_key(file) is None and file.is_file() and not _is_listed(file, root)]


def _root(reader: Reader) -> Path | None:
    root = getattr(reader, "root", None)
    return root if isinstance(root, Path) else None


def _tables_of(reader: Reader) -> list[Path]:
    """Tables of the whole data set: those that the reader was given by name, and ``participants.tsv``."""
    root = _root(reader)
    named = {value for value in vars(reader).values() if isinstance(value, Path)}
    named |= {root / "participants.tsv"} if root else set()
    return sorted(path for path in named if path.is_file())


def _files_below(root: Path) -> list[Path]:
    """What a list of the whole data set names: all that readers find, and the tables and notes beside it."""
    files = files_below(root, "**/*")
    return [file for file in files if file.is_file() and not file.name.startswith(".") and file.name != CHECKSUMS]


def _is_signal(reader: Reader, path: Path) -> bool:
    """Whether a table is one of the recordings themselves, of which one may be set aside."""
    root, pattern = _root(reader), getattr(reader, "pattern", "")
    return root is not None and bool(pattern) and path in files_below(root, pattern)


def _is_table(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES


def _shown(file: Path, root: Path | None) -> Path:
    return file.relative_to(root) if root and file.is_relative_to(root) else file

"""What the path of a TUH recording says: patient, session, token, montage folder, release, labels.

The corpus has had several layouts (``edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/...``, since version 2
``s001_2015``, before version 1.2 ``01_tcp_ar/000/00000000/...``, TUAB ``train/normal/01_tcp_ar/...``), so each part of
a path is judged by its form and not by its depth.
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

RELEASES = {"train": "train", "dev": "dev", "dev_test": "dev", "eval": "eval"}
# Folder -> (label, value); TUAB and TUEP.
LABELS = {
    "normal": ("abnormal", 0.0),
    "abnormal": ("abnormal", 1.0),
    "epilepsy": ("epilepsy", 1.0),
    "00_epilepsy": ("epilepsy", 1.0),
    "no_epilepsy": ("epilepsy", 0.0),
    "01_no_epilepsy": ("epilepsy", 0.0),
}
REFERENCES = {"ar": "average", "le": "linked-ears"}

_FILE = re.compile(r"(?P<patient>[a-z]{8}|\d{8})_s(?P<session>\d{3})_t(?P<token>\d{3,})")
_EVENTS_TRAIN = re.compile(r"(?P<patient>[a-z]{8})_(?P<token>\d{8})")  # TUEV: aaaaaaar/aaaaaaar_00000001
_EVENTS_EVAL = re.compile(r"[a-z]{4}_(?P<patient>\d{3})_a_(?P<token>\d*)")  # TUEV: 032/bckg_032_a_
_SESSION = re.compile(r"s(?P<session>\d{3})(?:_\d{4}(?:_\d{2}_\d{2})?)?")
_MONTAGE = re.compile(r"\d{2}_tcp_(?P<reference>ar|le)(?:_a)?")


@dataclass(frozen=True)
class TuhName:
    """What a path says.

    Parameters
    ----------
    patient : str
        Eight letters or digits; ``eval-032`` for TUEV's evaluation set, whose files do not name the patient.
    session : str
        With the date where the path has one, such as ``s001_2015_12_30``; empty for TUEV.
    token : int
        Number of the part within its session.
    montage : str
        Folder such as ``01_tcp_ar``; empty where there is none.
    reference : str
        ``average``, ``linked-ears``, or empty without a montage folder.
    release : str
        ``train``, ``dev``, ``eval``, or empty.
    labels : dict of str to float
        ``abnormal`` or ``epilepsy`` where the tree sorts by them.
    """

    patient: str
    session: str
    token: int
    montage: str = ""
    reference: str = ""
    release: str = ""
    labels: dict[str, float] = field(default_factory=dict)


def read_name(key: str) -> TuhName | str:
    """Take the path of a recording apart; in place of a name, the reason why it fits no layout.

    Parameters
    ----------
    key : str
        Path below the root, with ``/`` and no suffix.
    """
    *folders, stem = PurePosixPath(key).parts
    release = [RELEASES[folder] for folder in folders if folder in RELEASES]
    montages = [match for folder in folders if (match := _MONTAGE.fullmatch(folder))]
    sessions = [(place, match) for place, folder in enumerate(folders) if (match := _SESSION.fullmatch(folder))]
    labels = dict(LABELS[folder] for folder in folders if folder in LABELS)
    if len(set(release)) > 1 or len({match[0] for match in montages}) > 1 or len(sessions) > 1:
        return "the path names two releases, montages or sessions"
    if len({folder for folder in folders if folder in LABELS}) > 1 and len(labels) == 1:
        return f"the path says {next(iter(labels))} in two ways"
    match = _FILE.fullmatch(stem)
    if match is None:
        return _read_events(stem, folders, release[:1])
    session = f"s{match['session']}"
    if sessions:
        place, found = sessions[0]
        if found["session"] != match["session"]:
            return f"the file is of session {session}, its folder {found[0]}"
        owner = folders[place - 1] if place else match["patient"]
        if owner != match["patient"]:
            return f"the file is of patient {match['patient']}, its folder {owner}"
        session = found[0]
    return TuhName(
        patient=match["patient"],
        session=session,
        token=int(match["token"]),
        montage=montages[0][0] if montages else "",
        reference=REFERENCES[montages[0]["reference"]] if montages else "",
        release=release[0] if release else "",
        labels=labels,
    )


def _read_events(stem: str, folders: list[str], release: list[str]) -> TuhName | str:
    """Names of the events corpus (TUEV); they count below their release's folder only."""
    train, evaluation = _EVENTS_TRAIN.fullmatch(stem), _EVENTS_EVAL.fullmatch(stem)
    if train and release and folders[-1] == train["patient"]:
        return TuhName(train["patient"], "", int(train["token"]), release=release[0])
    if evaluation and release and folders[-1] == evaluation["patient"]:
        return TuhName(f"eval-{evaluation['patient']}", "", int(evaluation["token"] or 0), release=release[0])
    return "the name is not patient_s001_t000"

"""Originals and challenge copies of one release side by side: nothing doubled, the right people held out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.readers import HBN
from cerebro.data.readers.hbn_files import release_name
from cerebro.data.splits import ParticipantSplit
from cerebro.errors import DataError
from cerebro.montage import hbn_129
from cerebro.simulate.writers import write_bdf


def counted(scan):
    return sorted(f"{finding.severity}:{finding.rule} {finding.where}" for finding in scan.findings)


def as_bdf(path: Path) -> Path:
    """Replace a .set file by a .bdf file, as the challenge hands them out."""
    path.unlink()
    noise = 20 * np.random.default_rng(0).standard_normal((129, 1000))
    write_bdf(path.with_suffix(".bdf"), noise.astype(np.float32), hbn_129().channels, 100.0)
    return path.with_suffix(".bdf")


@pytest.fixture
def both(release):
    """R5 as an original with A and B, as a challenge copy with A, B and C, as its small form with A; and R1 with D."""
    original, copy, mini = release("ds005509", "R5"), release("R5_L100_bdf", "R5"), release("R5_mini_L100_bdf", "R5")
    other = release("R1_L100_bdf", "R1")
    for folder, people in ((original, "AB"), (copy, "ABC"), (mini, "A"), (other, "D")):
        folder.participants(*({"participant_id": f"sub-{person}", "age": "9"} for person in people))
        for person in people:
            path = folder.recording(f"sub-{person}", "RestingState")
            if folder is not original:
                as_bdf(path)
    return original.folder.parent


def test_of_two_copies_of_a_recording_the_original_is_used_and_the_others_are_counted(both):
    scan = HBN(both).scan()
    assert [(entry.key, entry.path.parents[2].name) for entry in scan.entries] == [
        ("R1/sub-D/eeg/sub-D_task-RestingState", "R1_L100_bdf"),
        ("R5/sub-A/eeg/sub-A_task-RestingState", "ds005509"),
        ("R5/sub-B/eeg/sub-B_task-RestingState", "ds005509"),
        ("R5/sub-C/eeg/sub-C_task-RestingState", "R5_L100_bdf"),
    ]
    assert counted(scan) == [
        "skipped:second-copy R5_L100_bdf/sub-A/eeg/sub-A_task-RestingState",
        "skipped:second-copy R5_L100_bdf/sub-B/eeg/sub-B_task-RestingState",
        "skipped:second-copy R5_mini_L100_bdf/sub-A/eeg/sub-A_task-RestingState",
    ]
    assert scan.participants["release_number"].to_dict() == {f"sub-{p}": "R5" for p in "ABC"} | {"sub-D": "R1"}
    assert "also_in_releases" not in scan.participants


def test_holding_out_r5_holds_out_its_people_whichever_copy_they_come_from(both):
    for copies, people in (("any", "ABC"), ("original", "AB"), ("challenge", "ABC")):
        scan = HBN(both, copies=copies).scan()
        rows = [{"participant": e.participant, "release": e.release, "source_sha256": e.key} for e in scan.entries]
        recordings = pd.DataFrame(rows)
        if copies == "original":
            assert {entry.participant for entry in scan.entries} == {"sub-A", "sub-B"}
            continue
        sides = ParticipantSplit(val_ratio=0.0, test_releases=("R5",)).sides(scan.participants, recordings)
        assert sides.test == tuple(f"sub-{person}" for person in people)
        assert sides.train == ("sub-D",)


def test_copies_can_be_chosen_and_what_is_left_out_is_counted(both):
    scan = HBN(both, copies="challenge").scan()
    assert {entry.path.suffix for entry in scan.entries} == {".bdf"}
    assert len(scan.entries) == 4
    assert counted(scan) == [
        "skipped:copy-left-out ds005509",
        "skipped:second-copy R5_mini_L100_bdf/sub-A/eeg/sub-A_task-RestingState",
    ]
    with pytest.raises(DataError, match=r"holds no original copy of a release \(found R1_L100_bdf\)"):
        HBN(both / "R1_L100_bdf", copies="original").scan()


def test_a_copy_without_its_signal_gives_way_to_one_that_has_it(both):
    (both / "ds005509/sub-A/eeg/sub-A_task-RestingState_eeg.set").unlink()
    used = {entry.participant: entry.path.parents[2].name for entry in HBN(both).scan().entries}
    assert used["sub-A"] == "R5_L100_bdf"
    planned = {entry.participant: entry.path.parents[2].name for entry in HBN(both).scan(False).entries}
    assert planned["sub-A"] == "R5_L100_bdf"


def test_labels_that_differ_between_copies_are_those_of_the_one_read_first_and_counted(both):
    table = both / "R5_L100_bdf/participants.tsv"
    table.write_text(table.read_text().replace("sub-B\tR5\tn/a\t9", "sub-B\tR5\tn/a\t10"))
    scan = HBN(both).scan()
    assert "repaired:copies-disagree R5_L100_bdf/sub-B" in counted(scan)
    assert scan.participants.loc["sub-B", "age"] == 9.0


def test_a_release_is_chosen_by_its_name_whatever_its_folder_is_called(both):
    for name in ("R5", "5", "R5_L100_bdf", "ds005509"):
        assert {entry.release for entry in HBN(both, releases=(name,)).scan().entries} == {"R5"}
    with pytest.raises(DataError, match=r"none of the releases R7 \(found R1, R5\)"):
        HBN(both, releases=("R7",)).scan()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("R5", "R5"), ("5", "R5"), ("5.0", "R5"), ("R5_L100", "R5"), ("R11_mini_L100_bdf", "R11")),
        *(("cmi_bids_R10", "R10"), ("ds005505", "R1"), ("ds005512", "R8"), ("ds005514", "R9"), ("ds005516", "R11")),
        *(("NC", "NC"), ("ds1", "ds1"), ("hbn_2024", "hbn_2024"), ("RestingState", "RestingState")),
    ],
)
def test_release_names(text, name):
    assert release_name(text) == name


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["A", "B", "C"]), st.sampled_from([0, 1, 2])), min_size=1, max_size=8))
def test_whatever_lies_where_no_recording_is_listed_twice_and_none_is_lost(tmp_path_factory, places):
    """Copies at random: the entries are the distinct (person, recording), each from the first copy that has it."""
    names = ("ds005509", "R5_L100_bdf", "R5_mini_L100_bdf")
    root = tmp_path_factory.mktemp("copies")
    for at in {at for _, at in places}:
        (root / names[at]).mkdir()
        people = sorted({person for person, where in places if where == at})
        lines = "".join(f"sub-{person}\tR5\n" for person in people)
        (root / names[at] / "participants.tsv").write_text(f"participant_id\trelease_number\n{lines}")
        for person in people:
            folder = root / names[at] / f"sub-{person}" / "eeg"
            folder.mkdir(parents=True)
            (folder / f"sub-{person}_task-symbolSearch_eeg.set").write_bytes(b"x")
    scan = HBN(root).scan()
    first = {person: min(at for who, at in places if who == person) for person, _ in places}
    assert {entry.participant: entry.path.parents[2].name for entry in scan.entries} == {
        f"sub-{person}": names[at] for person, at in first.items()
    }
    assert len(scan.entries) == len(first)
    second = [finding for finding in scan.findings if finding.rule == "second-copy"]
    assert len(second) == len(set(places)) - len(first)

"""Two labels from a table: what is refused in one line, and what is counted."""

from pathlib import Path

import pytest

from cerebro.data.two_labels import Label, read_labels
from cerebro.errors import CerebroError, ConfigError

PEOPLE = ("p1", "p2", "p3")


def table(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text)
    return path


def label(folder: Path, text: str, *values: str | int | float) -> Label:
    zero, one = values or ("no", "yes")
    return Label(table(folder, text), "outcome", (zero, one), "id")


def test_participants_get_zero_and_one_and_rows_may_repeat(tmp_path: Path) -> None:
    known, findings = read_labels(label(tmp_path, "id,visit,outcome\np1,1,no\np1,2,no\np2,1,yes\np3,1,no\n"), PEOPLE)
    assert known == {"p1": 0, "p2": 1, "p3": 0}
    assert findings == []


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    known, _ = read_labels(label(tmp_path, "id,outcome\np1,1.0\np2,2\n", 1, 2.0), PEOPLE[:2])
    assert known == {"p1": 0, "p2": 1}


def test_those_whom_only_one_side_knows_are_counted(tmp_path: Path) -> None:
    known, findings = read_labels(
        label(tmp_path, "id,outcome\np1,no\np2,yes\np4,n/a\np5,yes\np6,n/a\n"), ["p1", "p2", "p3", "p6"]
    )
    assert known == {"p1": 0, "p2": 1}
    assert {(one.rule, one.severity, one.where) for one in findings} == {
        ("participant-not-listed", "skipped", "p3"),
        ("label-missing", "skipped", "p6"),
        ("participant-without-recording", "skipped", "p4"),
        ("participant-without-recording", "skipped", "p5"),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "id,outcome\np1,no\np2,yes\np1,yes\n",
            "gives participant p1 both labels (no in data row 1, yes in data row 3",
        ),
        ("id,outcome\np1,no\np2,maybe\n", "holds 'maybe' in data row 2, expected 'no' or 'yes' (found maybe, no)"),
        ("id,outcome\np1,no\np2,no\n", "all of them the same (no)"),
        ("id,outcome\np1,n/a\np2,\n", "0 participants with recordings have a label"),
        ("id,outcome\nS1,no\nS2,yes\n", "none of the 3 participants of the recordings (p1, p2, p3) stands in"),
        ("id,result\np1,no\n", "has no column 'outcome' (found id, result); set label.column"),
        ("name,outcome\np1,no\n", "has no column 'id' (found name, outcome); set label.participant_column"),
        ("id,outcome\n,no\n", "data row 1 names no participant"),
    ],
)
def test_tables_that_say_no_two_labels_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CerebroError) as error:
        read_labels(label(tmp_path, text), PEOPLE)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_table_and_values_that_are_no_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CerebroError, match=r"label table not found at .*; set label\.table"):
        read_labels(Label(tmp_path / "none.csv", "outcome", ("a", "b")), PEOPLE)
    with pytest.raises(ConfigError, match="two different values"):
        Label(tmp_path, "outcome", (1, 1))
    with pytest.raises(ConfigError, match="put quotes around them"):
        Label(tmp_path, "outcome", (False, True))

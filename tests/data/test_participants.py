"""The participants table: missing stays missing, nobody stands in it twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.participants import read_participants, read_people
from cerebro.errors import DataError


def write(tmp_path, text, name="participants.tsv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_blanks_and_not_available_are_missing(tmp_path):
    table = read_participants(
        write(tmp_path, "participant_id\tage\tp_factor\tnote\nsub-B\tn/a\t0.5\t\nsub-A\t9.25\t\tn/a\n\n")
    )
    assert list(table.index) == ["sub-A", "sub-B"]
    assert table.loc["sub-A", "age"] == 9.25
    assert np.isnan(table.loc["sub-B", "age"])
    assert np.isnan(table.loc["sub-A", "p_factor"])
    assert table["note"].isna().all()


def test_sex_is_male_0_female_1_whatever_the_column_is_called(tmp_path):
    for name, cells in (("sex", "MFmO"), ("Gender", ("male", "Female", "M", "n/a"))):
        rows = "".join(f"p{place},{cell}\n" for place, cell in enumerate(cells))
        table = read_participants(write(tmp_path, f"participant_id,{name}\n{rows}", "people.csv"))
        np.testing.assert_array_equal(table["sex"], [0.0, 1.0, 0.0, np.nan])


@given(st.lists(st.one_of(st.none(), st.floats(-4, 4)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_numbers_survive_the_file(tmp_path_factory, values):
    rows = [f"sub-{place}\t{'n/a' if value is None else repr(value)}" for place, value in enumerate(values)]
    path = write(tmp_path_factory.mktemp("table"), "\n".join(["participant_id\tattention", *rows]))
    expected = [np.nan if value is None else value for value in values]
    np.testing.assert_array_equal(read_participants(path)["attention"], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tage\nsub-A\t1\nsub-A\t2\n", r"lists sub-A more than once, with another age each time"),
        ("participant_id\tage\nsub-A\t1\nsub-A\t1\n", r"lists 1 participants more than once \(sub-A\)"),
        ("participant_id\tage\nsub-A\t1\nsub-a\t2\n", "lists sub-A and sub-a, one name in two spellings"),
        ("participant_id\tage\nn/a\t1\n", "names no participant"),
        ("participant_id\tage\nsub-A\told\n", "column age should hold numbers"),
        ("participant_id\tage\nsub-A\tinf\n", "column age should hold numbers"),
        ("participant_id\tsex\nsub-A\tX\n", "column sex holds 'X'"),
        ("participant_id\tsex\tgender\nsub-A\tM\tF\n", "mean the same"),
        ("participant_id\tage\tage\nsub-A\t1\t2\n", "column age twice"),
        ("participant_id\tage\nsub-A\n", "line 2 has 1 cells under a header of 2"),
        ("person\tage\nsub-A\t1\n", "no column 'participant_id'"),
        ("", "is empty"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_participants(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_rows_that_say_the_same_count_once_where_that_is_allowed(tmp_path):
    text = "participant_id\tage\tsex\nsub-B\t2\tF\nsub-A\tn/a\tM\nsub-A\t\tM\n"
    table, repeated = read_people(write(tmp_path, text))
    assert (list(table.index), repeated) == (["sub-A", "sub-B"], ("sub-A",))
    assert table["sex"].tolist() == [0.0, 1.0]


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    path = tmp_path / "participants.tsv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_participants(path)
    with pytest.raises(DataError, match=r"no table that can be read here; give a \.tsv or \.csv"):
        read_participants(tmp_path / "people.xlsx")

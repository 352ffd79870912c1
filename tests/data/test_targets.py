import numpy as np
import pandas as pd
import pytest

from cerebro.data.columns import column_of
from cerebro.data.targets import participant_values, resolve
from cerebro.data.windows import WindowTable
from cerebro.errors import ConfigError, DataError

PEOPLE = pd.DataFrame(
    {"p_factor": [0.5, np.nan, -1.0], "sex": ["M", "F", "n/a"], "age": ["7.5", " ", "9"], "site": ["a", "b", "c"]},
    index=pd.Index(["x", "y", "z"], name="participant_id"),
)
TABLE = WindowTable(
    column_of(np.array([0, 0, 1, 2], np.int32)),
    column_of(np.arange(4)),
    2,
    targets={"response_time": column_of(np.array([1.0, np.nan, 2.0, 3.0], np.float32))},
)
EVERYONE = np.ones(3, bool)


def test_missing_labels_are_masked_and_never_filled_in():
    labels = resolve(("p_factor", "response_time"), TABLE, PEOPLE, EVERYONE)
    rows, participant = np.arange(4), np.array([0, 0, 1, 2])
    targets, known = labels.batch(rows, participant)
    assert known["p_factor"].tolist() == [True, True, False, True]
    assert known["response_time"].tolist() == [True, False, True, True]
    assert targets["p_factor"][known["p_factor"]].tolist() == [0.5, 0.5, -1.0]
    assert targets["p_factor"][~known["p_factor"]].isnan().all()


def test_sex_is_coded_male_0_female_1_and_text_numbers_are_read():
    assert np.array_equal(participant_values(PEOPLE, "sex"), np.float32([0, 1, np.nan]), equal_nan=True)
    assert np.array_equal(participant_values(PEOPLE, "age"), np.float32([7.5, np.nan, 9]), equal_nan=True)


def test_labels_that_may_not_be_used_are_masked():
    labels = resolve(("p_factor",), TABLE, PEOPLE, np.array([False, True, True]))
    _, known = labels.batch(np.arange(4), np.array([0, 0, 1, 2]))
    assert known["p_factor"].tolist() == [False, False, False, True]


def test_a_window_label_comes_before_a_column_of_the_same_name():
    people = PEOPLE.assign(response_time=99.0)
    labels = resolve(("response_time",), TABLE, people, EVERYONE)
    assert labels.values("response_time", np.array([0]), np.array([0])).tolist() == [1.0]


def test_unknown_targets_and_text_columns_are_refused():
    with pytest.raises(ConfigError, match=r"'iq' is unknown; set .* to some of: age, p_factor"):
        resolve(("iq",), TABLE, PEOPLE, EVERYONE)
    with pytest.raises(DataError, match="3 participants have a site that is no number, such as 'a' of x"):
        resolve(("site",), TABLE, PEOPLE, EVERYONE)

"""A length that tells the class is a leak, and is told."""

import numpy as np

from cerebro.data.lengths import telling_length

SHORT, LONG = np.array([900, 1000, 950], np.int64), np.array([3000, 3100, 2900], np.int64)
LENGTHS = np.concatenate([SHORT, LONG])


def told(label: list[float], lengths: np.ndarray = LENGTHS) -> str:
    return telling_length(lengths, np.array(label, np.float32), "state", 100)


def test_lengths_that_separate_the_classes_are_told_with_what_to_type():
    line = told([1, 1, 1, 0, 0, 0])
    assert "samples with state 1 are shorter than those with 0" in line
    assert "AUC 1.00" in line
    assert "set data.windows.init_args.max_windows to 9" in line
    assert "state 1 are longer" in told([0, 0, 0, 1, 1, 1])


def test_lengths_that_overlap_are_no_leak():
    assert told([1, 0, 1, 0, 1, 0]) == ""
    assert told([1, 1, 1, 0, 0, 0], np.full(6, 500, np.int64)) == ""


def test_missing_labels_and_values_that_are_no_classes_are_passed_over():
    assert "AUC 1.00" in told([1, 1, 1, 0, 0, 0, np.nan], np.append(LENGTHS, 5000))
    assert told([0.5, 1, 1, 1, 0, 0]) == ""
    assert told([1, 1, 0, 0, np.nan, np.nan]) == ""  # too few to say

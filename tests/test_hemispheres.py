"""Pairs of electrodes left and right."""

import numpy as np

from cerebro.hemispheres import homologous
from cerebro.montage import standard_1005


def test_pairs_mirror_each_other_in_the_10_05_system():
    channels = ["AF7", "AF8", "TP10", "TP9", "FFC5H", "FFC6H", "CZ", "F3", "F6", "T3", "T4", "fp2", "fp1"]
    assert homologous(channels) == [
        ("AF7", "AF8"),
        ("TP9", "TP10"),
        ("FFC5H", "FFC6H"),
        ("T3", "T4"),
        ("fp1", "fp2"),
    ]
    assert homologous(["E1", "E2", "E11", "E12"]) == []  # a HydroCel net
    assert homologous([f"C{number}" for number in range(1, 33)] + ["A3", "A4"]) == []  # a BioSemi cap


def test_every_pair_of_the_10_05_system_lies_mirrored_about_the_midline():
    cap = standard_1005()
    place = dict(zip(cap.channels, cap.positions, strict=True))
    pairs = homologous(cap.channels)
    left, right = (np.array([place[name] for name in side]) for side in zip(*pairs, strict=True))
    assert (left[:, 0] < 0).all()
    assert (right[:, 0] > 0).all()
    away_mm = 1000 * np.linalg.norm(left * [-1, 1, 1] - right, axis=1)
    assert away_mm.max() < 15  # heads are not quite even
    off = [name for name in cap.channels if name not in {one for pair in pairs for one in pair}]
    assert all(abs(place[name][0]) < 0.01 or name in ("A1", "A2", "M1", "M2") for name in off), off

"""What a path of a TUH tree says, in every layout that the corpus has had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebro.data.readers.tuh_names import TuhName, read_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (  # TUEG since version 1.2 and TUSZ, whole dates
            "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000",
            TuhName("aaaaaaaa", "s001_2015_12_30", 0, "01_tcp_ar", "average"),
        ),
        (  # TUEG 2, years only
            "tuh_eeg/v2.0.1/edf/012/aaaaabcd/s003_2009/02_tcp_le/aaaaabcd_s003_t012",
            TuhName("aaaaabcd", "s003_2009", 12, "02_tcp_le", "linked-ears"),
        ),
        (  # TUEG 1.1
            "edf/01_tcp_ar/099/00009932/s004_2014_09_30/00009932_s004_t013",
            TuhName("00009932", "s004_2014_09_30", 13, "01_tcp_ar", "average"),
        ),
        (  # TUAB 3
            "edf/train/normal/01_tcp_ar/aaaaaaaq_s004_t000",
            TuhName("aaaaaaaq", "s004", 0, "01_tcp_ar", "average", "train", {"abnormal": 0.0}),
        ),
        (  # TUAB 2
            "edf/eval/abnormal/01_tcp_ar/007/00000768/s003_2012_04_06/00000768_s003_t000",
            TuhName("00000768", "s003_2012_04_06", 0, "01_tcp_ar", "average", "eval", {"abnormal": 1.0}),
        ),
        (  # TUSZ 2
            "edf/dev/aaaaaajy/s001_2003_07_16/04_tcp_le_a/aaaaaajy_s001_t001",
            TuhName("aaaaaajy", "s001_2003_07_16", 1, "04_tcp_le_a", "linked-ears", "dev"),
        ),
        (  # TUSZ 1
            "edf/dev_test/03_tcp_ar_a/065/00006520/s001_2010_09_28/00006520_s001_t001",
            TuhName("00006520", "s001_2010_09_28", 1, "03_tcp_ar_a", "average", "dev"),
        ),
        (  # TUEP
            "edf/01_no_epilepsy/aaaaaaiu/s001_2003/02_tcp_le/aaaaaaiu_s001_t000",
            TuhName("aaaaaaiu", "s001_2003", 0, "02_tcp_le", "linked-ears", "", {"epilepsy": 0.0}),
        ),
        (  # TUAR
            "edf/01_tcp_ar/aaaaaaju_s005_t000",
            TuhName("aaaaaaju", "s005", 0, "01_tcp_ar", "average"),
        ),
        ("edf/train/aaaaaaar/aaaaaaar_00000001", TuhName("aaaaaaar", "", 1, release="train")),  # TUEV
        ("edf/eval/032/bckg_032_a_", TuhName("eval-032", "", 0, release="eval")),
        ("edf/eval/032/spsw_032_a_2", TuhName("eval-032", "", 2, release="eval")),
        ("aaaaaaaa_s001_t000", TuhName("aaaaaaaa", "s001", 0)),  # a file by itself
    ],
)  # fmt: skip
def test_every_layout_is_known(key, name):
    assert read_name(key) == name


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("edf/000/aaaaaaaa/s001_2015/01_tcp_ar/recording", "not patient_s001_t000"),
        ("edf/000/aaaaaaaa/s001_2015/01_tcp_ar/aaaaaaa_s001_t000", "not patient_s001_t000"),
        ("edf/000/aaaaaaaa/s001_2015/01_tcp_ar/aaaaaaaa_s001", "not patient_s001_t000"),
        ("edf/000/aaaaaaaa/s001_2015/01_tcp_ar/aaaaaaab_s001_t000", "patient aaaaaaab, its folder aaaaaaaa"),
        ("edf/000/aaaaaaaa/s002_2015/01_tcp_ar/aaaaaaaa_s001_t000", "session s001, its folder s002_2015"),
        ("edf/train/eval/01_tcp_ar/aaaaaaaa_s001_t000", "two releases"),
        ("edf/01_tcp_ar/02_tcp_le/aaaaaaaa_s001_t000", "two releases, montages"),
        ("edf/train/normal/abnormal/01_tcp_ar/aaaaaaaa_s001_t000", "abnormal in two ways"),
        ("edf/eval/033/bckg_032_a_", "not patient_s001_t000"),
        ("edf/032/bckg_032_a_", "not patient_s001_t000"),
    ],
)
def test_a_path_that_contradicts_itself_or_fits_no_layout_says_why(key, reason):
    assert reason in read_name(key)


@given(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=8, max_size=8),
    st.integers(0, 999),
    st.integers(0, 999),
    st.sampled_from(["01_tcp_ar", "02_tcp_le", "03_tcp_ar_a", "04_tcp_le_a"]),
    st.permutations(["group", "patient", "montage", "release"]),
    st.sampled_from(["", "_2015", "_2015_12_30"]),
)
def test_the_order_of_folders_does_not_matter(patient, session, token, montage, order, date):
    label = f"s{session:03d}{date}"
    words = {"group": "017", "patient": f"{patient}/{label}", "montage": montage, "release": "dev"}
    key = "/".join(["edf", *(words[part] for part in order), f"{patient}_s{session:03d}_t{token:03d}"])
    name = read_name(key)
    assert (name.patient, name.session, name.token, name.release) == (patient, label, token, "dev")
    assert name.reference == ("average" if "ar" in montage else "linked-ears")


@given(st.lists(st.text(max_size=12).filter(lambda word: "/" not in word), min_size=1, max_size=6))
def test_any_path_is_a_name_or_a_reason(parts):
    assert isinstance(read_name("/".join(parts) or "x"), TuhName | str)

"""The keys of a processing: they fit each other, travel as plain types, and name files."""

import dataclasses
import json
from pathlib import Path

import pytest

from cerebro.data.processing import Processing, data_set_name, processing_of, write_processing
from cerebro.errors import ConfigError, DataError
from cerebro.files import write_json


def test_defaults_give_windows_of_eight_seconds_and_2048_samples() -> None:
    plan = Processing()
    assert (plan.window_s, plan.window_samples) == (8.0, 2048)


def test_a_processing_survives_json() -> None:
    plan = Processing(
        channels=("AF7", "TP9"), overlap=0.5, peak_uV=300.0, asa_path=Path("/caps/cap.elc"), reference="average"
    )
    assert Processing.from_plain(json.loads(json.dumps(plan.plain()))) == plan
    assert plan != Processing.from_plain(Processing().plain())


def test_a_key_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'warp'"):
        Processing.from_plain({**Processing().plain(), "warp": 1})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"upsample_hz": 100.0}, "upsample_hz=100 is below downsample_hz=256"),
        ({"lowpass_hz": 128.0}, "band 0.5-128 Hz does not fit downsample_hz=256"),
        ({"highpass_hz": 50.0}, "band 50-45 Hz"),
        ({"overlap": 1.0}, "overlap=1 is no share"),
        ({"window_s": 40.0}, "parent_window_s=32 holds no window of window_s=40"),
        ({"window_s": 0.3}, "window_s=0.3 s is 76.8 samples"),
        ({"overlap": 0.3}, "whole number of samples"),
        ({"peak_uV": -1.0}, "peak_uV=-1"),
        ({"channels": ("AF7", "af7")}, "channels names AF7 twice"),
        ({"notch_hz": 0.5}, "no power line"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_in_one_line(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(Processing(), **changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_notch_in_the_stop_band_is_left_out() -> None:
    assert Processing(notch_hz=50.0).filters(500.0).notch_hz == 50
    assert Processing(notch_hz=60.0).filters(500.0).notch_hz == 0  # 45 Hz and a quarter of it end at 56.25 Hz
    assert Processing(notch_hz=60.0, lowpass_hz=100.0).filters(500.0).notch_hz == 60
    assert Processing(notch_hz=50.0).filters(100.0).notch_hz == 0


def test_a_slow_recording_is_refused_where_nothing_is_upsampled() -> None:
    assert Processing().filters(128.0).sfreq == 256
    with pytest.raises(DataError, match="has 128 Hz, less than downsample_hz=256"):
        Processing(upsample_hz=0.0).filters(128.0)


def test_names_list_the_channels_while_they_are_few() -> None:
    assert data_set_name(8.0, ("AF7", "AF8", "TP9", "TP10")) == "8s_af7-af8-tp9-tp10"
    assert data_set_name(2.5, ("CZ",)) == "2.5s_cz"
    many = [f"E{number}" for number in range(1, 65)]
    assert data_set_name(8.0, many).startswith("8s_64ch-")
    assert len(data_set_name(8.0, many)) == len("8s_64ch-") + 8
    assert data_set_name(8.0, many) != data_set_name(8.0, [*many[:-1], "E99"])


def test_names_hold_no_letter_that_a_path_or_a_glob_reads_otherwise() -> None:
    assert data_set_name(8.0, ("A/B", "C*", "D E")) == "8s_a_b-c_-d_e"


def test_what_made_a_store_is_read_back_and_refused_for_other_data(tmp_path: Path) -> None:
    assert processing_of(tmp_path) == {}
    write_json(tmp_path / "manifest.json", {"data_hash": "abc"})
    write_processing(
        tmp_path, "abc", Processing(channels=("Cz",)), "remission", ("no", "yes"), {"a_run-1": "0123456789abcdef"}
    )
    found = processing_of(tmp_path)
    assert Processing.from_plain(found["processing"]) == Processing(channels=("Cz",))
    assert found["label"] == {"column": "remission", "values": ["no", "yes"]}
    assert found["data_hash"] == "abc"
    write_json(tmp_path / "manifest.json", {"data_hash": "other"})
    with pytest.raises(DataError, match="speaks of other data"):
        processing_of(tmp_path)

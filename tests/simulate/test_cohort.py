import dataclasses
import hashlib
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from cerebro.data.readers.hbn import HBN
from cerebro.errors import CerebroError, ConfigError
from cerebro.files import lock_folder
from cerebro.simulate import cohort as module
from cerebro.simulate.cohort import make_spec, simulate_cohort
from cerebro.simulate.defects import SHARES, plan_defects
from cerebro.simulate.presets import PRESETS


def _digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _truth(folder):
    return json.loads((folder / "ground_truth.json").read_text())


def test_two_processes_write_the_same_bytes_as_one(cohort, tiny, tmp_path):
    simulate_cohort(tmp_path / "again", tiny, n_jobs=2)
    assert _digest(tmp_path / "again") == _digest(cohort)


def test_an_interrupted_simulation_continues_to_the_same_bytes(cohort, tiny, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    write = module.write_bdf
    written = []

    def dies(path, *rest):
        if len(written) == 20:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(module, "write_bdf", dies)
    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(out, tiny)
    assert not (out / "ground_truth.json").exists()
    monkeypatch.setattr(module, "write_bdf", lambda path, *rest: (written.append(path), write(path, *rest)))
    cut = written[-1].with_name(f".{written[-1].name}.7.part")
    cut.write_bytes(b"half")  # what SIGKILL within a write leaves
    simulate_cohort(out, tiny)
    assert len(written) == len(set(written))  # nothing is written twice
    assert _digest(out) == _digest(cohort)


def test_a_finished_cohort_is_not_written_again(cohort, tiny, monkeypatch):
    monkeypatch.setattr(module, "write_bdf", lambda *_: pytest.fail("written again"))
    before = _digest(cohort)
    simulate_cohort(cohort, tiny)
    assert _digest(cohort) == before


def test_another_simulation_in_the_same_folder_is_refused(cohort, tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"another simulation .*seed 3"):
        simulate_cohort(cohort, dataclasses.replace(tiny, seed=4))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no simulated cohort"):
        simulate_cohort(tmp_path, tiny)
    assert (tmp_path / "notes.txt").exists()


def test_a_second_writer_is_refused(tiny, tmp_path):
    out = tmp_path / "shared"
    with lock_folder(out / ".simulation", "test"), pytest.raises(CerebroError, match="being written"):
        simulate_cohort(out, tiny)


def test_the_table_has_the_real_columns(cohort, shared_data):
    real = (shared_data / "hbn_metadata/sample_ds005505/participants.tsv").read_text().splitlines()[0]
    lines = (cohort / "participants.tsv").read_text().splitlines()
    assert lines[0] == real
    assert len(real.split("\t")) == 24
    assert {len(line.split("\t")) for line in lines} == {24}


def test_every_defect_is_declared_and_met_by_a_rule_of_the_reader(cohort):
    reader = HBN(cohort)
    scan = reader.scan()
    planted = Counter(defect["kind"] for defect in _truth(cohort)["defects"])
    assert set(planted) == set(SHARES)
    rules = Counter(finding.rule for finding in scan.findings)
    assert rules["six-channel-recording"] == planted["six-channel-recording"]
    assert rules["too-short"] == planted["shortest-recording"]
    assert rules["events-missing"] == planted["no-events-file"]
    assert rules["film-without-start"] == planted["no-video-start"] + planted["no-events-file"]
    assert rules["resting-without-cues"] == planted["no-eyes-cues"]
    assert rules["ccd-without-feedback"] == planted["no-feedback-column"]
    assert rules["task-caution"] == planted["caution-rest"]
    n_r3 = sum(p["release"] == "R3" for p in _truth(cohort)["participants"].values())
    assert rules["channel-count-missing"] >= 5 * n_r3
    assert rules["channel-units-missing"] >= 5 * planted["unknown-units"]
    assert int(scan.participants["p_factor"].isna().sum()) == planted["missing-factors"]
    recording = reader.load(scan.entries[0])
    assert recording.eeg.shape[0] == 129
    assert not recording.eeg[128].any()


def test_defects_fall_on_different_people_while_there_are_enough():
    kinds = plan_defects(48, 0)
    assert max(len(kind) for kind in kinds) == 1
    assert {kind for kinds_ in plan_defects(3, 0) for kind in kinds_} == set(SHARES)


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one(tiny):
    small = list(module.participants(tiny))
    large = list(module.participants(dataclasses.replace(tiny, n_participants=40)))
    assert [(p.name, p.release, p.person) for p in small] == [(p.name, p.release, p.person) for p in large[:15]]
    other = list(module.participants(dataclasses.replace(tiny, seed=4)))
    assert not {p.name for p in small} & {p.name for p in other}


def test_a_third_is_held_out(tiny):
    people = list(module.participants(dataclasses.replace(tiny, n_participants=48)))
    releases = Counter(p.release for p in people)
    assert releases["R5"] == 16
    assert set(releases) == {"R1", "R2", "R3", "R5"}


def test_ground_truth_says_what_a_score_can_reach(cohort):
    truth = _truth(cohort)
    assert truth["effect"] == 1
    assert truth["strength"] == "strong"
    for scores in (truth, truth["holdout"]):
        assert set(scores["oracle_nrmse"]) == set(scores["reference_nrmse"]) == set(truth["planted_r2"])
        assert all(0 < value < 3 for value in scores["oracle_nrmse"].values())
    people = pd.read_csv(cohort / "participants.tsv", sep="\t", index_col=0, na_values="n/a")
    assert list(people.index) == list(truth["participants"])
    for name, row in people.dropna(subset="p_factor").iterrows():
        assert row["p_factor"] == pytest.approx(truth["participants"][name]["values"]["p_factor"], abs=1e-3)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Truth of two cohorts of 72 people who differ in the effect only, without writing any recording."""
    short = dataclasses.replace(PRESETS["demo"], rest_open_s=8.0, rest_closed_s=12.0, rest_blocks=2, ccd_trials=8)
    result = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILMS", ())
        patch.setattr(module, "write_bdf", lambda path, *_: path.touch())
        patch.setattr(module, "write_text", lambda *_: None)
        for effect in (0.0, 1.0):
            out = tmp_path_factory.mktemp("scored") / "cohort"
            spec = dataclasses.replace(make_spec("demo", 72, 11, effect), preset=short)
            patch.setattr("cerebro.simulate.bids.write_path", lambda folder, *names, out=out: _flat(out, names))
            result[effect] = json.loads(simulate_cohort(out, spec).read_text())
    return result


def _flat(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "_".join(str(name) for name in names)


def test_the_reference_recovers_what_was_planted(scored):
    truth = scored[1.0]
    for target, r2 in truth["planted_r2"].items():
        assert truth["oracle_nrmse"][target] == pytest.approx(np.sqrt(1 - r2), abs=0.12), target
    for target in ("p_factor", "externalizing", "response_time"):
        gap = truth["reference_nrmse"][target] - truth["oracle_nrmse"][target]
        assert -0.03 < gap < 0.2, target


def test_without_effect_nothing_can_be_predicted(scored):
    truth = scored[0.0]
    assert all(value == 0 for value in truth["planted_r2"].values())
    for target in truth["planted_r2"]:
        assert truth["oracle_nrmse"][target] == pytest.approx(1, abs=0.05)
        assert truth["reference_nrmse"][target] > 0.96


def test_the_full_preset_writes_set_files_at_500_hz(tmp_path, head):
    spec = make_spec("full", n_participants=15)
    preset = dataclasses.replace(spec.preset, rest_open_s=3.0, rest_blocks=1, film_s=3.0, ccd_runs=1, ccd_trials=1)
    spec = dataclasses.replace(spec, preset=preset)
    person = next(p for p in module.participants(spec) if not p.defects)
    recorded = module.simulate_participant(tmp_path, spec, person, head, module.source_filter(head))
    assert len(recorded) == 6
    (tmp_path / "participants.tsv").write_text(f"participant_id\trelease_number\n{person.name}\tR1\n")
    reader = HBN(tmp_path)
    entries = reader.scan().entries
    assert len(entries) == 6
    recording = reader.load(entries[0])
    assert recording.sfreq == 500
    assert recording.eeg.shape[0] == 129

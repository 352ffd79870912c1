"""The simulated EDF tree: the same bytes always, every defect met by its rule, and what was planted is in it."""

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.readers import TUH, Skip
from cerebro.data.store import Store
from cerebro.errors import CerebroError, ConfigError
from cerebro.files import lock_folder
from cerebro.simulate import edf_tree as module
from cerebro.simulate.cohort import make_spec, participants, simulate_cohort
from cerebro.simulate.edf_tree import patient_name, simulate_edf
from cerebro.simulate.reference import FEATURES

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "data" / "tuh.yaml"
SKIPPED = module.UNUSABLE - {"layout-unknown"}  # after a look at the signal


SHOWN = (("theta", "p_factor"), ("exponent", "externalizing"), ("alpha_asymmetry", "internalizing"), ("beta_hz", "sex"))


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def truth_of(folder):
    return json.loads((folder / "ground_truth.json").read_text())


@pytest.fixture(scope="module")
def spec(tiny):
    """All three montages, five rates."""
    return dataclasses.replace(tiny, seed=4)


@pytest.fixture(scope="module")
def tree(spec, tmp_path_factory):
    out = tmp_path_factory.mktemp("edf") / "tree"
    simulate_edf(out, spec)
    return out


def test_two_processes_write_the_same_bytes_as_one(tree, spec, tmp_path):
    simulate_edf(tmp_path / "again", spec, n_jobs=2)
    assert digest(tmp_path / "again") == digest(tree)


def test_an_interrupted_simulation_continues_to_the_same_bytes(tree, spec, tmp_path, monkeypatch):
    out, write, written = tmp_path / "cut", module.write_edf, []

    def dies(path, *rest):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(module, "write_edf", dies)
    with pytest.raises(KeyboardInterrupt):
        simulate_edf(out, spec)
    assert not (out / "ground_truth.json").exists()
    cut = written[-1].with_name(f".{written[-1].name}.7.part")
    cut.write_bytes(b"half")  # what SIGKILL within a write leaves
    monkeypatch.setattr(module, "write_edf", lambda path, *rest: (written.append(path), write(path, *rest)))
    simulate_edf(out, spec)
    assert len(written) == len(set(written))  # nothing is written twice
    assert digest(out) == digest(tree)
    monkeypatch.setattr(module, "write_edf", lambda *_: pytest.fail("written again"))
    simulate_edf(out, spec)


def test_another_simulation_or_format_in_the_same_folder_is_refused(tree, spec):
    with pytest.raises(ConfigError, match=r"another simulation \(format edf, .*seed 4"):
        simulate_edf(tree, dataclasses.replace(spec, seed=5))
    with pytest.raises(ConfigError, match=r"another simulation \(format edf"):
        simulate_cohort(tree, spec)


def test_a_second_writer_is_refused(spec, tmp_path):
    with lock_folder(tmp_path / "a" / ".simulation", "test"), pytest.raises(CerebroError, match="being written"):
        simulate_edf(tmp_path / "a", spec)


def test_every_defect_is_declared_and_met_by_a_rule_of_the_reader(tree):
    reader = TUH(tree, demographics="header")
    scan = reader.scan()
    rules = Counter(finding.rule for finding in scan.findings)
    for entry in scan.entries:
        try:
            rules.update({finding.rule for finding in reader.load(entry).findings})
        except Skip as skip:
            rules[skip.finding.rule] += 1
    planted = Counter(defect["kind"] for defect in truth_of(tree)["defects"])
    assert set(planted) == set(module.SHARES)
    del rules["no-electrode"]
    assert rules == planted


def test_patients_sessions_ages_and_sexes_are_those_of_the_truth(tree):
    reader, truth = TUH(tree, demographics="header"), truth_of(tree)
    scan = reader.scan()
    lost = {defect["participant"] for defect in truth["defects"] if "im" in defect["kind"] or "demo" in defect["kind"]}
    assert set(scan.participants.index) == {entry.participant for entry in scan.entries} <= set(truth["participants"])
    for name, row in scan.participants.iterrows():
        true = truth["participants"][name]
        if name not in lost:
            assert (row["age"], row["sex"]) == (true["values"]["age"], float(true["sex"] == "F"))
    table = pd.read_csv(tree / "participants.tsv", sep="\t", index_col=0)
    assert list(table.index) == list(truth["participants"])
    assert table["p_factor"].tolist() == [p["values"]["p_factor"] for p in truth["participants"].values()]
    listed = [
        (name, f"s{number:03d}_{session['date'].replace('-', '_')}")
        for name, true in truth["participants"].items()
        for number, session in enumerate(true["sessions"], start=1)
    ]
    found = [(entry.participant, entry.session) for entry in scan.entries]
    stray = {finding.where.split("/")[2] for finding in scan.findings if finding.rule == "layout-unknown"}
    assert set(found) == {(name, session) for name, session in listed if name not in stray or "s002" in session}


def test_recordings_have_the_reference_rate_and_electrodes_of_their_session(tree):
    reader, truth = TUH(tree), truth_of(tree)
    defects = {defect["participant"]: defect["kind"] for defect in truth["defects"]}
    seen = set()
    for entry in reader.scan().entries:
        session = truth["participants"][entry.participant]["sessions"][int(entry.session[1:4]) - 1]
        if defects.get(entry.participant) in (*SKIPPED, "reference-differs", "electrode-contradicts"):
            continue
        recording = reader.load(entry)
        is_linked = session["montage"] == "02_tcp_le"
        assert recording.reference == ("linked-ears" if is_linked else "average")
        assert recording.sfreq == session["sfreq"]
        ears = set() if session["montage"] == "03_tcp_ar_a" else {"A1", "A2"}
        assert set(recording.channels) == {*module.SCALP, *ears}
        rows = [recording.channels.index(name) for name in (module.EARS if is_linked else module.SCALP)]
        np.testing.assert_allclose(recording.eeg[rows].mean(axis=0), 0, atol=0.1)
        seen.add(session["montage"])
    assert seen == {"01_tcp_ar", "02_tcp_le", "03_tcp_ar_a"}


def test_the_config_of_the_repository_builds_a_store_of_it(tree, tmp_path):
    config = yaml.safe_load(CONFIG.read_text())
    config["reader"]["init_args"] |= {"root": str(tree), "participants": str(tree / "participants.tsv")}
    (tmp_path / "tuh.yaml").write_text(yaml.safe_dump(config))
    assert main(["prepare", str(tmp_path / "tuh.yaml"), "--out", str(tmp_path / "store")]) == 0
    store, truth = Store.open(tmp_path / "store"), truth_of(tree)
    report = json.loads((tmp_path / "store" / "build_report.json").read_text())
    n_sessions = sum(len(person["sessions"]) for person in truth["participants"].values())
    assert report["failed"] == 0
    assert report["read"] == n_sessions - len(module.UNUSABLE)
    assert main(["check", str(tmp_path / "store")]) == 0
    assert set(store.recordings["reference"]) == {"average", "linked-ears"}
    for name, row in store.participants.iterrows():
        assert row["p_factor"] == pytest.approx(truth["participants"][name]["values"]["p_factor"], abs=1e-3)


def test_patients_of_two_cohorts_and_of_the_real_corpus_never_share_a_name():
    names = [patient_name(seed, number) for seed in (0, 1, 25, 26, 456_975) for number in (0, 1, 26, 999)]
    assert len(set(names)) == len(names)
    assert names[:2] == ["zzzzaaaa", "zzzzaaab"]
    assert all(len(name) == 8 and name.isalpha() and name.islower() for name in names)
    with pytest.raises(ConfigError, match="set --seed below 456,976"):
        patient_name(456_976, 0)


def test_people_are_those_of_the_bids_cohort(tree, spec):
    for person, true in zip(participants(spec), truth_of(tree)["participants"].values(), strict=True):
        assert person.person.features == true["features"]
        assert abs(person.person.values["age"] - true["values"]["age"]) <= 0.5


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Trees of 40 patients who differ in the effect only, without recordings but with what they would show."""

    def touch(path, *_):
        path.parent.mkdir(parents=True)
        path.touch()

    result = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_edf", touch)
        patch.setattr(module, "SHARE_SECOND_SESSION", 0.0)
        for effect in (0.0, 1.0):
            out = tmp_path_factory.mktemp("scored") / "tree"
            result[effect] = simulate_edf(out, make_spec("demo", 40, 11, effect)).parent
    return result


def test_the_signals_show_the_features_that_were_planted(scored):
    for effect, folder in scored.items():
        truth = truth_of(folder)
        shown, planted = [], []
        for path in sorted((folder / ".simulation").glob("*_t000.json")):
            record = json.loads(path.read_text())
            if record["features"]:
                shown.append(record["features"])
                planted.append(list(truth["participants"].values())[record["participant"]]["features"])
        assert len(shown) == truth["n_samples"]["age"] == 40 - len(module.UNUSABLE)
        for feature, trait in SHOWN:
            values = np.array(shown)[:, FEATURES.index(feature)]
            assert np.corrcoef(values, [one[trait] for one in planted])[0, 1] > 0.8, (effect, feature)


def test_a_score_that_can_be_reached_is_one_without_effect_and_less_with_it(scored):
    null, full = truth_of(scored[0.0]), truth_of(scored[1.0])
    assert set(null["planted_r2"].values()) == {0}
    for target, r2 in full["planted_r2"].items():
        assert null["oracle_nrmse"][target] == pytest.approx(1, abs=0.08), target
        assert null["reference_nrmse"][target] > 0.9, target
        assert r2 > 0
        assert full["oracle_nrmse"][target] < 1, target
    assert full["oracle_nrmse"]["p_factor"] < 0.85

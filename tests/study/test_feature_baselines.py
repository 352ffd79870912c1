"""Baselines on features: a cohort of windows, their store and the file of their features."""

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.errors import DataError
from cerebro.metrics import boosting
from cerebro.montage import Montage
from cerebro.study.baselines import baseline_path, make_baselines
from cerebro.study.feature_file import read_features
from cerebro.study.scores import read_predictions

N_PEOPLE, N_WINDOWS, CHANNELS = 40, 5, ("AF7", "AF8")
RUN = "phases/finetune-0123456789"
BOTH = ["features_logistic", "features_boosting"]


class Cohort:
    """People with one or two runs each, a label, a store without signal, and features that a test may change."""

    def __init__(self, folder, n_runs=1, seed=0):
        self.folder = folder
        random = np.random.default_rng(seed)
        self.names = [f"P{number:02}" for number in range(N_PEOPLE)]
        self.label = dict(zip(self.names, random.permutation(np.arange(N_PEOPLE) % 2).tolist(), strict=True))
        keys = {f"{name}_run-{run}": name for name in self.names for run in range(1, n_runs + 1)}
        self.is_second = {key: float(key.endswith("2")) for key in keys}
        windows = tuple(Segment(number, 0, 2.0 * number, 2.0 * number + 2, 64) for number in range(N_WINDOWS))
        write_store(
            folder / "store",
            {key: random.normal(0, 10, (2, 64 * N_WINDOWS)).astype("f4") for key in keys},
            Montage("two", CHANNELS, np.eye(2, 3) * 0.09),
            32.0,
            tasks=dict.fromkeys(keys, "rest"),
            people=keys,
            participants=pd.DataFrame(
                {"remission": [float(self.label[name]) for name in self.names], "trait": random.normal(size=N_PEOPLE)},
                index=pd.Index(self.names, name="participant_id"),
            ),
            labels={key: {"second": value} for key, value in self.is_second.items()},
            segments=dict.fromkeys(keys, windows),
            corpus="clinic",
        )
        rows = [
            (name, run, window) for name in self.names for run in range(1, n_runs + 1) for window in range(N_WINDOWS)
        ]
        self.table = pd.DataFrame(rows, columns=["Participant", "run", "parent_window_id"])
        self.table["sub_window_id"] = 0
        self.table["window_start"] = 2.0 * self.table.parent_window_id
        self.table["window_end"] = self.table.window_start + 2
        self.table["Remission"] = self.table.Participant.map(self.label)
        for channel in CHANNELS:
            self.table[f"{channel}_alpha_power"] = np.exp(random.normal(size=len(rows)))
            self.table[f"{channel}_sample_entropy"] = random.normal(size=len(rows))
        self.said = []

    @property
    def file(self):
        return self.folder / "features.parquet"

    def of_person(self, values):
        return self.table.Participant.map(values)

    def raise_alpha_of_remission(self, by=2.0):
        self.table.AF7_alpha_power *= np.exp(by * self.of_person(self.label))

    def predict(self, baselines=BOTH, target="remission", n_classes=2, labels=(), **split):
        """Predictions of each baseline, and of the constant."""
        self.table.to_parquet(self.file)
        run = self.folder / "study" / RUN
        run.mkdir(parents=True, exist_ok=True)
        data = {
            "store": str(self.folder / "store"),
            "windows": {"class_path": "ChannelSequences", "init_args": {"labels": list(labels)}},
            "split": {"val_ratio": 0.0, "test_ratio": 0.4, **split},
            "targets": [target],
        }
        (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        shape = (1, n_classes) if n_classes else 1
        arrays = {"participant": np.array(["clinic:P00"]), f"target/{target}": np.zeros(1), f"known/{target}": [True]}
        np.savez(run / "predictions_test.npz", **arrays, **{f"prediction/{target}": np.zeros(shape)})
        chain = {"variant": "full", "seed": 0, "fold": 0, "runs": {"finetune": RUN}}
        study = {
            "baselines": list(baselines),
            "features": str(self.file),
            "final_phases": ["finetune"],
            "chains": [chain],
        }
        make_baselines(study, self.folder / "study", self.said.append)
        return {
            name: read_predictions(baseline_path(self.folder / "study", name, RUN))[target]
            for name in dict.fromkeys(("constant", *baselines))
        }


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setattr(boosting, "TREES", (5, 20))  # four times faster


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path)


def auc(predictions):
    """Area under the curve by person, who all have one prediction."""
    table = pd.DataFrame({"who": predictions.participant, "y": predictions.target, "p": predictions.prediction[:, 1]})
    assert (table.groupby("who").p.nunique() == 1).all()
    people = table.groupby("who").first()
    return roc_auc_score(people.y, people.p)


def test_both_find_an_effect_in_alpha_of_people_that_they_were_not_fitted_to(cohort):
    cohort.raise_alpha_of_remission()
    found = cohort.predict()
    for name in BOTH:
        assert auc(found[name]) > 0.9
        assert found[name].participant == found["constant"].participant  # the rows of the run, channel by channel
        assert found[name].target.tolist() == found["constant"].target.tolist()
        assert found[name].prediction.sum(axis=1) == pytest.approx(1)
        assert found[name].target.tolist() == [
            cohort.label[who.removeprefix("clinic:")] for who in found[name].participant
        ]


def test_neither_finds_an_effect_where_there_is_none(tmp_path):
    scores = {name: [] for name in BOTH}
    for seed in range(4):
        found = Cohort(tmp_path / str(seed), seed=seed).predict()
        for name in BOTH:
            scores[name].append(auc(found[name]))
    assert all(0.3 < np.mean(values) < 0.7 for values in scores.values())


def test_a_feature_that_tells_the_label_of_tested_people_alone_is_of_no_use(cohort):
    cohort.table["AF7_sample_entropy"] = 0.0
    without = cohort.predict()
    tested = set(without["features_logistic"].participant)
    is_tested = ("clinic:" + cohort.table.Participant).isin(tested)
    cohort.table["AF7_sample_entropy"] = np.where(is_tested, 3 * cohort.of_person(cohort.label) - 1.5, 0)
    found = cohort.predict()
    for name in BOTH:
        assert np.array_equal(found[name].prediction, without[name].prediction)


def test_labels_in_the_file_are_no_features(cohort):
    cohort.table["second"] = cohort.of_person(cohort.label).astype(float)  # a label of recordings, as a column
    cohort.table["AF7"] = cohort.of_person(cohort.label).astype(float)
    found = cohort.predict()
    assert all(auc(found[name]) < 0.8 for name in BOTH)
    assert read_features(cohort.file).columns == (
        *("AF7_alpha_power", "AF7_sample_entropy", "AF8_alpha_power", "AF8_sample_entropy"),
    )


def test_what_is_known_of_one_tested_person_changes_nothing_for_another(cohort):
    cohort.raise_alpha_of_remission()
    tested = set(cohort.predict()["constant"].participant)
    trained = [name for name in cohort.names if f"clinic:{name}" not in tested]
    cohort.table.loc[cohort.table.Participant.isin(trained[:5]), "AF8_sample_entropy"] = np.nan  # a median is needed
    first = cohort.predict()
    changed = first["features_logistic"].participant[0].removeprefix("clinic:")
    mine = cohort.table.Participant == changed
    cohort.table.loc[mine, "AF7_alpha_power"] *= 1e6
    cohort.table.loc[mine, "AF8_sample_entropy"] = 1e3
    second = cohort.predict()
    for name in BOTH:
        same = np.array([who != f"clinic:{changed}" for who in first[name].participant])
        assert np.array_equal(first[name].prediction[same], second[name].prediction[same])


def test_people_beyond_the_training_side_are_not_fitted(cohort):
    """Turning the labels of validation people round changes no prediction."""
    cohort.raise_alpha_of_remission()
    split = {"val_ratio": 0.3}
    first = cohort.predict(["features_logistic"], **split)["features_logistic"]
    from cerebro.study.baselines import open_data

    data = open_data(cohort.folder / "study" / RUN / "config.yaml")
    trained, validated = data.participants("train"), data.participants("val")
    assert validated
    mine = ("clinic:" + cohort.table.Participant).isin(validated)
    cohort.table.loc[mine, "AF7_alpha_power"] = 1e3
    second = cohort.predict(["features_logistic"], **split)["features_logistic"]
    assert np.array_equal(first.prediction, second.prediction)
    mine = ("clinic:" + cohort.table.Participant).isin(trained[:3])
    cohort.table.loc[mine, "AF7_alpha_power"] = 1e3
    third = cohort.predict(["features_logistic"], **split)["features_logistic"]
    assert not np.array_equal(first.prediction, third.prediction)


def test_a_label_of_recordings_is_predicted_by_recording(tmp_path):
    cohort = Cohort(tmp_path, n_runs=2)
    cohort.table.AF8_sample_entropy += 3.0 * (cohort.table.run == 2)
    found = cohort.predict(target="second", labels=["second"])
    for name in BOTH:
        assert roc_auc_score(found[name].target, found[name].prediction[:, 1]) > 0.9
    assert any("48 training rows (24 people)" in line for line in cohort.said)


def test_runs_of_a_person_count_together_for_a_label_of_people(tmp_path):
    cohort = Cohort(tmp_path, n_runs=2)
    cohort.table.AF8_sample_entropy += 3.0 * (cohort.table.run == 2) * cohort.of_person(cohort.label)
    found = cohort.predict()
    assert all(auc(found[name]) > 0.9 for name in BOTH)
    assert any("24 training rows (24 people)" in line for line in cohort.said)


def test_numbers_are_predicted_by_ridge_and_trees(cohort):
    trait = pd.read_parquet(cohort.folder / "store" / "participants.parquet").set_index("participant_id").trait
    cohort.table.AF7_sample_entropy = cohort.of_person(trait) + 0.1 * cohort.table.AF7_sample_entropy
    found = cohort.predict(target="trait", n_classes=0)
    for name in BOTH:
        assert found[name].kind == "regression"
        assert np.corrcoef(found[name].target, found[name].prediction)[0, 1] > 0.6


def test_missing_values_are_training_medians_and_counted(cohort):
    cohort.raise_alpha_of_remission()
    cohort.table["AF8_sample_entropy"] = np.nan
    cohort.table.loc[cohort.table.Participant == "P03", ["AF8_alpha_power"]] = np.nan
    found = cohort.predict()
    assert all(auc(found[name]) > 0.9 for name in BOTH)
    line = next(line for line in cohort.said if line.startswith("features_logistic"))
    assert "missing values of training rows" in line
    assert "2 features are missing or the same in all training rows and left out" in line


def test_a_feature_that_differs_by_rounding_alone_is_left_out(cohort):
    cohort.raise_alpha_of_remission()
    tested = set(cohort.predict([])["constant"].participant)
    is_tested = ("clinic:" + cohort.table.Participant).isin(tested)
    rounding = 1 / 3 + 1e-16 * np.arange(len(cohort.table)) / len(cohort.table)
    cohort.table["AF8_sample_entropy"] = np.where(is_tested, 7.0, rounding)
    found = cohort.predict()
    assert all(auc(found[name]) > 0.9 for name in BOTH)


def test_a_file_whose_features_do_not_differ_is_one_line(cohort):
    for name in [name for name in cohort.table if name.startswith("AF")]:
        cohort.table[name] = 1.0
    with pytest.raises(DataError, match="no feature differs between training rows"):
        cohort.predict()


def test_a_new_file_of_features_makes_new_predictions_and_the_same_one_does_not(cohort):
    first = cohort.predict()
    said = len(cohort.said)
    path = baseline_path(cohort.folder / "study", "features_boosting", RUN)
    before = path.read_bytes()
    cohort.predict()
    assert len(cohort.said) == said
    assert path.read_bytes() == before
    cohort.raise_alpha_of_remission()
    second = cohort.predict()
    assert not np.array_equal(first["features_logistic"].prediction, second["features_logistic"].prediction)


def test_a_tested_person_without_features_is_named(cohort):
    tested = cohort.predict(["features_logistic"])["features_logistic"].participant[0].removeprefix("clinic:")
    cohort.table = cohort.table[cohort.table.Participant != tested]
    with pytest.raises(
        DataError, match=rf"{tested}_run-1 \(test participant clinic:{tested}; 1 of 16 .*cerebro process"
    ):
        cohort.predict()


def test_trained_people_without_features_are_counted(cohort):
    tested = set(cohort.predict(["features_logistic"])["features_logistic"].participant)
    one = next(name for name in cohort.names if f"clinic:{name}" not in tested)
    cohort.table = cohort.table[cohort.table.Participant != one]
    cohort.predict(["features_logistic"])
    assert "23 training rows (23 people); 1 recordings have no features, 1 training rows none at all" in cohort.said[-1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda cohort: cohort.file.write_bytes(b"PAR1"), "damaged or no Parquet file"),
        (lambda cohort: cohort.file.unlink(missing_ok=True), "not found at .*`cerebro process --config"),
        (lambda cohort: cohort.table.iloc[:, :7].to_parquet(cohort.file), "has no column of features"),
        (lambda cohort: cohort.table.drop(columns="run").to_parquet(cohort.file), "has no column run"),
    ],
)
def test_a_file_that_is_none_is_one_line(cohort, spoil, words):
    spoil(cohort)
    with pytest.raises(DataError, match=words) as refusal:
        read_features(cohort.file)
    assert "\n" not in str(refusal.value)


def test_means_and_deviations_of_runs_together_are_those_of_all_windows(tmp_path):
    cohort = Cohort(tmp_path, n_runs=2)
    cohort.table.loc[::7, "AF7_sample_entropy"] = np.nan
    cohort.table.to_parquet(cohort.file)
    features = read_features(cohort.file)
    found = features.summaries([[features.row["P05_run-1"], features.row["P05_run-2"]]])[0]
    mine = cohort.table[cohort.table.Participant == "P05"]
    entropy, power = mine.AF7_sample_entropy.dropna(), np.log(mine.AF7_alpha_power)
    places = [features.columns.index(name) for name in ("AF7_sample_entropy", "AF7_alpha_power")]
    assert found[places] == pytest.approx([entropy.mean(), power.mean()])
    assert found[[place + 4 for place in places]] == pytest.approx([entropy.std(ddof=0), power.std(ddof=0)])

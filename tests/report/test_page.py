import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from cerebro.errors import DataError
from cerebro.report import figures
from cerebro.report.evidence import gather
from cerebro.report.outcome import summary
from cerebro.report.page import write_report
from cerebro.report.representation import tokenizer
from cerebro.study.results import make_results


class Outline(HTMLParser):
    """Open elements that are never closed, ids, and addresses that a browser would load."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loaded = [], [], []

    def handle_starttag(self, name, attributes):
        values = dict(attributes)
        if name not in self.VOID:
            self.open.append(name)
        if "id" in values:
            self.ids.append(values["id"])
        for key in ("src", "href", "xlink:href"):
            if key in values and not values[key].startswith(("#", "data:")):
                self.loaded.append(values[key])

    def handle_endtag(self, name):
        assert self.open.pop() == name


@pytest.fixture(scope="module")
def written():
    """Page and results, made once for all tests that only read them."""
    return {}


@pytest.fixture
def page(request, written):
    if not written:
        folder = request.getfixturevalue("study_folder")
        written["results"] = make_results(folder)
        written["page"] = write_report(folder, Path("page.html")).read_text()
        written["again"] = write_report(folder, Path("again.html")).read_text()
    return written["page"]


def test_the_page_is_whole_and_loads_nothing(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.loaded == []
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(outline.ids) == len(set(outline.ids))


def test_references_inside_figures_point_at_something(page):
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= ids
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


def test_every_section_is_there_with_its_figure(page):
    for title in (
        "Scores", "What each phase brought", "How soon", "Who was tested", "Learning curves", "What the codes keep",
        "What hidden tokens tell", "Similarity of pairs", "Predictions", "Data", "Reproduce",
    ):  # fmt: skip
        assert f"{title}</h2>" in page
    assert page.count("<svg") >= 3 + 3 + 1 + 3 + 2 + 1 + 2
    assert 'train/jepa/effective rank</td><td class="number">17.2</td>' in page
    assert "160 <small>24 s</small>" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower()


def test_numbers_on_the_page_are_those_of_the_results(page, written):
    results = written["results"]
    for variant in results["variants"].values():
        assert f"{variant['p_factor']['nrmse']['mean']:.3f}" in page
    assert f"{results['baselines']['constant']['p_factor']['nrmse']['mean']:.3f}" in page


def test_ink_follows_the_theme_of_the_reader(page):
    svg = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--ink)" in svg
    assert "#000000" not in svg
    assert "prefers-color-scheme: dark" in page


def test_the_page_is_the_same_when_written_again(page, written):
    assert written["again"] == page


def test_a_tested_participant_that_was_trained_on_is_shown(study_folder):
    make_results(study_folder)
    assert gather(study_folder).leaks() == 0
    path = next(study_folder.glob("phases/tokenizer*/run.json"))
    record = json.loads(path.read_text())
    record["participants"]["train"].append("HBN:TEST03")
    path.write_text(json.dumps(record))
    assert gather(study_folder).leaks() == 3  # once per variant that has the phase
    assert "3 tested participants" in write_report(study_folder, Path("page.html")).read_text()


def test_names_from_files_are_escaped(study_folder):
    make_results(study_folder)
    path = study_folder / "study.json"
    study = json.loads(path.read_text())
    study["name"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(study))
    assert "<script>" not in write_report(study_folder, Path("page.html")).read_text()


def test_a_study_without_tokenizer_or_pairs_leaves_their_sections_out(study_folder):
    make_results(study_folder)
    for path in study_folder.glob("phases/*/showcase.npz"):
        path.unlink()
    page = write_report(study_folder, Path("page.html")).read_text()
    assert "What the codes keep" not in page
    assert "Similarity of pairs" not in page


def test_a_film_is_shown_beside_its_shuffles(study_folder):
    row = {"film": "ThePresent", "isc": 0.21, "shuffled_mean": 0.0, "shuffled_q95": 0.05, "n_people": 9}
    unknown = {**row, "film": "Fractals", "isc": None}
    kinds = ("recording", "embedding", "pairs/projection")  # pairs: a term of a sum
    films = [{**one, "vectors": kind} for kind in kinds for one in (row, unknown)]
    for folder in study_folder.glob("phases/contrastive*"):
        (folder / "isc.json").write_text(json.dumps({"n_shuffles": 200, "films": films, "spread": {}}))
    make_results(study_folder)
    page = write_report(study_folder, Path("page.html")).read_text()
    section = page.partition("What people share in a film</h2>")[2].partition("</section>")[0]
    assert section.count("<svg") == 3
    assert "full, ThePresent" in section
    assert "without a network" in section
    assert "Fractals" not in section
    assert "up to 9 validation participants" in section
    assert "200 shuffles" in section


def test_last_probes_are_shown_with_chance_and_confound(study_folder):
    history = next(study_folder.glob("phases/pretrain*/history.jsonl"))
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    rows[0] |= {"probe/nrmse_age": 0.999, "confound/nrmse_age": 0.123}
    rows[-2] |= {"probe/nrmse_age": 0.871, "probe/participant": 0.432, "probe/participant_chance": 0.021}
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_results(study_folder)
    page = write_report(study_folder, Path("page.html")).read_text()
    section = page.partition("What the encoder knows</h2>")[2].partition("</section>")[0]
    for shown in ("0.871", "0.123", "0.432", "0.021"):
        assert shown in section
    assert "0.999" not in section


def test_a_study_that_measured_neither_has_no_such_sections(page):
    assert "What people share in a film" not in page
    assert "What the encoder knows" not in page


def test_counted_skips_of_the_store_are_shown(study_folder):
    rule = {"rule": "six-channel-recording", "severity": "skipped", "count": 2, "examples": ["NDAR1: 6 channels"]}
    report = {"read": 40, "repaired": 1, "skipped": 2, "failed": 0, "rules": [rule], "tasks": {"RestingState": 40}}
    Path("stores/demo").mkdir(parents=True)
    Path("stores/demo/build_report.json").write_text(json.dumps(report))
    make_results(study_folder)
    page = write_report(study_folder, Path("page.html")).read_text()
    assert "six-channel-recording" in page
    assert "40 recordings read" in page


@pytest.mark.parametrize(
    ("ci95", "verdict"),
    [
        ([0.01, 0.2], "better than the constant"),
        ([-0.2, -0.01], "worse than the constant"),
        ([-0.1, 0.1], "not distinguishable from the constant"),
        ([None, None], "not compared with"),
    ],
)
def test_the_first_sentence_says_what_the_paired_gain_says(study_folder, ci95, verdict):
    results = make_results(study_folder)
    for entry in results["gains"]["full over constant"].values():
        entry["gain"]["ci95"] = ci95
    (study_folder / "results.json").write_text(json.dumps(results))
    assert summary(gather(study_folder)).count(verdict) == 2


def test_traces_and_scalp_map_bear_the_electrodes_of_their_rows(study_folder, monkeypatch):
    make_results(study_folder)
    evidence = gather(study_folder)
    run = evidence.example("original")
    n = len(run.showcase["original"])
    channel = np.r_[np.arange(n - 1)[::-1], -1]  # another order, the last electrode absent
    run.showcase.update(channel=channel, original=run.showcase["original"] + 100.0 * channel[:, None])
    drawn = {}

    def traces(original, rebuilt, names, sfreq):
        drawn.update(zip(names, original, strict=True))
        return ""

    monkeypatch.setattr(figures, "traces", traces)
    monkeypatch.setattr(figures, "scalp_map", lambda values, positions, label: drawn.update(at=positions) or "")
    tokenizer(evidence)
    at = drawn.pop("at")
    np.testing.assert_array_equal(at, run.showcase["positions"][channel[:-1]])
    assert len(drawn) >= 4
    for name, trace in drawn.items():
        assert round(np.median(trace) / 100) == list(run.showcase["channel_names"]).index(name)


def test_a_damaged_file_of_predictions_is_named(study_folder):
    path = next(study_folder.glob("phases/challenge1*/predictions_test.npz"))
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"predictions_test\.npz is damaged .*remove it and run the command"):
        make_results(study_folder)


@pytest.mark.parametrize("content", [b"", b"data: [", b"model: {}"])
def test_a_damaged_config_of_a_run_is_named(study_folder, content):
    make_results(study_folder)
    next(study_folder.glob("phases/challenge1*/config.yaml")).write_bytes(content)
    with pytest.raises(DataError, match=r"config\.yaml is damaged or missing; remove .*run the recipe again"):
        gather(study_folder)


def test_a_label_of_weight_zero_is_not_among_those_a_phase_learned_from(study_folder):
    make_results(study_folder)
    path = next(study_folder.glob("phases/pretrain*/config.yaml"))
    config = yaml.safe_load(path.read_text())
    terms = {name: {"init_args": {"target": name}} for name in ("p_factor", "age", "sex")} | {"jepa": {"init_args": {}}}
    weights = {"p_factor": 0.0, "age": 0.5, "sex": 0, "jepa": 1.0}
    config["model"]["objective"] = {"class_path": "WeightedSum", "init_args": {"terms": terms, "weights": weights}}
    config["data"]["targets"] = ["p_factor", "age", "sex", "other"]
    path.write_text(yaml.safe_dump(config))
    page = write_report(study_folder, Path("page.html")).read_text()
    row = page[page.index("<td>pretrain</td>") :].split("</tr>")[0]
    assert "<td>age, other</td>" in row


def test_an_unfinished_study_has_no_page(study_folder):
    with pytest.raises(DataError, match=r"results\.json not found"):
        write_report(study_folder, Path("page.html"))
    make_results(study_folder)
    next(study_folder.glob("phases/pretrain*/run.json")).unlink()
    with pytest.raises(DataError, match="not finished"):
        write_report(study_folder, Path("page.html"))


def test_classes_are_shown_as_a_confusion_matrix(study_folder):
    for path in [*study_folder.glob("phases/*/predictions_test.npz"), *study_folder.glob("baselines/*.npz")]:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        (target,) = [name.removeprefix("target/") for name in arrays if name.startswith("target/")]
        arrays[f"target/{target}"] = (arrays[f"target/{target}"] > 0).astype(float)
        value = arrays[f"prediction/{target}"]
        arrays[f"prediction/{target}"] = np.stack([1 - value, value], axis=1)
        np.savez(path, **arrays)
    Path("ground_truth.json").write_text("{}")
    make_results(study_folder)
    page = write_report(study_folder, Path("page.html")).read_text()
    assert "predicted 1" in page
    assert "balanced accuracy" in page


def test_ensembles_stand_beside_their_seeds_and_fewer_seeds_are_said(finished_study):
    folder = finished_study(
        seeds=[0, 1],
        ensemble=True,
        gains=None,
        ablations={"supervised": {"only": ["challenge1", "challenge2"], "seeds": [1]}},
    )
    results = make_results(folder)
    page = write_report(folder, Path("page.html")).read_text()
    entry = results["ensembles"]["full (ensemble of 2)"]
    assert "Mean over 2 seeds (fewer: supervised 1); in brackets" in page
    assert "An ensemble is the mean over seeds of the predictions." in page
    (row,) = re.findall(r"<tr[^>]*><t[hd][^>]*>full \(ensemble of 2\)</t[hd]>.*?</tr>", page)
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>.*?</td>", row)]
    assert any(f"{entry['p_factor']['nrmse']['mean']:.3f}" in cell for cell in cells)
    assert "full (ensemble of 2) over band power" in page
    single = finished_study()
    make_results(single)
    assert "An ensemble" not in write_report(single, Path("single.html")).read_text()

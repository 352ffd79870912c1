import pytest

from cerebro.cli.simulate import simulate


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--preset", "demo"], "--out"),
        (["--out", "x"], "--preset"),
        (["--out", "x", "--preset", "huge"], "clinical, demo, full, small"),
        (["--out", "x", "--preset", "demo", "--participants", "3"], "15 or more"),
        (["--out", "x", "--preset", "demo", "--participants", "-3"], "larger than 0"),
        (["--out", "x", "--preset", "demo", "--participants", "many"], "participants"),
        (["--out", "x", "--preset", "demo", "--effect", "-1"], "set --effect"),
        (["--out", "x", "--preset", "demo", "--effect", "nan"], "set --effect"),
        (["--out", "x", "--preset", "demo", "--seed", "-1"], "--seed"),
        (["--out", "x", "--preset", "demo", "--strength", "weak"], "clinical, realistic, strong"),
        (["--out", "x", "--preset", "demo", "--jobs", "0"], "jobs"),
        (["--out", "x", "--preset", "demo", "--format", "fif"], "bids, clinical, edf, parquet"),
        (["--out", "x", "--preset", "demo", "--channels", "AF7"], "--channels belongs to --format parquet or clinical"),
        (["--out", "x", "--preset", "demo", "--format", "edf", "--remission", "table"], "belongs to --format parquet"),
        (["--out", "x", "--preset", "demo", "--format", "parquet", "--channels", "E1"], "set --channels"),
        (["--out", "x", "--preset", "demo", "--format", "parquet", "--remission", "file"], "column, primary, table"),
        (["--out", "x", "--preset", "demo", "--format", "clinical", "--channels", "TP9"], "hold no frontal pair"),
        (["--out", "x", "--preset", "demo", "--format", "clinical", "--remission", "table"], "--format parquet"),
        (["--out", "x", "--preset", "demo", "--format", "edf", "--seed", "500000"], "set --seed below"),
        (["--out", "x", "--preset", "demo", "--sedd", "1"], "--sedd"),
    ],
)
def test_a_wrong_input_exits_2_with_one_line_and_writes_nothing(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert simulate(argv) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_exits_2(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert simulate(["--out", str(tmp_path), "--preset", "demo"]) == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "file", "target"),
    [
        (["--format", "edf"], "edf", "p_factor"),
        (["--format", "parquet", "--remission", "column"], "windows", "remission"),
        (["--format", "clinical", "--channels", "AF7,AF8"], "eeg", "remission"),
    ],
)
def test_other_formats_are_written_with_their_truth(arguments, file, target, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cerebro.simulate.windows.N_WINDOWS", {"demo": 2})
    out = tmp_path / "out"
    assert simulate(["--out", str(out), "--preset", "demo", "--participants", "15", "--jobs", "1", *arguments]) == 0
    said = capsys.readouterr().out
    assert "15 participants, preset demo, strength strong" in said
    assert target in said
    assert {"ground_truth.json", "participants.tsv", "README", file} <= {path.name for path in out.iterdir()}


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        simulate(["--help"])
    assert stop.value.code == 0
    assert "cerebro simulate --out" in capsys.readouterr().out

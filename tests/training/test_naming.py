"""A configuration's name is a function of its config alone."""

from pathlib import Path

import pytest

from cerebro.cli import fit
from cerebro.files import copy_atomically

ROOT = Path(__file__).resolve().parents[2]


def named(config: str, *arguments: str) -> tuple[str, Path]:
    asked = fit._parse("fit", ["--config", str(ROOT / "configs" / config), "--run_name={model}", *arguments])
    return asked.run_name, fit._out(asked)


def test_folder_and_name_of_mamba2_carry_width_layers_ratio_and_style() -> None:
    folder = "outputs/mamba2"
    name = "mamba2_eeg_d128_l6_m20_mae"
    assert named("mamba2/pretrain.yaml") == (name, Path(folder, name))
    changed = ["--model.encoder.init_args.d_model=256", "--model.encoder.init_args.n_layers=2"]
    changed += ["--model.objective.init_args.mask_ratio=0.3", "--model.objective.init_args.masking_style=bert"]
    name = "mamba2_eeg_d256_l2_m30_bert"
    assert named("mamba2/pretrain.yaml", *changed) == (name, Path(folder, name))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("labram/tokenizer.yaml", "labram_d200_l12_vqnsp"),
        ("demo/pretrain.yaml", "labram_d50_l2_m50_codes_p_factor"),
        ("signal_jepa/contrastive.yaml", "signal_jepa_d64_l8_contrastive"),
        ("demo/challenge1.yaml", "labram_d50_l2_response_time"),
    ],
)
def test_every_encoder_and_objective_gives_a_name(config: str, name: str) -> None:
    assert named(config)[0] == name


def test_a_term_without_weight_is_not_in_the_name() -> None:
    assert named("demo/pretrain.yaml", "--model.objective.init_args.weights.p_factor=0")[0] == "labram_d50_l2_m50_codes"


def test_a_phase_that_asks_for_no_name_has_its_own() -> None:
    asked = fit._parse("fit", ["--config", str(ROOT / "configs/demo/challenge1.yaml")])
    assert asked.run_name == ""
    assert fit._out(asked) == Path("outputs/challenge1")


def test_a_copy_is_the_same_file_and_follows_a_new_one(tmp_path: Path) -> None:
    source, target = tmp_path / "best.ckpt", tmp_path / "mamba2_best.ckpt"
    for content in ("first", "second"):
        part = tmp_path / "part"
        part.write_text(content)
        part.replace(source)
        for _ in range(2):  # the second time it is that file already
            copy_atomically(source, target)
            assert target.read_text() == content
            assert target.samefile(source)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "mamba2_best.ckpt"}


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "best.ckpt").write_text("weights")
    copy_atomically(tmp_path / "best.ckpt", tmp_path / "named.ckpt")
    assert (tmp_path / "named.ckpt").read_text() == "weights"
    assert not (tmp_path / "named.ckpt").samefile(tmp_path / "best.ckpt")

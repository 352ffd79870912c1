"""Pictures that are drawn from the code are those of the code."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("draw_signal_jepa", FOLDER / "draw_signal_jepa.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "draw_signal_jepa", module)  # dataclasses look there
        spec.loader.exec_module(module)
        pictures: dict[str, str] = module.pictures()
    return pictures


@pytest.mark.parametrize("name", ["signal_jepa_encoder.svg", "signal_jepa_heads.svg"])
def test_a_stored_picture_is_that_of_the_code(drawn: dict[str, str], name: str) -> None:
    stored = (FOLDER / name).read_text(encoding="utf-8")
    assert drawn[name] == stored, "run `python docs/images/draw_signal_jepa.py` to draw it again"


def test_the_pictures_show_the_published_numbers(drawn: dict[str, str]) -> None:
    encoder, heads = drawn["signal_jepa_encoder.svg"], drawn["signal_jepa_heads.svg"]
    for told in ("13,840 parameters", ">3,870<", ">2,249,344<", ">B × 129 × 12 × 64<"):
        assert told in encoder
    assert heads.count("14,617 parameters") == 2

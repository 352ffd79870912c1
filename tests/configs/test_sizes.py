"""The sizes of encoders in configs: published or documented numbers of parameters."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cerebro.encoders import LaBraM, Mamba2, Transformer
from cerebro.montage import hbn_129
from cerebro.objectives import VQNSP
from cerebro.signal import SignalSpec

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
SIZE = re.compile(r"\| `encoders/(\w+)\.yaml` \| (\d+) × (\d+) \| (\d+) of (\d+) \| \d* ?\| ([\d,]+) \| ([\d,]+) \|")


def arguments(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["init_args"]
    return found


def signal_at(sfreq: float) -> SignalSpec:
    return SignalSpec(tuple(f"ch{i}" for i in range(128)), ((math.nan,) * 3,) * 128, sfreq, int(4 * sfreq))


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "sfreq", "body", "within"),
    [
        ("labram_small", 100.0, 0.5e6, 0.03),
        ("labram_base", 100.0, 5.82e6, 0.002),
        ("labram_base_200hz", 200.0, 5.82e6, 0.002),
        ("labram_large", 100.0, 46.3e6, 0.002),
        ("labram_huge", 100.0, 369e6, 0.002),
    ],
)
def test_a_body_has_the_published_number_of_parameters(name: str, sfreq: float, body: float, within: float) -> None:
    with torch.device("meta"):
        encoder = LaBraM(signal_at(sfreq), **arguments(f"encoders/{name}"))
    n_norm = 2 * encoder.d_model  # a part of the heads here
    assert count(encoder) + n_norm == pytest.approx(body, rel=within)


@pytest.mark.parametrize(("code_dim", "published"), [(64, 8.58e6), (32, 8.04e6)])
def test_the_tokenizer_has_the_published_number_of_parameters(code_dim: int, published: float) -> None:
    with torch.device("meta"):
        encoder = LaBraM(signal_at(200.0), **arguments("encoders/labram_base_200hz_tokenizer"))
        keys = arguments("objectives/vqnsp_official") | {"code_dim": code_dim}
        objective = VQNSP(encoder, encoder.signal, **keys)
    n_codes = objective.codebook.n_codes
    n_codebook = 2 * n_codes * code_dim + n_codes  # there codes, their sums and counts are parameters, here buffers
    n_mask_token = encoder.d_model  # the published tokenizer has none
    assert count(encoder, objective) + n_codebook - n_mask_token == pytest.approx(published, rel=0.001)


@pytest.mark.parametrize("size", ["small", "base"])
def test_a_tokenizer_cuts_the_patches_of_its_model(size: str) -> None:
    with torch.device("meta"):
        encoder = LaBraM(signal_at(100.0), **arguments(f"encoders/labram_{size}"))
        tokenizer = LaBraM(signal_at(100.0), **arguments(f"encoders/labram_{size}_tokenizer"))
        objective = VQNSP(tokenizer, tokenizer.signal, **arguments(f"objectives/vqnsp_{size}"))
    assert (encoder.patch_samples, encoder.d_model) == (tokenizer.patch_samples, tokenizer.d_model)
    assert objective.codebook.n_codes > 1000


def test_models_of_windows_have_the_sizes_that_their_page_says() -> None:
    cap = hbn_129()
    places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
    rows = SIZE.findall((ROOT / "docs/reference/mamba2.md").read_text())
    named = {path.stem for kind in ("mamba2", "transformer") for path in CONFIGS.glob(f"encoders/{kind}_*.yaml")}
    assert {name for name, *_ in rows} == named
    for name, *told in rows:
        keys = arguments(f"encoders/{name}")
        signal = SignalSpec(tuple(cap.channels), places, 100.0, 4 * keys["patch_samples"])
        width, n_layers, n_heads, headdim, total, projection = (int(number.replace(",", "")) for number in told)
        assert (width, n_layers) == (keys["d_model"], keys["n_layers"])
        if name.startswith("transformer"):
            encoder: Mamba2 | Transformer = Transformer(signal, **keys)
            assert (n_heads, headdim) == (keys["n_heads"], width // n_heads)
        else:
            encoder = Mamba2(signal, **keys)
            assert (n_heads, headdim) == (2 * width // headdim, keys["headdim"])
            assert n_heads % 8 == 0
        assert (count(encoder), count(encoder.input_proj)) == (total, projection), name

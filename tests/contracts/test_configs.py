"""The constructor is the schema: builders inside builders come out of a YAML with short class names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from cerebro.encoders import Encoder
from cerebro.objectives import FrozenTokenizer, MaskedCodes, Objective, WeightedSum
from cerebro.signal import SignalSpec

YAML = """
encoder: {class_path: LaBraM, init_args: {conv_channels: 2, depth: 2, n_heads: 2}}
objective:
  class_path: WeightedSum
  init_args:
    weights: {codes: 1, trait: 0.15}
    terms:
      codes:
        class_path: MaskedCodes
        init_args:
          tokenizer:
            class_path: FrozenTokenizer
            init_args:
              encoder: {class_path: LaBraM, init_args: {conv_channels: 2, depth: 1, n_heads: 2, layer_scale: 0}}
              objective: {class_path: VQNSP, init_args: {n_codes: 32, code_dim: 8, decoder_heads: 2}}
      trait: {class_path: Supervised, init_args: {target: trait, readout: {class_path: MLPReadout}}}
"""


class Builders:
    """Takes what a phase takes."""

    def __init__(
        self,
        encoder: Callable[[SignalSpec], Encoder],
        objective: Callable[[Encoder, SignalSpec], Objective],
    ) -> None:
        self.encoder = encoder
        self.objective = objective


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Builders, "model")
    return parser


def parse(parser: ArgumentParser, text: str) -> Any:
    indented = "".join(f"  {line}\n" for line in text.strip().splitlines())
    return parser.parse_string(f"model:\n{indented}")


def test_nested_builders_come_out_of_a_yaml(parser: ArgumentParser, toy_signal: SignalSpec, toy_eeg: Any) -> None:
    model = parser.instantiate(parse(parser, YAML)).model
    encoder = model.encoder(toy_signal)
    objective = model.objective(encoder, toy_signal)
    assert isinstance(objective, WeightedSum)
    codes = objective.terms["codes"]
    assert isinstance(codes, MaskedCodes)
    assert isinstance(codes.tokenizer, FrozenTokenizer)
    assert codes.tokenizer.encoder.n_layers == 1
    assert bool(torch.isfinite(objective(encoder, toy_eeg(4)).total))


@pytest.mark.parametrize(
    ("old", "new"),
    [("n_codes: 32", "n_code: 32"), ("depth: 2", "depth: two"), ("MLPReadout", "LaBraM"), ("VQNSP", "Contrastive")],
)
def test_a_mistyped_config_is_refused(parser: ArgumentParser, old: str, new: str) -> None:
    assert old in YAML
    with pytest.raises(ArgumentError):
        parse(parser, YAML.replace(old, new))

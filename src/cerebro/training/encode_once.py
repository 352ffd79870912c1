"""An encoder that is frozen in all epochs runs once; its tokens are kept in memory and in a file of the run's folder.

The head then trains, and is validated, on them alone: no signal is read and the encoder does not run. They are those
that it would give, so that the losses are the same.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

import cerebro
from cerebro.encoders.base import Encoder
from cerebro.nn.processes import made_by_first_process
from cerebro.progress import progress
from cerebro.signal import EEGBatch, RawBatch
from cerebro.training.checkpoint import weights_sha256
from cerebro.training.frozen_tokens import FrozenTokens, Outline, read_tokens, write_tokens
from cerebro.training.keep import ResumableLoader
from cerebro.training.stamp import PhaseData

FILE = "frozen_tokens.safetensors"
MOST_OF_FREE_MEMORY = 0.25  # that tokens may take; beyond it the encoder runs in every epoch
VERSION = 1  # of the file


@dataclass(frozen=True)
class Asked:
    """Whose tokens are wanted.

    Parameters
    ----------
    encoder : Encoder
        On the device where it runs.
    description : dict
        The encoder's part of the resolved config: what its weights do not say.
    data : PhaseData
        All training windows, as cut; ``val`` are those that are validated on.
    val : ResumableLoader
        Validation batches; may be of length 0.
    precision : str
        As given to the trainer.
    """

    encoder: Encoder
    description: dict[str, Any]
    data: PhaseData
    val: ResumableLoader
    precision: str

    def outline(self) -> Outline:
        """Windows and their sizes, in a pass that reads no signal."""
        parts: list[list[Tensor]] = []
        for batch in self._batches("windows", with_signals=False):
            n_channels, n_most = self.encoder.valid(batch).shape[1:]
            place = torch.arange(1, n_most + 1, device=batch.sample.device)
            n_tokens = (self.encoder.valid(batch).any(dim=1) * place).amax(dim=1).clamp(min=1)
            parts.append([batch.sample.cpu(), torch.full((len(batch),), n_channels), n_tokens.cpu()])
        sample, n_channels_of, n_tokens_of = (torch.cat(part) for part in zip(*parts, strict=True))
        sample, inverse = torch.unique(sample, return_inverse=True)
        first = torch.empty(len(sample), dtype=torch.int64)
        first[inverse] = torch.arange(len(inverse))
        return Outline(sample, n_channels_of[first], n_tokens_of[first])

    def key(self, outline: Outline) -> str:
        """Hash of everything that decides the tokens: no file of another hash is ever used."""
        parts = {
            "version": VERSION,
            "code": _code_of(type(self.encoder)),
            "encoder": self.description,
            "weights": weights_sha256(self.encoder.state_dict()),
            "data": [self.data.data_hash, self.data.windows_hash],
            "signal": asdict(self.data.signal),
            "windows": weights_sha256(outline.plain()),
            "precision": [self.precision, self._device.type],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def compute(self, outline: Outline) -> FrozenTokens:
        """One pass of the encoder over all windows, in evaluation mode and without gradients; its mode is restored."""
        was_training = self.encoder.training
        end = outline.end.tolist()
        place_of = {sample: place for place, sample in enumerate(outline.sample.tolist())}
        values: Tensor | None = None
        self.encoder.eval()
        is_bf16 = self.precision == "bf16-mixed"
        try:
            with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
                for batch in self._batches("tokens of the frozen encoder", with_signals=True):
                    tokens = self.encoder(batch)
                    if values is None:
                        values = tokens.new_empty(outline.n_rows, tokens.shape[-1])
                    for sample, found in zip(batch.sample.tolist(), tokens, strict=True):
                        place = place_of[sample]
                        n = int(outline.n_tokens[place])
                        values[end[place] - len(found) * n : end[place]] = found[:, :n].flatten(0, 1)
        finally:
            self.encoder.train(was_training)
        assert values is not None
        return FrozenTokens(outline, values)

    def _batches(self, what: str, with_signals: bool) -> Iterator[EEGBatch]:
        loaders = [self.data.evaluation_loader("train"), self.val]
        if not with_signals:
            loaders = [loader.without_signals() for loader in loaders]
        for raw in progress(_one_by_one(loaders), what, "batch", sum(map(len, loaders)), stays=False):
            yield raw.to(self._device).to_microvolts()

    @property
    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device


def encode_once(asked: Asked, out: Path, otherwise: str, say: Callable[[str], None]) -> FrozenTokens | None:
    """Tokens of all training and validation windows; ``None``, with a line, where they would take too much memory.

    The line ends with what happens ``otherwise``. Tokens are read from ``out`` where an earlier run left them, else
    computed and kept there. Of several processes the first one computes them, and the others read its file.
    """
    device = next(asked.encoder.parameters()).device

    def make() -> tuple[FrozenTokens | None, str]:
        outline = asked.outline()
        n_bytes = outline.n_rows * asked.encoder.d_model * 4  # encoders end in float32, also in bf16-mixed
        what = f"tokens of {len(outline.sample):,} windows ({n_bytes / 1e6:,.1f} MB)"
        if n_bytes > MOST_OF_FREE_MEMORY * (free := free_bytes(device)):
            say(
                f"the encoder is frozen, but {what} would take more than a quarter of the {free / 1e9:,.1f} GB of "
                f"memory that are free: {otherwise}"
            )
            return None, ""
        key = asked.key(outline)
        found, why_not = read_tokens(out / FILE, key, device)
        if found is not None:
            say(f"the encoder is frozen in all epochs: {what} are read from {out / FILE}")
            return found, key
        say(f"the encoder is frozen in all epochs: {what} are computed once, and kept in {out / FILE}{why_not}")
        found = asked.compute(outline)
        write_tokens(out / FILE, outline, found, key)
        return found, key

    mine: list[FrozenTokens | None] = [None]

    def make_mine() -> str:
        mine[0], key = make()
        return key

    key = made_by_first_process(make_mine)
    if key and mine[0] is None:
        mine[0], _ = read_tokens(out / FILE, key, device)
        if mine[0] is None:
            raise RuntimeError(f"{out / FILE}, which the first process wrote, cannot be read by the others")
    return mine[0]


@cache
def _code_of(cls: type[Encoder]) -> str:
    """Hash of the sources that encoders are made of."""
    root = Path(cerebro.__file__).parent
    files = [*root.glob("encoders/**/*.py"), *root.glob("nn/**/*.py"), root / "signal.py", Path(inspect.getfile(cls))]
    digest = hashlib.sha256(torch.__version__.encode())
    for file in sorted(set(files)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _one_by_one(loaders: list[ResumableLoader]) -> Iterable[RawBatch]:
    for loader in loaders:
        yield from loader


def free_bytes(device: torch.device) -> int:
    """Memory that is free where the tokens will lie; of processes that share a machine's memory, the part of one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

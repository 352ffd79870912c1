"""Regression or classification of a label through a readout."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, DataError
from cerebro.nn.processes import gather_uneven_rows, mean_over_processes, n_processes, sum_over_processes
from cerebro.objectives.base import Loss, Objective
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, SignalSpec


class Supervised(Objective):
    """Predict one target; windows whose label is missing take no part in the loss.

    A regression is learned on the standardised target (mean and standard deviation of the training labels) and
    predicted in the target's own unit.

    Parameters
    ----------
    encoder, signal
        What it reads from.
    target : str
        Name of the target, one of ``signal.targets``.
    kind : {"regression", "classification"}
    readout : builder of a `Readout`
        Called with the encoder, the signal and the number of outputs.
    loss : {"mse", "l1", "huber"}
        Loss of a regression, on the standardised target; ``huber`` turns linear at one standard deviation.
    n_classes : int
        Classes of a classification; labels are 0 ... n_classes - 1.
    label_smoothing : float
        Of a classification, in [0, 1).
    class_weights : {"equal", "balanced"}
        Of a classification. ``balanced``: a window of class k weighs N / (K n_k), where n_k of the N training windows
        are of class k, so that rare classes count as much as frequent ones (King & Zeng 2001, Political Analysis 9).

    Raises
    ------
    ConfigError
        If the data carry no such target.
    """

    starts_from_labels = True
    target_mean: Tensor
    target_sd: Tensor
    class_weight: Tensor

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """That of the target, such as ``p_factor``."""
        return str(settings["target"])

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        target: str,
        readout: Callable[[Encoder, SignalSpec, int], Readout],
        kind: Literal["regression", "classification"] = "regression",
        loss: Literal["mse", "l1", "huber"] = "mse",
        n_classes: int = 2,
        label_smoothing: float = 0.0,
        class_weights: Literal["equal", "balanced"] = "equal",
    ) -> None:
        super().__init__(encoder, signal)
        if target not in signal.targets:
            carried = ", ".join(signal.targets) or "none"
            raise ConfigError(f"the data carry no target {target!r} (they carry: {carried}); add it to data.targets.")
        if kind == "classification" and n_classes < 2:
            raise ConfigError(f"n_classes={n_classes} is no classification; set n_classes to 2 or more.")
        self.target = target
        self.kind = kind
        self.loss = loss
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.readout = readout(encoder, signal, n_classes if kind == "classification" else 1)
        self.reads_tokens_alone = self.readout.reads_tokens
        self.starts_from_tokens = self.readout.starts_from_tokens
        self.pools = self.readout.pools
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_sd", torch.ones(()))
        if kind == "classification":
            self.register_buffer("class_weight", torch.ones(n_classes))

    @torch.no_grad()
    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Take mean and standard deviation, or the class weights, of the known training labels, in one pass.

        Of several processes each reads the labels of its share, and all take those of all.
        """
        labels = [batch.targets[self.target][batch.known[self.target]].double().cpu() for batch in batches]
        values = gather_uneven_rows(torch.cat(labels) if labels else torch.empty(0, dtype=torch.float64))
        if len(values) == 0:
            raise DataError(
                f"no training window has a label {self.target!r}; check the participants table and data.targets."
            )
        if self.kind == "classification":
            if not bool(((values >= 0) & (values < self.n_classes) & (values == values.round())).all()):
                found = sorted({float(value) for value in values})[:5]
                raise DataError(
                    f"labels of {self.target!r} must be whole numbers from 0 to {self.n_classes - 1}, found {found}; "
                    "set n_classes, or kind to regression."
                )
            if bool(values.min() == values.max()):
                raise DataError(
                    f"all {len(values):,} training samples with a label {self.target!r} are of class "
                    f"{int(values[0])}, and a classification needs two or more; check the table of labels, take "
                    "another data.split.seed or a smaller val_ratio and test_ratio, or prepare more participants."
                )
            if self.class_weights == "balanced":
                counts = torch.bincount(values.long(), minlength=self.n_classes)
                self.class_weight.copy_(len(values) / (self.n_classes * counts.clamp(min=1)))
            return
        sd = float(values.std(correction=0))
        self.target_mean.fill_(float(values.mean()))
        self.target_sd.fill_(sd if sd > 0 else 1.0)  # a constant label is predicted as it is

    def start_from_tokens(self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]) -> None:
        """Let the readout look at the training tokens, unless it was handed over."""
        if self.readout.starts_from_tokens:
            self.readout.start(encoder, batches)

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss over the windows with a known label; zero, with a zero gradient, if there is none; hands tokens on."""
        if tokens is None and self.readout.reads_tokens and batch.has_signal:
            tokens = encoder(batch)
        outputs = self._outputs(encoder, batch, tokens)
        known, label = batch.known[self.target], batch.targets[self.target]
        n_known = sum_over_processes(known.sum())
        each = self._errors(outputs, torch.where(known, label, 0.0))
        total = mean_over_processes(torch.where(known, each, 0.0).sum(), known.sum())
        parts: dict[str, Tensor] = {self.loss if self.kind == "regression" else "cross_entropy": total.detach()}
        if self.kind == "classification":
            right = (outputs.detach().argmax(dim=-1) == torch.where(known, label, 0.0).long()).float()
            parts["accuracy"] = mean_over_processes(torch.where(known, right, 0.0).sum(), known.sum())
        counts = dict.fromkeys(["loss", *parts], n_known)
        return Loss(total, {**parts, "known": n_known / (len(batch) * n_processes())}, tokens, counts)

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor) -> Float[Tensor, "B F"]:
        """Features of the readout, before anything that learns."""
        return self.readout.pooled(encoder, batch, tokens)

    def _outputs(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None) -> Float[Tensor, "B O"]:
        """Outputs of the readout in float32: from the tokens, the features that are kept, or the signals."""
        if tokens is None and not batch.has_signal:
            if self.pooled_samples is None:
                raise RuntimeError("the batch has no signals, and neither its tokens nor its features are kept")
            return self.readout.of_pooled(self.pooled_samples.of(batch)).float()
        outputs: Tensor = self.readout(encoder, batch, tokens)
        return outputs.float()

    def _errors(self, outputs: Float[Tensor, "B O"], label: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        if self.kind == "classification":
            each = F.cross_entropy(outputs, label.long(), reduction="none", label_smoothing=self.label_smoothing)
            return each * self.class_weight[label.long()]
        wanted = (label - self.target_mean) / self.target_sd
        if self.loss == "mse":
            return F.mse_loss(outputs[:, 0], wanted, reduction="none")
        if self.loss == "l1":
            return F.l1_loss(outputs[:, 0], wanted, reduction="none")
        return F.huber_loss(outputs[:, 0], wanted, reduction="none")

    @torch.no_grad()
    def predict(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Mapping[str, Tensor]:
        """Prediction in the target's unit (B,), or probabilities of the classes (B, K)."""
        outputs = self._outputs(encoder, batch, tokens)
        if self.kind == "classification":
            return {self.target: outputs.softmax(dim=-1)}
        return {self.target: outputs[:, 0] * self.target_sd + self.target_mean}

    @torch.no_grad()
    def predict_windows(
        self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Probabilities of the classes by window (B, N, K) and which windows are real (B, N); {} unless they vote."""
        if self.kind != "classification" or not self.readout.predicts_windows:
            return {}
        outputs = self.readout.window_outputs(encoder, batch, tokens).float()
        return {self.target: (outputs.softmax(dim=-1), encoder.valid(batch).any(dim=1))}

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Prediction and target of the windows with a known label."""
        known = batch.known[self.target]
        return {
            "prediction": self.predict(encoder, batch)[self.target][known],
            "target": batch.targets[self.target][known],
        }

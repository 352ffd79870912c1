"""Probe the encoder while it trains: it is only read, and training goes on as if nobody had looked."""

from collections.abc import Callable

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core import LightningModule

from cerebro.errors import ConfigError, DataError
from cerebro.nn.processes import alone, is_first_process
from cerebro.training.embedding import embed
from cerebro.training.keep import random_state, restore_random_state
from cerebro.training.keys import ProbeKeys
from cerebro.training.phase import Phase
from cerebro.training.prober import PARTICIPANT, Prober
from cerebro.training.stamp import PhaseData


def check_targets(targets: tuple[str, ...], data: PhaseData) -> None:
    """Raise ConfigError for a target that neither the windows nor the participants table have."""
    known = {PARTICIPANT, *data.signal.targets, *data.participant_values(targets)}
    unknown = [name for name in targets if name not in known]
    if unknown:
        raise ConfigError(
            f"probe target {unknown[0]!r} is neither a column of the participants table nor in data.targets "
            f"({', '.join(data.signal.targets) or 'empty'}); correct probe.targets, or add it to data.targets."
        )


class Probing(Callback):
    """Probe the encoder at the end of every so many epochs, for that epoch's row of the history.

    Rows are ``probe/nrmse_<target>`` and ``probe/balanced_accuracy_<target>`` by window, to be read beside
    ``val/...``, and ``probe/participant`` beside ``probe/participant_chance``.

    Parameters
    ----------
    keys : ProbeKeys
        What is probed, and when.
    data : PhaseData
        A fixed choice of its training windows is fitted to, one of its validation windows scored.
    precision : str
        As given to the trainer.
    seed : int
        Seed of the probes.
    say : callable
        Takes a line for the user.

    Raises
    ------
    ConfigError
        If a target is unknown, or nobody validates.
    """

    def __init__(self, keys: ProbeKeys, data: PhaseData, precision: str, seed: int, say: Callable[[str], None]) -> None:
        self.keys, self.data, self.precision, self.seed, self.say = keys, data, precision, seed, say
        self._said: set[str] = set()
        if not keys.targets:
            return
        check_targets(keys.targets, data)
        if not data.participants("val"):
            raise ConfigError("probe.targets needs validation participants; set data.split.val_ratio above 0.")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe, and leave the scores where the history finds them; of several processes the first does."""
        assert isinstance(pl_module, Phase)
        if self.keys.targets and is_first_process() and (trainer.current_epoch + 1) % self.keys.every_epochs == 0:
            before = random_state()
            try:
                with alone():
                    pl_module.measured |= self.rows(pl_module)
            finally:
                restore_random_state(before)

    def rows(self, phase: Phase) -> dict[str, float]:
        """Scores of the encoder as it is."""
        n_most = self.keys.max_windows
        train = embed(phase.encoder, self.data.evaluation_loader("train", n_most), self.precision, "probe train")
        val = embed(phase.encoder, self.data.evaluation_loader("val", n_most), self.precision, "probe val")
        prober = Prober(self.data, train, val, n_resamples=0, seed=self.seed)
        rows: dict[str, float] = {}
        for target in self.keys.targets:
            try:
                score = prober.by_row(target)
            except DataError as error:
                self._say_once(f"probe of {target} left out: {str(error).rstrip('.')}")
                continue
            if target == PARTICIPANT:
                rows |= {"probe/participant": score.value, "probe/participant_chance": score.constant}
            else:
                rows[f"probe/{score.metric}_{target}"] = score.value
            self._say_once(
                f"probe of {target}: {score.metric} by window, fitted to {score.n_fitted:,} windows of "
                f"{score.n_participants_fitted} participants, scored on {score.n_scored:,} of {score.n_participants}; "
                f"constant predictor {score.constant:.4f}" + (f"; {score.note}" if score.note else "")
            )
        return rows

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(line)

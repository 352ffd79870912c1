"""A searched sweep as a recipe describes it: which keys of a phase, over what, by which figure of validation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cerebro.errors import ConfigError

Number = int | float


@dataclass(frozen=True)
class Span:
    """A range of numbers, whole ones if its bounds and its step are written without a point.

    Parameters
    ----------
    low, high : int or float
        First and last value, low < high.
    log : bool
        Draw the logarithm, so that every power of ten is as likely as another; low > 0, no step.
    step : int or float
        Distance of the values from each other; 0 = any value.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number = 0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(
                f"low={self.low!r} is not below high={self.high!r}; exchange them, or set the key itself."
            )
        if self.log and (self.low <= 0 or self.step):
            raise ConfigError(f"log: true needs low above 0 and no step (low={self.low!r}, step={self.step!r}).")
        if self.step < 0 or (self.step and abs((self.high - self.low) / self.step % 1 - 0.5) < 0.5 - 1e-6):
            raise ConfigError(
                f"step={self.step!r} does not lead from low={self.low!r} to high={self.high!r}; give one that does."
            )

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step))

    def first(self) -> Number:
        """A value, to check the key with."""
        return self.low

    def written(self, value: Number) -> Number:
        """The value that is trained with: four digits, within the range."""
        return value if self.is_whole else min(max(float(f"{value:.4g}"), self.low), self.high)

    def words(self) -> str:
        """Description for the user."""
        how = ", logarithmic" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{'whole numbers ' if self.is_whole else ''}from {self.low:g} to {self.high:g}{how}"


@dataclass(frozen=True)
class Choice:
    """Values of any kind, as JSON texts, each as likely as another at first."""

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < max(2, len(self.values)):
            raise ConfigError(f"choices=[{', '.join(self.values)}]; give two or more different values.")

    def first(self) -> Any:
        """A value, to check the key with."""
        return json.loads(self.values[0])

    def written(self, value: str) -> Any:
        """The value that is trained with."""
        return json.loads(value)

    def words(self) -> str:
        """Description for the user."""
        return f"one of {', '.join(self.values)}"


@dataclass(frozen=True)
class Search:
    """A searched sweep.

    Parameters
    ----------
    name : str
        Its name in the recipe.
    phase : str
        Phase whose keys are searched.
    scored_phase : str
        Final phase whose validation chooses.
    parameters : mapping
        Dotted key -> range or choices.
    n_trials : int
        Settings to try, > 0.
    seed : int
        Seed of the sampler, >= 0.
    monitor : str
        Figure of the scored phase's history, ``val/...``, at the epoch that it keeps.
    direction : str
        ``max`` or ``min``.
    """

    name: str
    phase: str
    scored_phase: str
    parameters: Mapping[str, Span | Choice]
    n_trials: int
    seed: int
    monitor: str
    direction: str

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ConfigError("parameters is empty; name a dotted key with {low: ..., high: ...} or {choices: [...]}.")
        for key, value, least in (("trials", self.n_trials, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{key}={value!r}; give a whole number from {least} on.")
        if not isinstance(self.monitor, str) or not self.monitor.startswith("val/"):
            raise ConfigError(
                f"monitor={self.monitor!r} is no figure of validation; test participants choose nothing, so give one "
                "that begins with val/, such as val/participant_f1_remission."
            )
        if self.direction not in ("max", "min"):
            raise ConfigError(f"direction={self.direction!r}; give max (higher is better) or min.")

    def content(self) -> dict[str, Any]:
        """What makes two searches the same, whatever the number of trials."""
        return {
            "phase": self.phase,
            "scored_phase": self.scored_phase,
            "parameters": {key: parameter.words() for key, parameter in self.parameters.items()},
            "seed": self.seed,
            "monitor": self.monitor,
            "direction": self.direction,
        }


def read_parameter(content: Any) -> Span | Choice:
    """Range or choices as a recipe writes them; a mistake raises ConfigError without its place."""
    if isinstance(content, dict) and set(content) == {"choices"}:
        if not isinstance(content["choices"], list):
            raise ConfigError(f"choices={content['choices']!r}; give a list of values.")
        return Choice(tuple(json.dumps(value) for value in content["choices"]))
    if not isinstance(content, dict) or not {"low", "high"} <= set(content) <= {"low", "high", "log", "step"}:
        raise ConfigError(f"found {content!r}; write {{low: ..., high: ...}} with log or step, or {{choices: [...]}}.")
    for name in ("low", "high", "step"):
        value = content.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            is_text = isinstance(value, str) and _is_number(value)
            hint = f"YAML takes it for a text; write {_with_point(str(value))}" if is_text else "give a number"
            raise ConfigError(f"{name}={value!r}; {hint}.")
    if not isinstance(content.get("log", False), bool):
        raise ConfigError(f"log={content['log']!r}; give true or false.")
    return Span(content["low"], content["high"], content.get("log", False), content.get("step", 0))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_point(text: str) -> str:
    mantissa, _, exponent = text.lower().partition("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}" if exponent else f"{float(text)}"

import dataclasses
from pathlib import Path

import pytest

from cerebro.montage import hbn_129
from cerebro.simulate.cohort import Spec, make_spec, simulate_cohort
from cerebro.simulate.forward import Head, build_head


@pytest.fixture(scope="session")
def head() -> Head:
    return build_head(hbn_129())


@pytest.fixture(scope="session")
def tiny() -> Spec:
    """The demo preset, cut down to seconds."""
    spec = make_spec("demo", n_participants=15, seed=3)
    preset = dataclasses.replace(
        spec.preset, rest_open_s=3.0, rest_closed_s=4.0, rest_blocks=2, film_s=5.0, ccd_trials=3
    )
    return dataclasses.replace(spec, preset=preset)


@pytest.fixture(scope="session")
def cohort(tiny: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "cohort"
    simulate_cohort(out, tiny)
    return out

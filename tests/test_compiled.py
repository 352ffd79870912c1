import numpy as np
import pytest

from cerebro import compiled


def add_up(values):
    total = 0.0
    for value in values:
        total += value
    return total


def test_a_compiled_loop_gives_what_the_loop_gives():
    values = np.random.default_rng(0).standard_normal(1000)
    assert compiled.compiled(add_up)(values) == add_up(values)  # the same order, to the bit


@pytest.mark.parametrize("is_read_only", [False, True])
def test_no_folder_for_machine_code_is_no_obstacle(is_read_only, monkeypatch):
    njit, asked = compiled.numba.njit, []

    def reluctant(*, cache=False, **settings):
        asked.append(cache)
        if cache and is_read_only:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**settings)

    monkeypatch.setattr(compiled.numba, "njit", reluctant)
    assert compiled.compiled(add_up)(np.ones(3)) == 3
    assert asked == ([True, False] if is_read_only else [True])


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle"])
def test_machine_code_that_cannot_be_read_is_compiled_anew(ending, content, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(compiled.numba.config, "CACHE_DIR", str(tmp_path))
    values = np.ones(3)
    assert compiled.compiled(add_up)(values) == 3
    (file,) = tmp_path.rglob(f"*.{ending}")
    file.write_bytes(content)
    assert compiled.compiled(add_up)(values) == 3
    assert "cannot be read" in caplog.text
    caplog.clear()
    assert compiled.compiled(add_up)(values) == 3  # what was damaged has been replaced
    assert not caplog.text

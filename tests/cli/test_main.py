import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cerebro.cli import main as module
from cerebro.cli.main import VERBS, main
from cerebro.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def verb(monkeypatch: pytest.MonkeyPatch, raised: BaseException | None, code: int = 0) -> None:
    """Put a verb ``try`` into the table that raises, or gives ``code``."""

    def run(argv: list[str]) -> int:
        if raised is not None:
            raise raised
        return code

    fake = types.ModuleType("fake_verbs")
    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_verbs", fake)
    monkeypatch.setitem(module.VERBS, "try", ("fake_verbs", "run", "a verb"))


def test_help_names_every_verb_without_loading_torch() -> None:
    code = (
        "import sys; from cerebro.cli.main import main; rc = main(['--help']); "
        "assert not {'torch', 'lightning', 'mlflow', 'pandas', 'mne'} & set(sys.modules); sys.exit(rc)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in VERBS)


def test_the_interpreter_takes_the_same_verbs() -> None:
    found = subprocess.run([sys.executable, "-m", "cerebro", "nonsense"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "no verb of cerebro" in found.stderr


def test_an_unknown_verb_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "simulate, prepare" in error


@pytest.mark.parametrize(
    ("raised", "code"),
    [(DataError("found\n  a"), 2), (KeyboardInterrupt(), 130), (SystemExit(2), 2), (SystemExit(None), 0)],
)
def test_every_end_has_its_exit_code_and_at_most_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int
) -> None:
    verb(monkeypatch, raised)
    assert main(["try"]) == code
    assert capsys.readouterr().err.count("\n") <= 1


def test_a_fault_of_cerebro_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    verb(monkeypatch, RuntimeError("a fault"))
    with pytest.raises(RuntimeError, match="a fault"):
        main(["try"])


def test_a_reader_that_ends_early_is_no_fault() -> None:
    plan = "['run', 'recipes/labram_tuh.yaml', '--dry-run']"
    code = f"from cerebro.cli.main import main; import sys; sys.exit(main({plan}))"
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")


def test_sigterm_unwinds_the_verb_and_the_former_handler_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def run(argv: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            unwound.append(True)
        return 0

    fake = types.ModuleType("fake_verbs")
    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_verbs", fake)
    monkeypatch.setitem(module.VERBS, "try", ("fake_verbs", "run", "a verb"))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["try"]) == 143
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_doctor_prints_versions_and_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cerebro.cli import doctor

    monkeypatch.setattr(doctor, "free_bytes", lambda folder: 2**40)
    monkeypatch.setattr(doctor, "_accelerators", list)
    assert main(["doctor"]) == 0
    assert "lightning 2." in capsys.readouterr().out
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: 2**20)
    assert main(["doctor"]) == 1
    assert "only 1 MiB are free" in capsys.readouterr().out

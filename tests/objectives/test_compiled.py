"""A step is one graph of one shape: nothing waits for the host, so that `torch.compile` and CUDA graphs apply.

With ``fullgraph`` the tracer refuses whatever it cannot put into the graph: a value that is read on the host, a shape
that depends on values. The graph is run as it was traced, without a compiler.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).parent / "support" / "one_graph.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Any]:
    folder = tmp_path_factory.mktemp("graphs")
    made = subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=800)
    assert made.returncode == 0, made.stderr
    read: dict[tuple[str, bool], Any] = torch.load(folder / "graphs.pt", weights_only=True)
    return read


NAMES = ("vqnsp", "codes_and_trait", "windows", "jepa", "PreLocal", "PostLocal", "Contextual")


@pytest.mark.parametrize(
    ("name", "is_padded"), [("contrastive", False), *((name, padded) for name in NAMES for padded in (False, True))]
)
def test_a_step_is_one_graph_that_serves_other_batches(
    found: dict[tuple[str, bool], Any], name: str, is_padded: bool
) -> None:
    one = found[name, is_padded]
    assert "refused" not in one, one["refused"]
    assert one["n_graphs"] == 1
    assert len(one["plain"]) > (8 if name.endswith("Local") else 20)
    torch.testing.assert_close(one["traced"], one["plain"])


def test_a_value_that_is_read_on_the_host_would_be_noticed(found: dict[tuple[str, bool], Any]) -> None:
    assert "item" in found["reads_back", False]["refused"]

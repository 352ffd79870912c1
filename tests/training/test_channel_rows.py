"""Weights move to another set of channels by a stated rule, and every row that is not its own is counted."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cerebro.encoders import LaBraM, SignalJEPA
from cerebro.errors import CheckpointError
from cerebro.montage import hbn_129, standard_1005
from cerebro.nn.postnorm import PostNormDecoder
from cerebro.objectives import Contrastive
from cerebro.signal import SignalSpec
from cerebro.training.channel_rows import interpolated_rows
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, TransferReport, transfer_weights
from cerebro.training.electrodes import Electrodes, same_names
from cerebro.training.export import export_weights
from cerebro.training.exported import write_exported
from cerebro.training.foreign import read_source
from cerebro.training.handover import check_source
from cerebro.training.phase import Phase
from cerebro.training.signal_jepa.channels import PUBLISHED_CHANNELS, published_electrodes

SMALL = {"depth": 1, "feedforward": 8}
TABLE = "pos_encoder.pos_encoder_spat.weight"
NAN = (math.nan,) * 3


def cap(*names: str, sfreq: float = 100.0, n_times: int = 200) -> SignalSpec:
    """Channels of the 10-05 system."""
    known = standard_1005()
    places = [tuple(map(float, known.positions[known.channels.index(name)])) for name in names]
    return SignalSpec(names, tuple(places), sfreq, n_times)


def net(n_channels: int = 129) -> SignalSpec:
    known = hbn_129()
    places = tuple(tuple(map(float, place)) for place in known.positions[:n_channels])
    return SignalSpec(known.channels[:n_channels], places, 100.0, 200)


def phase_of(signal: SignalSpec, encoder: Callable[..., Any] = SignalJEPA, **keys: Any) -> Phase:
    keys = {**SMALL, **keys} if encoder is SignalJEPA else keys
    return Phase("next", signal, lambda s: encoder(s, **keys), Contrastive)


def trained(signal: SignalSpec, encoder: Callable[..., Any] = SignalJEPA, **keys: Any) -> Checkpoint:
    """A checkpoint of ours whose tensors are all random."""
    phase = phase_of(signal, encoder, **keys)
    weights = {name: torch.rand_like(value) for name, value in phase.state_dict().items()}
    config = {
        "model": {"encoder": {"class_path": "SignalJEPA", "init_args": SMALL | keys}, "objective": {"class_path": "C"}}
    }
    stamp = Stamp("first", "0", "", "", "", config, asdict(signal), {}, [], [])
    return Checkpoint(Path("first.ckpt"), stamp, weights, {})


def move(source: Checkpoint, phase: Phase, **keys: Any) -> TransferReport:
    transfer = Transfer(source.path, **keys)
    check_source(phase, transfer, source, phase.signal)
    return transfer_weights(phase, transfer, source)


def table_of(phase: Phase) -> Tensor:
    return phase.encoder.state_dict()[TABLE].clone()


def test_other_channels_are_refused_by_name_with_what_to_type() -> None:
    source, phase = trained(net(8)), phase_of(cap("Fp1", "Cz"))
    before = {name: value.clone() for name, value in phase.state_dict().items()}
    said = (
        r"8 there, 2 here \(first difference: E1 there, Fp1 here; without a row there: Fp1, Cz\); nothing was "
        r"loaded; write model.init: \[\{source: first.ckpt, rows: interpolated\}\] .* rows: initial"
    )
    with pytest.raises(CheckpointError, match=said):
        move(source, phase)
    assert all(torch.equal(value, before[name]) for name, value in phase.state_dict().items())
    with pytest.raises(CheckpointError, match="Cz there, Fp1 here; all of these have a row there"):
        move(trained(cap("Cz", "Fp1")), phase)
    move(trained(cap("Fp1", "Cz")), phase)


def test_initial_keeps_the_table_as_it_starts_and_moves_the_rest() -> None:
    source, phase = trained(net()), phase_of(cap("Fp1", "Cz", "O2"))
    start = table_of(phase)
    report = move(source, phase, rows="initial")
    assert torch.equal(table_of(phase), start)
    name = "encoder.transformer.encoder.norm.weight"
    assert torch.equal(phase.state_dict()[name], source.weights[name])
    assert report.components["pos_encoder"] == {"moved": 0, "new": 1, "unused": 1}
    assert report.notes == ("channel rows: all start anew, as rows: initial says",)


def test_interpolated_takes_rows_by_name_to_the_bit_and_others_between_neighbours() -> None:
    source, phase = (
        trained(cap(*PUBLISHED_CHANNELS)),
        phase_of(replace(cap("O2", "FT7", "T7", "Fp1"), channels=("O2", "FT7", "T3", "Fp1"))),
    )
    report = move(source, phase, rows="interpolated")
    theirs, ours = source.weights[f"encoder.{TABLE}"], table_of(phase)
    for row, name in ((0, "O2"), (2, "T7"), (3, "Fp1")):  # T3 is an older name of T7
        assert torch.equal(ours[row], theirs[PUBLISHED_CHANNELS.index(name)])
    assert theirs.min() < ours[1].min() < ours[1].max() < theirs.max()
    assert report.notes[0] == "channel rows: 3 of 4 channels by name"
    told = r"channel rows: 1 of 4 channels interpolated from the 4 nearest of 62; distance to the nearest: median .* mm"
    assert report.notes[1].startswith(told.split(r".*")[0])
    assert report.notes[1].endswith("mm (FT7)")
    assert report.components["pos_encoder"] == {"moved": 1, "new": 0, "unused": 0}


def test_interpolation_weighs_by_the_inverse_square_of_the_distance_on_the_head() -> None:
    theirs = Electrodes.of(cap("C3", "C4", "Fz", "Pz", "Oz"))
    ours = Electrodes.of(cap("Cz"))
    rows, lines = interpolated_rows(torch.eye(5), theirs, ours, Path("x"))
    unit = [place / np.linalg.norm(place) for place in (theirs.directions() * 1.0)]
    away = np.linalg.norm(np.array(unit) - ours.directions(), axis=1)
    weight = away[:4] ** -2.0
    np.testing.assert_allclose(rows[0, :4], weight / weight.sum(), rtol=1e-5)
    assert rows[0, 4] == 0  # the fifth nearest
    assert math.isclose(float(rows.sum()), 1.0, rel_tol=1e-6)
    assert "0 of 1 channels by name" in lines[0]


def test_the_same_place_under_another_name_is_that_row() -> None:
    theirs, ours = cap("C3", "C4", "Cz"), cap("C3", "C4", "Cz")
    renamed = replace(ours, channels=("left", "right", "Cz"))
    rows, lines = interpolated_rows(torch.eye(3), Electrodes.of(theirs), Electrodes.of(renamed), Path("x"))
    assert torch.equal(rows, torch.eye(3))
    assert "2 of 3 channels interpolated" in lines[1]
    assert "largest 0.0 mm" in lines[1]


def test_one_name_of_two_places_is_no_name() -> None:
    """Nets number their electrodes alike: E1 of one is far from E1 of another."""
    theirs = replace(cap("C3", "C4", "Fz", "Oz"), channels=("E1", "E2", "E3", "E4"))
    ours = replace(cap("Oz", "C4"), channels=("E1", "E2"))
    rows, lines = interpolated_rows(torch.eye(4), Electrodes.of(theirs), Electrodes.of(ours), Path("x"))
    assert torch.equal(rows, torch.eye(4)[[3, 1]])
    assert lines[0] == "channel rows: 1 of 2 channels by name"
    assert lines[2] == "channel rows: 1 of these have a name that stands for a place more than 30 mm away there (E1)"


def test_heads_of_other_size_agree() -> None:
    """A child's net on its own head and the 10-05 cap: the vertex of one is by the vertex of the other."""
    rows, lines = interpolated_rows(
        torch.eye(62),
        published_electrodes(),
        Electrodes.of(replace(net(), channels=tuple(f"n{i}" for i in range(129)))),
        Path("x"),
    )
    assert int(rows[128].argmax()) == PUBLISHED_CHANNELS.index("Cz")
    assert "distance to the nearest: median 16." in lines[1]


def test_a_channel_without_a_name_or_a_place_is_refused() -> None:
    ours = Electrodes.of(SignalSpec(("Cz", "X1"), (NAN, NAN), 100.0, 200))
    with pytest.raises(
        CheckpointError, match=r"1 of 2 channels have no row by name and no place .*\(X1\).*rows: initial"
    ):
        interpolated_rows(torch.eye(1), Electrodes.of(cap("Cz")), ours, Path("x"))


def test_names_agree_whatever_their_case_and_age() -> None:
    assert same_names(("FP1", "t3", "VREF", "P8", "E5"), ("Fp1", "T7", "Cz", "T6")) == [0, 1, 2, 3, None]


@pytest.mark.parametrize("whole", [True, False], ids=["depth", "convolutions"])
def test_convolutions_move_to_any_channels_without_a_rule(whole: bool) -> None:
    source = trained(net(), depth=1 if whole else 0)
    phase = phase_of(cap("Fp1", "Cz", "O2"), depth=0)
    report = move(source, phase, only=("feature_encoder",))
    assert report.notes == ("other channels: 129 there, 3 here; nothing that moves depends on them",)
    assert len(report.moved) == 7
    deep = phase_of(cap("Fp1", "Cz", "O2"))
    into = {"take": "encoder.feature_encoder", "into": "encoder.feature_encoder"}
    assert move(source, deep, **into).notes == report.notes
    note = "rows: initial has no use here: no table of channels moves"
    assert note in move(source, phase, only=("feature_encoder",), rows="initial").notes


def test_another_rate_is_refused_whatever_moves() -> None:
    source, phase = trained(net()), phase_of(cap("Fp1", "Cz", sfreq=128.0), depth=0)
    with pytest.raises(CheckpointError, match="trained at 100 Hz and this store has 128 Hz"):
        move(source, phase, only=("feature_encoder",))


def test_a_teacher_moves_by_the_same_rules() -> None:
    source = trained(cap("Fp1", "Cz", "O2"))
    weights = {name.replace("encoder.", "objective.teacher.", 1): value for name, value in source.weights.items()}
    source, phase = replace(source, weights=weights), phase_of(cap("O2", "Fp1"))
    move(source, phase, take="objective.teacher", rows="interpolated")
    assert torch.equal(table_of(phase), weights[f"objective.teacher.{TABLE}"][[2, 0]])


def test_a_predictor_moves_to_any_channels_and_a_head_does_not() -> None:
    signal, other = cap("Fp1", "Cz", "O2"), cap("O2", "Fp1")
    source, phase = trained(signal), phase_of(other)
    phase.objective.predictor = PostNormDecoder(64, 1, 8, 16)
    phase.objective.head = torch.nn.Linear(2, 1)
    weights = {f"objective.{name}": torch.rand_like(value) for name, value in phase.objective.state_dict().items()}
    source = replace(source, weights=source.weights | weights)
    report = move(source, phase, take="objective.predictor", into="objective.predictor")
    assert report.notes == ("other channels: 3 there, 2 here; nothing that moves depends on them",)
    with pytest.raises(CheckpointError, match="was trained on other channels: 3 there, 2 in this store"):
        move(source, phase, take="objective.head", into="objective.head")


def test_labram_between_phases_keeps_the_row_of_the_class_token() -> None:
    keys = {"depth": 1}
    source, phase = trained(cap("Fp1", "Cz", "O2"), LaBraM, **keys), phase_of(cap("O2", "Fp1"), LaBraM, **keys)
    start = phase.encoder.transformer.channel_embedding.detach().clone()
    table = source.weights["encoder.transformer.channel_embedding"]
    with pytest.raises(CheckpointError, match="was trained on other channels"):
        move(source, phase)
    move(source, phase, rows="initial")
    assert torch.equal(phase.encoder.transformer.channel_embedding, torch.cat([table[:1], start[1:]]))
    report = move(source, phase, rows="interpolated")
    assert torch.equal(phase.encoder.transformer.channel_embedding, table[[0, 3, 1]])
    assert report.notes == ("channel rows: 2 of 2 channels by name",)


def test_nearest_is_for_published_labram() -> None:
    with pytest.raises(CheckpointError, match=r"take rows: nearest out .* or write rows: interpolated or initial"):
        move(trained(net(8)), phase_of(net(8)), rows="nearest")


class Undeclared(SignalJEPA):
    channel_tables = None


def test_an_encoder_that_does_not_say_what_depends_on_channels_keeps_to_its_own() -> None:
    source = trained(net(8), Undeclared, **SMALL)
    phase = phase_of(cap("Fp1", "Cz"), Undeclared, **SMALL)
    with pytest.raises(CheckpointError, match=r"was trained on other channels: 8 there, 2 in this store"):
        move(source, phase, only=("feature_encoder",))
    with pytest.raises(CheckpointError, match=r"no meaning here; take rows: initial out of this entry of model.init"):
        transfer_weights(phase, Transfer(Path("a"), rows="initial"), source)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as braindecode's published one: rows of 62 channels, and names of none."""
    weights = trained(cap(*PUBLISHED_CHANNELS)).weights
    state = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
    torch.save(state, tmp_path / "published.pt")
    return tmp_path / "published.pt"


def load(phase: Phase, path: Path, **keys: Any) -> TransferReport:
    return move(replace(read_source(path), path=path), phase, **keys)


def test_published_rows_go_by_the_names_of_their_62_channels(published: Path) -> None:
    phase, theirs = phase_of(cap("O2", "Cz", "Fp1")), read_source(published).weights[f"encoder.{TABLE}"]
    report = load(phase, published)
    assert torch.equal(table_of(phase), theirs[[PUBLISHED_CHANNELS.index(name) for name in ("O2", "Cz", "Fp1")]])
    assert report.notes[:2] == (
        "channel rows: 62, taken as the channels of braindecode's published weights",
        "channel rows: 3 of 3 channels by name",
    )


def test_hbn_starts_from_published_rows_by_a_rule_only(published: Path) -> None:
    phase = phase_of(net())
    said = (
        r"128 of 129 channels of this store are not among the 62 of the file \(E1, .*rows: interpolated.*rows: initial"
    )
    with pytest.raises(CheckpointError, match=said):
        load(phase, published)
    start = table_of(phase)
    report = load(phase, published, rows="interpolated")
    assert "channel rows: 1 of 129 channels by name" in report.notes
    told = (
        "channel rows: 128 of 129 channels interpolated from the 4 nearest of 62; distance to the nearest: median 16."
    )
    assert any(note.startswith(told) for note in report.notes)
    assert not torch.equal(table_of(phase), start)
    fresh = phase_of(net())
    report = load(fresh, published, rows="initial")
    assert torch.equal(table_of(fresh), start)
    assert report.components["pos_encoder"] == {"moved": 0, "new": 1, "unused": 1}
    with pytest.raises(
        CheckpointError, match="rows: nearest is for published LaBraM; write rows: interpolated or init"
    ):
        load(fresh, published, rows="nearest")


def test_published_weights_without_a_table_start_with_a_new_one(published: Path, tmp_path: Path) -> None:
    state = {name: value for name, value in torch.load(published).items() if name != TABLE}
    torch.save(state, tmp_path / "without-chans.pt")
    phase = phase_of(net())
    with pytest.raises(CheckpointError, match="has no pos_encoder 1 tensors"):
        load(phase, tmp_path / "without-chans.pt")
    assert load(phase, tmp_path / "without-chans.pt", rows="initial").components["pos_encoder"]["new"] == 1


def test_the_part_with_the_table_alone_goes_by_the_same_rules(published: Path) -> None:
    phase, theirs = phase_of(cap("O2", "Cz")), read_source(published).weights[f"encoder.{TABLE}"]
    load(phase, published, take="encoder.pos_encoder", into="encoder.pos_encoder")
    assert torch.equal(table_of(phase), theirs[[PUBLISHED_CHANNELS.index("O2"), PUBLISHED_CHANNELS.index("Cz")]])


def test_rows_of_channels_that_nobody_names_go_in_order_or_not_at_all(published: Path, tmp_path: Path) -> None:
    state = torch.load(published)
    torch.save(state | {TABLE: state[TABLE][:8]}, tmp_path / "a.pt")
    phase = phase_of(net(8))
    assert (
        "channel rows: 8, taken in the order of this store's channels: the file does not name them"
        in load(phase, tmp_path / "a.pt").notes
    )
    with pytest.raises(CheckpointError, match=r"rows for 8 channels and does not name them.* or leave rows out"):
        load(phase, tmp_path / "a.pt", rows="interpolated")
    with pytest.raises(CheckpointError, match=r"rows for 8 channels and does not name them, and this store has 9"):
        load(phase_of(net(9)), tmp_path / "a.pt")


def test_what_cerebro_exported_as_safetensors_names_its_channels_and_its_rate(tmp_path: Path) -> None:
    signal, keys, path = cap("Fp1", "Cz", "O2"), {"depth": 1, "feedforward": 2048}, tmp_path / "a.safetensors"
    source = trained(signal, **keys)
    write_exported(export_weights(source, "braindecode"), path)
    phase = phase_of(cap("O2", "Fp1"), **keys)
    assert "channel rows: 2 of 2 channels by name" in load(phase, path).notes
    assert torch.equal(table_of(phase), source.weights[f"encoder.{TABLE}"][[2, 0]])
    other = phase_of(cap("O2", "FT7"), **keys)
    with pytest.raises(CheckpointError, match=r"1 of 2 channels of this store are not among the 3 of the file \(FT7\)"):
        load(other, path)
    load(other, path, rows="interpolated")
    with pytest.raises(CheckpointError, match="trained at 100 Hz and this store has 128 Hz"):
        load(phase_of(cap("O2", "Fp1", sfreq=128.0), **keys), path)


def test_the_published_channels_all_have_a_place_in_the_10_05_system() -> None:
    assert len(set(PUBLISHED_CHANNELS)) == 62
    assert published_electrodes().is_placed.all()


def test_the_published_channels_are_braindecodes() -> None:
    try:
        from braindecode.models import signal_jepa
    except (ImportError, OSError) as error:
        pytest.skip(f"braindecode cannot be imported here ({type(error).__name__})")
    assert tuple(place["ch_name"] for place in signal_jepa._PRETRAIN_CHS_INFO) == PUBLISHED_CHANNELS


def test_a_table_of_a_target_montage_is_no_table_of_the_recordings_channels() -> None:
    """An adapted encoder's stamp names the channels of the recordings, and its table has those of the target."""
    source = trained(cap("Fp1", "Cz", "O2"))
    inner = {name.replace("encoder.", "encoder.encoder.", 1): value for name, value in source.weights.items()}
    source = replace(source, weights=inner | {"encoder.adapter.queries": torch.ones(1)})
    with pytest.raises(CheckpointError, match="was trained on other channels: 3 there, 2 in this store"):
        move(source, phase_of(cap("O2", "Fp1")), take="encoder.encoder", rows="interpolated")
    with pytest.raises(CheckpointError, match="does not say of which channels the 3 rows of"):
        move(source, phase_of(cap("Fp1", "Cz", "O2")), take="encoder.encoder", rows="interpolated")
    move(source, phase_of(cap("Fp1", "Cz", "O2")), take="encoder.encoder")

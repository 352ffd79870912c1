"""Axes of joint diagonalisation: those that were planted, those of two matrices, finite ones whatever comes in."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.nn.joint_diagonal import joint_diagonal_axes


def planted(seed: int, n: int, width: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of independent sources of changing power behind one mixing, and the axes that undo it (columns)."""
    draw = np.random.default_rng(seed)
    mixing = draw.normal(size=(width, width)) + 2 * np.eye(width)
    power = draw.lognormal(0, spread, size=(n, width))
    axes = np.linalg.inv(mixing).T
    return mixing @ (power[:, :, None] * mixing.T), axes / np.linalg.norm(axes, axis=0)


def matched(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each expected axis the cosine with the found one that is nearest."""
    return np.abs(expected.T @ found).max(axis=1)


def criterion(axes: np.ndarray, covariances: np.ndarray) -> float:
    """Pham's: mean of log det diag - log det."""
    turned = axes.T @ covariances @ axes
    diagonal = np.log(np.diagonal(turned, axis1=1, axis2=2)).sum(axis=1)
    return float((diagonal - np.linalg.slogdet(turned)[1]).mean())


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(3, 40),
    width=st.integers(1, 7),
    scale=st.sampled_from([1e-6, 1, 1e6]),
)
def test_sources_of_changing_power_are_found_whatever_mixed_them(seed: int, n: int, width: int, scale: float) -> None:
    covariances, expected = planted(seed, n, width)
    found = joint_diagonal_axes(scale * torch.from_numpy(covariances)).numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-9)
    assert matched(found, expected).min() > 1 - 1e-4
    assert criterion(found, covariances) < 1e-5


def test_axes_of_two_matrices_are_their_generalised_eigenvectors() -> None:
    draw = np.random.default_rng(3)
    first, second = (each @ each.T for each in draw.normal(size=(2, 5, 8)))
    _, vectors = scipy.linalg.eigh(first, second)
    found = joint_diagonal_axes(torch.from_numpy(np.stack([first, second]))).numpy()
    assert matched(found, vectors / np.linalg.norm(vectors, axis=0)).min() > 1 - 1e-6


def test_axes_of_one_matrix_make_it_diagonal() -> None:
    covariances, _ = planted(0, 1, 4)
    found = joint_diagonal_axes(torch.from_numpy(covariances)).numpy()
    assert criterion(found, covariances) < 1e-9


def test_a_pair_whose_powers_never_change_apart_is_finite_and_does_not_harm_the_others() -> None:
    draw = np.random.default_rng(1)
    mixing = np.linalg.qr(draw.normal(size=(4, 4)))[0]
    power = draw.lognormal(0, 1, size=(30, 4))
    power[:, 1] = power[:, 0]  # no two axes of their plane are better than any others
    found = joint_diagonal_axes(torch.from_numpy(mixing @ (power[:, :, None] * mixing.T))).numpy()
    assert np.isfinite(found).all()
    assert matched(found, mixing[:, 2:]).min() > 1 - 1e-4


@pytest.mark.parametrize("rank", [0, 2])
def test_matrices_without_full_rank_give_finite_axes(rank: int) -> None:
    parts = np.random.default_rng(2).normal(size=(6, 4, rank))
    found = joint_diagonal_axes(torch.from_numpy(parts @ parts.transpose(0, 2, 1)))
    assert bool(found.isfinite().all())


def test_noise_is_made_more_diagonal_than_by_principal_components_and_never_twice_differently() -> None:
    covariances, _ = planted(4, 50, 6, spread=0.4)
    draws = np.random.default_rng(5).normal(size=(50, 6, 40))
    noisy = np.linalg.cholesky(covariances) @ draws
    noisy = noisy @ noisy.transpose(0, 2, 1) / 40
    found = joint_diagonal_axes(torch.from_numpy(noisy)).numpy()
    principal = np.linalg.eigh(noisy.mean(axis=0))[1]
    assert criterion(found, noisy) < 0.7 * criterion(principal, noisy)
    assert np.array_equal(found, joint_diagonal_axes(torch.from_numpy(noisy)).numpy())
    share = np.einsum("ka,mkl,la->ma", found, noisy / np.trace(noisy, axis1=1, axis2=2)[:, None, None], found)
    assert (np.diff(share.mean(axis=0)) <= 0).all()

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cerebro.errors import ConfigError
from cerebro.nn.quantizer import CosineCodebook

KEY = torch.tensor([7])


def clustered_tokens(n_clusters: int, per_cluster: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(n_clusters, 8, generator=draw), dim=-1)
    noise = 0.05 * torch.randn(n_clusters * per_cluster, 8, generator=draw)
    return 3 * (centres.repeat_interleave(per_cluster, 0) + noise)  # (M, 8)


def test_codes_are_nearest_by_angle_and_blind_to_length() -> None:
    codebook = CosineCodebook(16, 8)
    tokens = torch.randn(50, 8)
    distance = torch.cdist(F.normalize(tokens, dim=-1), codebook.weight)
    assert torch.equal(codebook.codes(tokens), distance.argmin(dim=-1))
    assert torch.equal(codebook.codes(5 * tokens), codebook.codes(tokens))


def test_kmeans_finds_separated_clusters() -> None:
    tokens = clustered_tokens(4, 50)
    codebook = CosineCodebook(16, 8)
    codebook.start(tokens, KEY)
    unit = F.normalize(tokens, dim=-1)
    assert float((unit @ codebook.weight.T).amax(dim=-1).min()) > 0.97
    torch.testing.assert_close(codebook.weight.norm(dim=-1), torch.ones(16))
    torch.testing.assert_close(codebook.use.sum(), torch.tensor(1.0))


def test_kmeans_refuses_fewer_tokens_than_codes() -> None:
    with pytest.raises(ConfigError, match="at most 10"):
        CosineCodebook(16, 8).start(torch.randn(10, 8), KEY)


def test_the_moving_average_equals_the_published_one_hot_form() -> None:
    codebook = CosineCodebook(16, 8, revive_below=0.0)
    tokens, old = torch.randn(200, 8), codebook.weight.clone()
    unit = F.normalize(tokens, dim=-1)
    one_hot = F.one_hot((unit @ old.T).argmax(-1), 16).float()
    bins = one_hot.sum(0)
    mean = F.normalize((unit.T @ one_hot / bins.clamp(min=1)).T, dim=-1)
    mean = torch.where(bins[:, None] == 0, old, mean)
    expected = F.normalize(old * 0.99 + mean * 0.01, dim=-1)
    codebook(tokens, KEY)
    torch.testing.assert_close(codebook.weight, expected)


def test_nothing_changes_in_evaluation() -> None:
    codebook = CosineCodebook(16, 8).eval()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook(torch.randn(100, 8), KEY)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_dead_codes_come_back() -> None:
    tokens = clustered_tokens(12, 40).abs()
    start = torch.cat([tokens.mean(0, keepdim=True), -tokens[:15]])  # all codes but one point away from every token
    shares = []
    for revive_below in (0.0, 0.02):
        codebook = CosineCodebook(16, 8, decay=0.9, revive_below=revive_below)
        codebook.weight.copy_(F.normalize(start, dim=-1))
        for step in range(80):
            used = codebook(tokens, torch.tensor([step])).share_used
        shares.append(float(used))
    assert shares[0] == 1 / 16
    assert shares[1] > 0.75


def test_the_gradient_passes_straight_through_to_the_tokens() -> None:
    codebook = CosineCodebook(16, 8)
    tokens = F.normalize(torch.randn(20, 8), dim=-1).requires_grad_()
    quantized = codebook(tokens, KEY)
    wanted = torch.randn(20, 8)
    (quantized.vectors * wanted).sum().backward()
    along = (wanted * tokens.detach()).sum(-1, keepdim=True) * tokens.detach()  # the normalisation takes this part away
    torch.testing.assert_close(tokens.grad, wanted - along, rtol=1e-4, atol=1e-5)


def test_perplexity_counts_the_codes_in_use() -> None:
    codebook = CosineCodebook(16, 8).eval()
    even = codebook(codebook.weight.repeat(3, 1), KEY)
    one = codebook(codebook.weight[:1].repeat(9, 1), KEY)
    assert float(even.perplexity) == pytest.approx(16, rel=1e-4)
    assert float(even.share_used) == 1
    assert float(one.perplexity) == pytest.approx(1, rel=1e-4)
    assert float(even.commitment) == pytest.approx(0, abs=1e-6)


def test_distances_stay_float32_under_bfloat16() -> None:
    codebook, tokens = CosineCodebook(64, 8).eval(), torch.randn(500, 8)
    exact = codebook.codes(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codebook.codes(tokens), exact)
        assert torch.equal(codebook(tokens, KEY).codes, exact)


def test_padded_tokens_leave_no_trace_in_the_codebook_and_need_no_count_of_them() -> None:
    tokens = torch.randn(40, 8)
    place = torch.randperm(100)[:40].sort().values
    among = torch.full((100, 8), 37.0).index_copy(0, place, tokens)
    valid = torch.zeros(100, dtype=torch.bool).index_fill(0, place, True)
    alone, padded = CosineCodebook(64, 8, revive_below=0.5), CosineCodebook(64, 8, revive_below=0.5)
    padded.load_state_dict(alone.state_dict())
    for step in range(10):  # enough for codes to die and to be put onto tokens
        key = torch.tensor([step])
        found, expected = padded(among, key, valid), alone(tokens, key)
        torch.testing.assert_close(found.commitment, expected.commitment)
        torch.testing.assert_close(found.perplexity, expected.perplexity)
        assert torch.equal(found.codes[valid], expected.codes)
    torch.testing.assert_close(padded.weight, alone.weight)
    torch.testing.assert_close(padded.use, alone.use)


def test_a_batch_of_nothing_but_padding_leaves_the_codes_where_they_are() -> None:
    codebook = CosineCodebook(16, 8, revive_below=0.5)
    before = codebook.weight.clone()
    for step in range(10):
        quantized = codebook(torch.randn(20, 8), torch.tensor([step]), torch.zeros(20, dtype=torch.bool))
    torch.testing.assert_close(codebook.weight, before)
    assert float(quantized.commitment) == 0

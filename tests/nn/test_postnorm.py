"""Post-norm layers against torch.nn.Transformer on the same weights."""

import pytest
import torch
from torch import Tensor, nn

from cerebro.nn.postnorm import PostNormDecoder, PostNormEncoder


def reference(dropout: float = 0.0) -> nn.Transformer:
    torch.manual_seed(0)
    model = nn.Transformer(16, 2, 3, 2, dim_feedforward=48, dropout=dropout, batch_first=True)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def test_state_dicts_have_torchs_names_and_shapes() -> None:
    theirs = reference()
    for ours, part in (
        (PostNormEncoder(16, 3, 2, 48), theirs.encoder),
        (PostNormDecoder(16, 2, 2, 48), theirs.decoder),
    ):
        shapes = {name: value.shape for name, value in ours.state_dict().items()}
        assert shapes == {name: value.shape for name, value in part.state_dict().items()}


@pytest.mark.parametrize("n_tokens", [7, 130])  # below and above the length from which narrow heads have their own way
@pytest.mark.parametrize("masked", [False, True])
def test_tokens_and_gradients_are_torchs(n_tokens: int, masked: bool) -> None:
    theirs = reference()
    encoder, decoder = PostNormEncoder(16, 3, 2, 48), PostNormDecoder(16, 2, 2, 48)
    encoder.load_state_dict(theirs.encoder.state_dict())
    decoder.load_state_dict(theirs.decoder.state_dict())
    x, y = torch.randn(2, n_tokens, 16), torch.randn(2, 5, 16)
    valid = torch.arange(n_tokens).expand(2, -1) < torch.tensor([[n_tokens], [4]]) if masked else None
    hidden = None if valid is None else ~valid
    memory = encoder(x, valid)
    found = decoder(y, memory, None, valid)
    their_memory = theirs.encoder(x, src_key_padding_mask=hidden)
    wanted = theirs.decoder(y, their_memory, memory_key_padding_mask=hidden)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    (found * y).sum().backward()
    (wanted * y).sum().backward()
    for ours, part in ((encoder, theirs.encoder), (decoder, theirs.decoder)):
        grads = {name: parameter.grad for name, parameter in part.named_parameters()}
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-4)


def test_dropout_everywhere_draws_as_torch_does() -> None:
    theirs, ours = reference(0.1).encoder, PostNormEncoder(16, 3, 2, 48, 0.1, "everywhere")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 7, 16)  # one window: torch turns batch and tokens over, and draws in that order
    torch.manual_seed(1)
    wanted = theirs(x)
    torch.manual_seed(1)
    torch.testing.assert_close(ours(x), wanted, rtol=1e-4, atol=1e-5)


def test_dropout_on_residuals_leaves_evaluation_alone_and_changes_training() -> None:
    plain, dropped = PostNormEncoder(16, 1, 2, 48), PostNormEncoder(16, 1, 2, 48, 0.5)
    dropped.load_state_dict(plain.state_dict())
    x = torch.randn(2, 7, 16)
    assert torch.equal(dropped.eval()(x), plain(x))
    assert not torch.allclose(dropped.train()(x), plain(x))


def test_some_outputs_and_the_last_layers_are_those_of_the_whole() -> None:
    encoder = PostNormEncoder(16, 3, 2, 48)
    x, out = torch.randn(2, 7, 16), torch.tensor([[6, 0], [1, 1]])
    full = encoder(x)
    torch.testing.assert_close(encoder(x, None, out), torch.stack([full[0, out[0]], full[1, out[1]]]))
    layers: list[Tensor] = encoder.last_layers(x, 2)
    assert len(layers) == 2
    torch.testing.assert_close(encoder.norm(layers[-1]), full)

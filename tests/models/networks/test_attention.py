import torch
from torch.testing import assert_close

from animaray.models.networks.attention import attend


def test_one_context_token_is_what_every_query_gets():
    value = torch.randn(2, 1, 8)
    output = attend(torch.randn(2, 5, 8), torch.randn(2, 1, 8), value, 2)
    assert torch.equal(output, value.expand(-1, 5, -1))


def test_explicit_and_fused_forms_agree():
    # Equal values whatever the weights: attention returns the value itself.
    query, key = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    value = torch.ones(1, 4, 8)
    for kind in (torch.float32, torch.bfloat16):
        output = attend(query.to(kind), key.to(kind), value.to(kind), 2)
        assert_close(output.float(), torch.ones(1, 3, 8), atol=1e-2, rtol=0)
    query, key, value = (torch.randn(2, 7, 16) for _ in range(3))
    exact = attend(query, key, value, 2)
    rounded = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), 2).float()
    assert (exact - rounded).abs().max() < 0.05

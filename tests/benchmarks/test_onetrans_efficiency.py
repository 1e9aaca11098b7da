"""RQ3 of OneTrans: every change is measured against the unoptimised form, and what cannot be says so."""

import torch

from benchmarks.onetrans_efficiency import PAPER, table, variants

SMALL = ["model.onetrans.dim=8", "model.onetrans.layers=3", "model.onetrans.pyramid_multiple=2"]


def test_each_change_is_a_ratio_to_the_unoptimised_form_beside_the_papers():
    found = dict.fromkeys(("Unoptimised", *PAPER), (2.0, 4.0, 1.0, 8.0))
    found["+ Pyramid stack"] = (1.0, 5.0, 1.0, 2.0)
    del found["+ FlashAttention"]
    text = table(found)
    assert "| + Pyramid stack | -50.0 % (paper -28.7 %) | +25.0 % (paper -42.6 %) | +0.0 %" in text
    assert "| + FlashAttention | not run: needs CUDA" in text


def test_every_change_saves_memory():
    found = variants(6, 40, SMALL, repeats=1, device=torch.device("cpu"))
    assert set(found) == {"Unoptimised", *PAPER} - {"+ FlashAttention"}
    unoptimised, shared, pyramid = (
        found[name] for name in ("Unoptimised", "+ Cross-request KV caching", "+ Pyramid stack")
    )
    for place in (1, 3):  # bytes in training and in inference
        assert shared[place] < unoptimised[place]
    assert pyramid[1] < unoptimised[1]
    assert found["+ Mixed precision with recomputation"][1] < unoptimised[1]

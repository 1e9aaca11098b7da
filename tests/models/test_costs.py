"""The costs of a training by hand, and the peak they are measured against."""

import pytest
import torch

from models.batches import to_batch
from models.costs import costs_html, flops_per_sample, matmul_peak, speed
from tests.models.small import small_model, some_rows


def test_utilisation_counts_three_passes_against_the_peak_of_all_processes():
    seconds = {"data": 1.0, "forward": 2.0, "backward": 4.0, "optimiser": 1.0, "validation": 90.0}
    found = speed(seconds, samples=1000, forward_flops=2_000_000, peak=1e9, processes=2)
    assert found["samples_per_second"] == 125.0
    assert found["mfu"] == pytest.approx(3 * 2e6 * 1000 / (8.0 * 2e9))
    assert found["mfu_of_passes"] == pytest.approx(3 * 2e6 * 1000 / (6.0 * 2e9))
    page = costs_html({"seconds": seconds, "device": "cpu", "processes": 2, **found})
    assert "2.00 s (25%)" in page and "125 samples a second" in page and "90" not in page


def test_flops_of_an_mlp_are_those_of_its_matrices(samples):
    model = small_model("dlrm_mlp", "model.encoder=mean", "model.dlrm_mlp.hidden=[16, 8]")
    batch = to_batch(*some_rows(samples))
    more = small_model("dlrm_mlp", "model.encoder=mean", "model.dlrm_mlp.hidden=[16, 8, 4]")
    # the head's 8 × 2 becomes 4 × 2, and 8 × 4 comes on top
    assert flops_per_sample(more, batch) - flops_per_sample(model, batch) == 2 * (8 * 4 + 4 * 2 - 8 * 2)


def test_the_peak_is_a_rate_no_computer_lacks_and_no_core_reaches_tenfold():
    assert 1e8 < matmul_peak(torch.device("cpu"), repeats=2) < 1e14

"""The training benchmark's rows: FLOPs of three passes, and updates of the rows that were looked up."""

from benchmarks.listwise import rows_of, spec_of, vectors_of
from benchmarks.training import Setting, step_line, update_line
from models.batches import to_batch
from models.costs import flops_per_sample
from models.zoo import build_model
from uniscale.config import load_config


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_step_counts_three_forward_passes_of_its_candidates():
    model = build_model("dlrm_mlp", spec_of(8), load_config(overrides=["model.table_rows=4096"]).model, seed=0)
    batch = to_batch(rows_of(spec_of(8), 50, 8, point_wise=False), vectors_of())
    name, _, _, flops, *_ = cells(step_line("dlrm_mlp", Setting(50, 8, repeats=1)))
    assert (name, flops) == ("dlrm_mlp", f"{3 * 50 * flops_per_sample(model, batch) / 1e6:,.0f}")


def test_an_update_touches_no_more_rows_than_the_table_or_the_look_ups_have():
    assert cells(update_line(50, 1000, 4, 1))[:2] == ["50", "49"]  # the padding row is never looked up
    assert int(cells(update_line(10_000, 100, 4, 1))[1]) <= 100

"""On CUDA the served model computes in float16 and keeps the scores and the order of the CPU."""

import numpy as np
import pytest


@pytest.mark.gpu
def test_float16_on_cuda_keeps_scores_and_order(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from models.batches import to_batch
    from models.checkpoint import save_model
    from models.rows import ItemVectors, rows_from_arrow
    from models.zoo import build_model
    from serving.loader import load_checked
    from serving.routing import Target
    from tests.sample_folder import SPEC, write_samples
    from uniscale.config import load_config

    samples = write_samples(tmp_path / "samples", days=4)
    table = pa.concat_tables(
        [pq.ParquetFile(path).read() for path in samples.glob("rows/day=*/domain=search/*.parquet")]
    )
    model = build_model("hhsft", SPEC, load_config(overrides=["model.table_rows=512"]).model, seed=1)
    model.fit(rows_from_arrow(table, SPEC))
    save_model(model, tmp_path / "model", seed=1)
    batch = to_batch(rows_from_arrow(table, SPEC), ItemVectors.load(samples, SPEC))
    on = {
        name: load_checked(Target(version="1", folder="model"), tmp_path, SPEC, torch.device(name), 2e-3)
        for name in ("cpu", "cuda")
    }
    on["cuda"].precision = torch.float16
    cpu, cuda = (on[name].score(batch)[:, 0].numpy() for name in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda, cpu, atol=5e-3)
    assert np.corrcoef(np.argsort(np.argsort(cpu)), np.argsort(np.argsort(cuda)))[0, 1] > 0.999

"""Trains DCNv2 or AutoInt with another package, in that package's environment; `benchmarks.peers` starts it.

`PEER_PYTHON benchmarks/peer_trainers.py fuxictr|torch_rechub dcnv2|autoint ROWS.npz SIZES OPTIONS`, the last two in
JSON, prints one line of JSON. It imports nothing of this project. fuxictr's wheel holds layers and the trainer but
neither model, so they are composed of its layers here; torch-rechub has both.

Data are read by each package's own data set of arrays, in one process. Optimisers are its defaults: Adam over
everything, so that a step updates every row of every table.
"""

import importlib
import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn


def cpu_seconds() -> float:
    """CPU seconds of this process and of those it has started and waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def fuxictr(name: str, path: str, sizes: dict[str, int], options: dict[str, Any]) -> tuple[nn.Module, float]:
    """One epoch of fuxictr's `BaseModel.train_epoch` over its `NpzDataLoader`: the model and the CPU seconds."""
    features = importlib.import_module("fuxictr.features")
    layers = importlib.import_module("fuxictr.pytorch.layers")
    base = importlib.import_module("fuxictr.pytorch.models").BaseModel
    loader = importlib.import_module("fuxictr.pytorch.dataloaders.npz_dataloader").NpzDataLoader
    feature_map = features.FeatureMap("peers", ".")
    feature_map.labels = ["click"]
    for field, rows in sizes.items():
        feature_map.features[field] = {"type": "categorical", "source": "", "vocab_size": rows, "padding_idx": 0}
    feature_map.num_fields, feature_map.total_features = len(sizes), sum(sizes.values())
    feature_map.set_column_index()
    dim, width = options["dim"], options["dim"] * len(sizes)

    class Interacting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(4))
            self.attention = layers.ScaledDotProductAttention()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (part(x).unflatten(-1, (options["heads"], -1)).transpose(1, 2) for part in self.maps[:3])
            found = self.attention(q, k, v)
            attended = (found[0] if isinstance(found, tuple) else found).transpose(1, 2).flatten(2)
            return torch.relu(attended + self.maps[3](x))

    class Model(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(feature_map, verbose=0, model_root=".", metrics=["AUC"])
            self.embedding = layers.FeatureEmbedding(feature_map, dim)
            if name == "dcnv2":
                self.cross = layers.CrossNetV2(width, options["layers"])
                self.deep = layers.MLP_Block(width, hidden_units=options["hidden"])
                self.out = nn.Linear(width + options["hidden"][-1], 1)
            else:
                self.cross = nn.Sequential(*(Interacting() for _ in range(options["layers"])))
                self.out = nn.Linear(width, 1)
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            if name == "dcnv2":
                x = self.embedding(self.get_inputs(inputs), flatten_emb=True)
                x = torch.cat([self.cross(x), self.deep(x)], dim=-1)
            else:
                x = self.cross(self.embedding(self.get_inputs(inputs))).flatten(1)
            return {"y_pred": self.output_activation(self.out(x))}

    model = Model()
    start = cpu_seconds()
    batches = loader(feature_map, path, batch_size=options["batch"], shuffle=True, num_workers=0)
    model._max_gradient_norm, model._total_steps, model._eval_steps = 10.0, 0, 1 << 60
    model._stop_training = False
    model.train_epoch(batches)
    return model, cpu_seconds() - start


def torch_rechub(name: str, path: str, sizes: dict[str, int], options: dict[str, Any]) -> tuple[nn.Module, float]:
    """One epoch of torch-rechub's `CTRTrainer` over its `TorchDataset`: the model and the CPU seconds."""
    basic = importlib.import_module("torch_rechub.basic.features")
    ranking = importlib.import_module("torch_rechub.models.ranking")
    trainers = importlib.import_module("torch_rechub.trainers")
    data = importlib.import_module("torch_rechub.utils.data")
    fields = [basic.SparseFeature(field, rows, options["dim"]) for field, rows in sizes.items()]
    if name == "dcnv2":
        deep = {"dims": options["hidden"], "activation": "relu", "dropout": 0.0}
        model = ranking.DCNv2(fields, options["layers"], deep, use_low_rank_mixture=False)
    else:
        model = ranking.AutoInt(fields, [], num_layers=options["layers"], num_heads=options["heads"])
    trainer = trainers.CTRTrainer(model)
    start = cpu_seconds()
    arrays = np.load(path)
    rows = data.TorchDataset({field: arrays[field] for field in sizes}, arrays["click"])
    batches = torch.utils.data.DataLoader(rows, batch_size=options["batch"], shuffle=True, num_workers=0)
    trainer.train_one_epoch(batches)
    return model, cpu_seconds() - start


def main() -> None:
    """Train and print what it took."""
    package, name, path, sizes, options = *sys.argv[1:4], json.loads(sys.argv[4]), json.loads(sys.argv[5])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wall = time.perf_counter()
    model, seconds = {"fuxictr": fuxictr, "torch_rechub": torch_rechub}[package](name, path, sizes, options)
    samples = len(np.load(path)["click"])
    embedded = sum(p.numel() for p in model.parameters() if p.ndim == 2 and p.shape[0] in sizes.values())
    dense = sum(p.numel() for p in model.parameters()) - embedded
    wall = time.perf_counter() - wall
    print(json.dumps({"samples": samples, "seconds": seconds, "dense": dense, "embedded": embedded, "wall": wall}))


if __name__ == "__main__":
    main()

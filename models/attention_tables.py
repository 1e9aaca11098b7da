"""What attention looks at: effective ranks of EST's blocks (est.txt, Figure 3), MDL's tokens (mdl.txt, Figures 3, 4).

Each is one system, trained as in a comparison, and an average over candidates of the target domain's exposed test rows:

- effective rank of a block of A = softmax(Q Kᵀ / √d): ‖A‖_F² / ‖A‖_2² / max(rows, columns), mean over heads;
- share of a scenario or task token's attention that each feature token gets, mean over heads, a scenario's over the
  instances that belong to it.

Shapes: N candidates, l tokens of B (l_n of them exist for candidate n), n tokens of N, H heads, T tasks, S scenarios.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.batches import Batch, to_batch
from models.checkpoint import load_model
from models.compare import Data, System, train_system
from models.data import read_rows, row_files
from models.est_layers import FullAttention
from models.gate_page import STYLE, table
from models.mdl import MDL, DomainAwareAttention, MDLBlock
from models.paper_tables.est import FULL
from models.ranking import RankingModel
from models.rows import ItemVectors
from models.shared_attention import split_heads
from uniscale.config import Config, override
from uniscale.errors import ConfigError

REQUESTS = 100  # of the test days, the first ones; they make one batch

Means = dict[str, dict[str, float]]  # row: column: mean


@dataclass(frozen=True)
class Figure:
    """A figure of attention: the system that is trained, what is averaged, and what the paper's shows."""

    system: System
    measure: Callable[[RankingModel, Batch], Means]
    reading: str


def attention_table(
    config: Config, data: Mapping[int, Data], name: str, out: Path, requests: int = REQUESTS
) -> dict[str, Any]:
    """Train a figure's system on every seed's data and average its attention over test candidates.

    Args:
        config: the seed is replaced by each seed of `data`.
        data: samples by seed.
        name: of FIGURES.
        out: folder of models; what is finished is not done again.
        requests: test requests that are looked at.

    Returns:
        JSON-able: `rows`, a row's `label` and mean by column, the `seeds`, `system`, `requests` and `reading`.

    Raises:
        ConfigError: no seed.
        ModelError: the data has nothing the model attends to.
    """
    if not data:
        raise ConfigError("an attention figure needs at least one seed of data, got none")
    figure, found = FIGURES[name], defaultdict[str, dict[str, list[float]]](lambda: defaultdict(list))
    for seed, of_seed in data.items():
        chosen = override(config, [f"seed={seed}", *figure.system.settings])
        model = load_model(train_system(chosen, of_seed.samples, figure.system, out))
        rows = read_rows(row_files(of_seed.samples, "test", "search", model.spec), model.spec, "search")
        rows = rows.take(np.arange(min(requests, rows.requests)))
        batch = to_batch(rows, ItemVectors.load(of_seed.samples, model.spec))
        for label, of_label in figure.measure(model, batch).items():
            for column, value in of_label.items():
                found[label][column].append(value)
    return {
        "system": figure.system.label,
        "seeds": list(data),
        "requests": requests,
        "reading": figure.reading,
        "rows": [
            {"label": label, **{column: sum(values) / len(values) for column, values in of_label.items()}}
            for label, of_label in found.items()
        ],
    }


def effective_rank(a: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """‖A‖_F² / ‖A‖_2² / max(m, n) of matrices (…, m', n') whose true sizes are m and n (…) and whose rest is zero."""
    spectral = torch.linalg.matrix_norm(a, ord=2)
    ratio = a.square().sum((-2, -1)) / spectral.square().clamp(min=torch.finfo(a.dtype).tiny)
    return ratio / torch.maximum(rows, columns)


@torch.no_grad()
def block_ranks(model: RankingModel, batch: Batch) -> Means:
    """Mean effective rank of each block <query, key> in each layer of EST's full attention, and over the layers."""
    found: Means = {}
    for number, (layer, (x, behaviours)) in enumerate(watched(model, batch, FullAttention)):
        a = attention_of(cast(FullAttention, layer), x, behaviours)  # (N, H, l + n, l + n)
        length, known = behaviours.shape[1], behaviours.sum(1)
        features = torch.full_like(known, x.shape[1] - length)
        sides = {"B": (slice(0, length), known), "N": (slice(length, None), features)}
        there = known > 0
        for query, (rows, m) in sides.items():
            for key, (columns, n) in sides.items():
                block = a[there][..., rows, columns]
                ranks = effective_rank(block, m[there].unsqueeze(1), n[there].unsqueeze(1))
                found.setdefault(f"layer {number + 1}", {})[f"<{query}, {key}>"] = float(ranks.mean())
    columns_of = next(iter(found.values()))
    found["all layers"] = {c: sum(of[c] for of in found.values()) / len(found) for c in columns_of}
    return found


def attention_of(layer: FullAttention, x: Tensor, behaviours: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) of what exists, (N, H, l + n, l + n); rows and columns of padding are zero."""
    exists = nn.functional.pad(behaviours, (0, x.shape[1] - behaviours.shape[1]), value=True)
    k, _ = layer.key_value(x).chunk(2, dim=-1)
    q, k = split_heads(layer.query(x), layer.heads), split_heads(k, layer.heads)
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~exists[:, None, None], -torch.inf)
    return torch.softmax(scores, dim=-1) * exists[:, None, :, None]


def task_attention(model: RankingModel, batch: Batch) -> Means:
    """Share of attention that each of MDL's task tokens gives each feature token, in each layer."""
    everyone = torch.ones(batch.candidates, len(model.spec.tasks), dtype=torch.bool)
    layers = [block.of_tasks for block in cast(list[MDLBlock], list(cast(MDL, model.network).blocks))]
    return token_attention(model, batch, layers, model.spec.tasks, everyone)


def scenario_attention(model: RankingModel, batch: Batch) -> Means:
    """The same of its scenario tokens, each over the instances that belong to it."""
    network = cast(MDL, model.network)
    member = batch.expand(network.selection(batch.scenarios)) > 0  # (N, S + 1)
    layers = [block.of_scenarios for block in cast(list[MDLBlock], list(network.blocks))]
    return token_attention(model, batch, layers, (*model.spec.scenarios, "global"), member)


@torch.no_grad()
def token_attention(
    model: RankingModel, batch: Batch, layers: Sequence[nn.Module | None], labels: Sequence[str], member: Tensor
) -> Means:
    """Mean attention of some layers' tokens to the feature tokens, over the instances `member` (N, tokens) names."""
    tokens = cast(MDL, model.network).feature_tokens
    names, found = (*tokens.request, *tokens.candidate), Means()
    for layer, (t, features) in watched(model, batch, DomainAwareAttention):
        if layer not in layers:
            continue
        assert isinstance(layer, DomainAwareAttention)
        k, _ = layer.key_value(features).chunk(2, dim=-1)
        q, k = split_heads(layer.query(t), layer.heads), split_heads(k, layer.heads)
        share = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1).mean(1)  # (N, tokens, n)
        for place, label in enumerate(labels):
            if member[:, place].any():
                mean = share[member[:, place], place].mean(0).tolist()
                row = f"layer {layers.index(layer) + 1}, {label}"
                found[row] = dict(zip(names, mean, strict=True))
    return found


def watched(model: RankingModel, batch: Batch, kind: type[nn.Module]) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """The modules of a kind that a batch passes, in order, with what each was given."""
    seen: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, given: seen.append((m, given)))
        for module in model.network.modules()
        if isinstance(module, kind)
    ]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def markdown(found: Mapping[str, Any]) -> str:
    """The averages as a table."""
    columns = list(found["rows"][0])[1:]
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    lines += [f"| {row['label']} | {' | '.join(f'{row[c]:.3f}' for c in columns)} |" for row in found["rows"]]
    return "\n".join([*lines, "", _told(found), ""])


def page(found: Mapping[str, Any], title: str) -> str:
    """The averages as HTML, each cell shaded by its share of the largest value."""
    columns = list(found["rows"][0])[1:]
    most = max(row[column] for row in found["rows"] for column in columns)
    rows = (
        f"<tr><td>{escape(row['label'])}</td>"
        + "".join(
            f'<td class="n" style="background:rgb(31 111 235 / {row[column] / most:.2f})">{row[column]:.3f}</td>'
            for column in columns
        )
        + "</tr>"
        for row in found["rows"]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1><p>{escape(_told(found))}</p>"
        f"{table(['', *(f'#{column}' for column in columns)], rows)}</body></html>\n"
    )


def _told(found: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, found["seeds"]))
    return (
        f"{found['system']}, seeds {seeds}, candidates of the first {found['requests']} test requests. "
        f"{found['reading']}"
    )


FIGURES: dict[str, Figure] = {
    "est-figure-3": Figure(
        System("EST with full attention", "est", "search", FULL),
        block_ranks,
        "The paper's text gives no values: <N, B> stands far above the other three blocks.",
    ),
    "mdl-figure-3": Figure(
        System("MDL", "mdl", "entire"),
        task_attention,
        "The paper's text gives no values: tasks look at different features, and each layer at others.",
    ),
    "mdl-figure-4": Figure(
        System("MDL", "mdl", "entire"),
        scenario_attention,
        "The paper's text gives no values: scenarios look at different features.",
    ),
}

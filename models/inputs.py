"""From a batch to semantic blocks of embeddings: user, query, context, item, behaviour, cross (UniScale 3.4.1).

Cross features (query against title, candidate against history) are computed here from the raw inputs, in training
and in serving alike, so the two cannot drift apart. Whatever depends on the request alone stays (R, …).

Shapes: R requests, N candidates, C and L the longest candidate list and history, d embedding width.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.embeddings import EmbeddingTables, rows_of
from models.frozen_content import Content, simtier
from models.rows import Rows
from uniscale.errors import DataError
from uniscale.samples import Feature, Level, SampleSpec

LEVELS: tuple[Level, ...] = ("request", "candidate", "behaviour")


@dataclass(frozen=True)
class Widths:
    """Width of every block an `Inputs` makes; blocks without any feature are absent."""

    request: dict[str, int]
    candidate: dict[str, int]
    behaviour: int  # 0 when there is no history
    features: dict[str, dict[str, int]] = field(default_factory=dict)  # block -> width of each feature, in order
    extra: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> request's and candidates' width

    def features_of(self, block: str) -> tuple[int, ...]:
        """Widths of a block's parts: each id and frozen vector on its own, numbers that stand together as one."""
        widths = self.features.get(block, {block: (self.request | self.candidate)[block]}).values()
        runs = [(number, list(run)) for number, run in groupby(widths, key=lambda width: width == 1)]
        return tuple(part for number, run in runs for part in ([len(run)] if number else run))

    def flat(self) -> tuple[int, int]:
        """Widths of all request-level blocks together and of all candidate-level ones."""
        return sum(self.request.values()), sum(self.candidate.values())

    @property
    def event(self) -> int:
        """Width of `Blocks.events`."""
        return max(self.behaviour - 1, 0)


@dataclass(frozen=True)
class Blocks:
    """Block embeddings of a batch."""

    batch: Batch
    request: dict[str, Tensor]  # user, query, context: (R, w)
    candidate: dict[str, Tensor]  # item, cross: (N, w)
    behaviours: Tensor  # (R, L, w); empty positions are zero
    extra: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # (R, w_r) and (N, w_c), see `Inputs`

    def flat(self) -> tuple[Tensor, Tensor]:
        """All request-level blocks side by side, (R, ·), and all candidate-level ones, (N, ·)."""
        empty = self.behaviours.new_zeros(self.batch.requests, 0)
        return torch.cat([empty, *self.request.values()], dim=-1), torch.cat(list(self.candidate.values()), dim=-1)

    @property
    def events(self) -> Tensor:
        """Behaviours as they stay for ever, (R, L, w - 1): without the recency, which each request's time changes."""
        return self.behaviours[..., :-1]


class Columns(nn.Module):
    """Ids and numbers of one level, reordered so that each block's columns lie side by side.

    Numbers: counts pass log1p, all are standardised by stored means and deviations, a missing one becomes the mean.
    """

    offsets: Tensor
    sizes: Tensor
    id_order: Tensor
    number_order: Tensor
    is_count: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: SampleSpec, level: Level, tables: EmbeddingTables):
        super().__init__()
        ids, numbers = spec.select(level, ("id",)), spec.select(level, ("count", "number"))
        self.blocks = tuple(dict.fromkeys(f.block for f in (*ids, *numbers)))
        self.level = level
        id_order, self.ids_per_block = _grouped(ids, self.blocks)
        number_order, self.numbers_per_block = _grouped(numbers, self.blocks)
        ordered = [*(ids[i] for i in id_order), *(numbers[i] for i in number_order)]
        self.features = {
            block: {f.name: tables.dim if f.kind == "id" else 1 for f in ordered if f.block == block}
            for block in self.blocks
        }
        offsets, sizes = tables.columns(ids[i].table for i in id_order)
        self.register_buffer("id_order", torch.tensor(id_order, dtype=torch.int64), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("number_order", torch.tensor(number_order, dtype=torch.int64), persistent=False)
        self.numbers = [numbers[i].name for i in number_order]
        is_count = [numbers[i].kind == "count" for i in number_order]
        self.register_buffer("is_count", torch.tensor(is_count, dtype=torch.bool), persistent=False)
        self.register_buffer("mean", torch.zeros(len(numbers)))
        self.register_buffer("deviation", torch.ones(len(numbers)))

    def fit(self, numbers: np.ndarray) -> None:
        """Store mean and deviation of the columns of (rows, ·) raw numbers, missing ones left out.

        Raises:
            DataError: an infinite number, which would make its column NaN in every row.
        """
        values = self.transform(torch.from_numpy(numbers)).to(torch.float64)
        for column in range(values.shape[1]):
            if values[:, column].isinf().any():
                raise DataError(
                    f"feature {self.numbers[column]} holds infinite numbers in the training rows: leave what is not "
                    "known empty"
                )
            known = values[:, column][~values[:, column].isnan()]
            if len(known):
                self.mean[column] = known.mean()
                deviation = float(known.std(correction=0))
                self.deviation[column] = deviation if deviation > 1e-6 else 1.0

    def transform(self, numbers: Tensor) -> Tensor:
        """Reordered numbers with counts on the log scale; missing ones stay NaN."""
        numbers = numbers.index_select(-1, self.number_order)
        return torch.where(self.is_count, torch.log1p(numbers.clamp(min=0.0)), numbers)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the fused embedding weight, (…, F)."""
        return rows_of(ids.index_select(-1, self.id_order), self.offsets, self.sizes)

    def standardised(self, numbers: Tensor) -> Tensor:
        """(…, ·) with mean 0 and deviation 1; a missing number is 0."""
        values = (self.transform(numbers) - self.mean) / self.deviation
        return torch.where(values.isnan(), 0.0, values)

    def split(self, embedded: Tensor, numbers: Tensor) -> dict[str, list[Tensor]]:
        """Parts of each block from embedded ids (…, F·d) and raw numbers (…, ·)."""
        width = embedded.shape[-1] // max(sum(self.ids_per_block), 1)
        ids = embedded.split([count * width for count in self.ids_per_block], dim=-1)
        values = self.standardised(numbers).split(self.numbers_per_block, dim=-1)
        return {block: [ids[place], values[place]] for place, block in enumerate(self.blocks)}


class ExtraColumns(nn.Module):
    """Ids of one level looked up once more, in tables of their own for each name of `extra`."""

    columns: Tensor
    offsets: Tensor
    sizes: Tensor

    def __init__(self, spec: SampleSpec, level: Level, tables: EmbeddingTables, extra: Mapping[str, Collection[str]]):
        super().__init__()
        ids = spec.select(level, ("id",))
        found = [(name, i) for name, wanted in extra.items() for i, f in enumerate(ids) if f.name in wanted]
        self.widths = [tables.dim * sum(name == owner for owner, _ in found) for name in extra]
        offsets, sizes = tables.columns(f"{name}:{ids[i].table}" for name, i in found)
        self.register_buffer("columns", torch.tensor([i for _, i in found], dtype=torch.int64), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the fused embedding weight, (…, F)."""
        return rows_of(ids.index_select(-1, self.columns), self.offsets, self.sizes)


class Inputs(nn.Module):
    """Embeddings, standardised numbers, frozen vectors and cross features of a batch, block by block.

    Args:
        spec: what the samples offer.
        dim: d, width of every embedding.
        table_rows: rows of every id table.
        seed: of the tables' initial rows.
        extra: name -> id features of requests and candidates that get further embeddings, not those of their blocks
            (`Blocks.extra`); a feature the spec lacks is left out.
        simtier_tiers: intervals of a SimTier histogram among the cross features (est.txt 6.1.4); 0 for none.
    """

    def __init__(
        self,
        spec: SampleSpec,
        dim: int,
        table_rows: int,
        seed: int,
        extra: Mapping[str, Collection[str]] | None = None,
        simtier_tiers: int = 0,
    ):
        super().__init__()
        self.spec = spec
        ids = [f for f in spec.features if f.kind == "id"]
        names = {f.table for f in ids}
        names |= {f"{name}:{f.table}" for name, wanted in (extra or {}).items() for f in ids if f.name in wanted}
        self.tables = EmbeddingTables(dict.fromkeys(sorted(names), table_rows), dim, seed)
        self.extra = tuple(extra or ())
        self.extra_columns = nn.ModuleList(
            ExtraColumns(spec, level, self.tables, extra) for level in LEVELS[:2] if extra
        )
        self.columns = nn.ModuleDict({level: Columns(spec, level, self.tables) for level in LEVELS})
        self.matches = matched_columns(spec)
        self.prices = _prices(spec)
        self.has_history = bool(spec.select("behaviour"))
        self.simtier_tiers = simtier_tiers if self.has_history and spec.content_dim + spec.text_dim else 0
        self.widths = self._widths()

    def fit(self, rows: Rows) -> None:
        """Take means and deviations of the numbers from training rows."""
        for level in LEVELS:
            self._of(level).fit(getattr(rows, f"{level}_numbers"))

    def forward(self, batch: Batch) -> Blocks:
        """Blocks of a batch."""
        request, candidate, history = (self._of(level) for level in LEVELS)
        # One look-up for all levels, hence one sparse gradient.
        rows = [request.rows(batch.request_ids), candidate.rows(batch.candidate_ids), history.rows(batch.behaviour_ids)]
        for columns, ids in zip(self.extra_columns, (batch.request_ids, batch.candidate_ids), strict=False):
            assert isinstance(columns, ExtraColumns)
            rows.append(columns.rows(ids))
        embedded = self.tables(torch.cat([r.flatten() for r in rows])).split([r.numel() for r in rows])
        flat = [e.reshape(*r.shape[:-1], r.shape[-1] * self.tables.dim) for e, r in zip(embedded, rows, strict=True)]

        of_request = request.split(flat[0], batch.request_numbers)
        of_request.setdefault("query", []).append(F.normalize(batch.query_text, dim=-1))
        of_request.setdefault("context", []).append(batch.scenarios)
        content, text = F.normalize(batch.candidate_content, dim=-1), F.normalize(batch.candidate_text, dim=-1)
        seen = F.normalize(batch.behaviour_content if self.spec.content_dim else batch.behaviour_text, dim=-1)
        of_candidate = candidate.split(flat[1], batch.candidate_numbers)
        of_candidate.setdefault("item", []).extend([content, text])
        of_candidate["cross"] = [*of_candidate.get("cross", []), self.cross(batch, content, text, seen)]

        parts = [part for block in history.split(flat[2], batch.behaviour_numbers).values() for part in block]
        recency = torch.log1p(batch.behaviour_age / 3600.0).unsqueeze(-1) / math.log(24 * 30)  # a month is 1
        behaviours = torch.cat([*parts, seen, recency], dim=-1)
        return Blocks(
            batch=batch,
            request={block: torch.cat(of_request[block], dim=-1) for block in self.widths.request},
            candidate={block: torch.cat(of_candidate[block], dim=-1) for block in self.widths.candidate},
            behaviours=behaviours * batch.behaviour_mask.unsqueeze(-1),
            extra=self._split_extra(flat[3:]),
        )

    def _split_extra(self, flat: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        if not flat:
            return {}
        levels = zip(self.extra_columns, flat, strict=True)
        of_request, of_candidate = (x.split(columns.widths, dim=-1) for columns, x in levels)
        return dict(zip(self.extra, zip(of_request, of_candidate, strict=True), strict=True))

    def cross(self, batch: Batch, content: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        """Candidate against query and history, (N, ·): text cosine, content cosines, matches, price ratio, SimTier.

        `content` and `text` are the candidates' unit vectors, (N, ·), `seen` those of the behaviours, (R, L, ·):
        of their content, or of their text where there is no content.
        """
        found = []
        if self.spec.text_dim:
            query = batch.expand(F.normalize(batch.query_text, dim=-1))
            found.append((query * text).sum(-1, keepdim=True))
        if self.has_history:
            mask = batch.behaviour_mask.unsqueeze(1)  # (R, 1, L)
            own = content if self.spec.content_dim else text
            if own.shape[-1]:
                cosines = batch.grid(own) @ seen.transpose(1, 2)  # (R, C, L)
                count = mask.sum(-1).clamp(min=1)
                highest = cosines.masked_fill(~mask, -1.0).amax(-1) * mask.any(-1)
                found.append(batch.ungrid(torch.stack([cosines.sum(-1) / count, highest], dim=-1)))
            counts = []
            for of_candidate, of_behaviour in self.matches:
                wanted = batch.grid(batch.candidate_ids[:, of_candidate : of_candidate + 1])  # (R, C, 1)
                same = (wanted == batch.behaviour_ids[:, :, of_behaviour].unsqueeze(1)).sum(-1)  # (R, C)
                counts.append(same * (wanted[..., 0] != 0))  # padding is 0 too
            if counts:
                found.append(torch.log1p(batch.ungrid(torch.stack(counts, dim=-1).to(text.dtype))))
        if self.prices is not None:
            own, usual = batch.candidate_numbers[:, self.prices[0]], batch.request_numbers[:, self.prices[1]]
            ratio = torch.log1p(own.clamp(min=0.0)) - batch.expand(torch.log1p(usual.clamp(min=0.0)))
            known = batch.expand(usual > 0) & ~ratio.isnan()
            found.append(torch.where(known, ratio, 0.0).unsqueeze(-1))
        if self.simtier_tiers:
            found.append(simtier(Content.of(batch), batch, self.simtier_tiers))
        return torch.cat(found, dim=-1) if found else text.new_zeros(batch.candidates, 0)

    def _of(self, level: Level) -> Columns:
        columns = self.columns[level]
        assert isinstance(columns, Columns)
        return columns

    def _widths(self) -> Widths:
        spec = self.spec
        request, candidate, history = ({b: dict(f) for b, f in self._of(level).features.items()} for level in LEVELS)
        request.setdefault("query", {})["query_text"] = spec.text_dim
        request.setdefault("context", {})["scenarios"] = len(spec.scenarios)
        candidate.setdefault("item", {}).update(item_content=spec.content_dim, item_text=spec.text_dim)
        cross = candidate.setdefault("cross", {})
        cross["text_cosine"] = int(spec.text_dim > 0)
        if self.has_history:
            comparable = int(spec.content_dim + spec.text_dim > 0)
            cross |= {"mean_content_cosine": comparable, "highest_content_cosine": comparable}
            own, past = ([f.name for f in spec.select(level, ("id",))] for level in LEVELS[1:])
            cross |= {f"{own[i]}_in_{past[j]}": 1 for i, j in self.matches}
        cross["price_ratio"] = int(self.prices is not None)
        cross["simtier"] = self.simtier_tiers
        seen = {name: width for features in history.values() for name, width in features.items()}
        seen |= {"behaviour_content": spec.content_dim or spec.text_dim, "behaviour_recency": 1}

        def total(blocks: dict[str, dict[str, int]]) -> dict[str, int]:
            widths = {block: sum(features.values()) for block, features in blocks.items()}
            return {block: width for block, width in widths.items() if width}

        named = request | candidate | ({"behaviour": seen} if self.has_history else {})
        return Widths(
            request=total(request),
            candidate=total(candidate),
            behaviour=sum(seen.values()) if self.has_history else 0,
            features={block: {name: width for name, width in f.items() if width} for block, f in named.items()},
            extra=dict(
                zip(self.extra, zip(*(columns.widths for columns in self.extra_columns), strict=True), strict=True)
            ),
        )


def collisions(rows: Rows, table_rows: int) -> dict[str, float]:
    """Share of each table's distinct ids that have to share a row with another id, over some rows."""
    seen: dict[str, list[np.ndarray]] = {}
    for level in LEVELS:
        for place, feature in enumerate(rows.spec.select(level, ("id",))):
            seen.setdefault(feature.table, []).append(np.unique(getattr(rows, f"{level}_ids")[:, place]))
    found = {}
    for table, columns in seen.items():
        ids = np.unique(np.concatenate(columns))
        ids = ids[ids != 0]
        found[table] = round(1.0 - len(np.unique(ids % table_rows)) / len(ids), 4) if len(ids) else 0.0
    return found


def _grouped(features: tuple[Feature, ...], blocks: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Order that puts each block's features together, and how many each block has."""
    order = sorted(range(len(features)), key=lambda i: blocks.index(features[i].block))
    return order, [sum(f.block == block for f in features) for block in blocks]


def matched_columns(spec: SampleSpec) -> list[tuple[int, int]]:
    """Pairs (candidate column, behaviour column) of ids that look up the same table."""
    candidate, behaviour = spec.select("candidate", ("id",)), spec.select("behaviour", ("id",))
    return [(i, j) for i, own in enumerate(candidate) for j, seen in enumerate(behaviour) if own.table == seen.table]


def _prices(spec: SampleSpec) -> tuple[int, int] | None:
    """Columns of the candidate's price and the user's mean price, where a dataset has both."""
    own = [f.name for f in spec.select("candidate", ("count", "number"))]
    usual = [f.name for f in spec.select("request", ("count", "number"))]
    mean = next((i for i, name in enumerate(usual) if re.fullmatch(r"user_mean_price(_\d+d)?", name)), None)
    return (own.index("item_price"), mean) if "item_price" in own and mean is not None else None

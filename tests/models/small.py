"""Small configurations and rows for the tests of models and laws."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from models.data import read_rows, row_files
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from models.zoo import build_model
from tests.sample_folder import SPEC, write_samples
from uniscale.config import Config, load_config

SMALL = (
    "model.embedding_dim=4",
    "model.table_rows=64",
    "model.hhsft.hfa_dim=8",
    "model.hhsft.gfa_dim=8",
    "model.hhsft.gfa_tokens=3",
    "model.hhsft.expert_dim=8",
    "model.dlrm_mlp.hidden=[16, 8]",
    "model.est.dim=8",
    "model.est.head_hidden=[16]",
    "model.est.user_behaviours=7",
    "model.est.candidate_behaviours=4",
    "model.est.csa_neighbours=3",
    "model.est.semantic_codes=8",
    "model.mdl.dim=12",
    "model.dcnv2.hidden=[16, 8]",
    "model.dcnv2.rank=8",
    "model.autoint.dim=8",
    "model.hiformer.dim=8",
    "model.hiformer.rank=4",
    "model.wukong.dim=8",
    "model.wukong.rank=4",
    "model.wukong.hidden=16",
    "model.rankmixer.tokens=4",
    "model.rankmixer.dim=16",
    "model.transformer.dim=8",
    "model.longer.dim=8",
    "model.longer.merge=2",
    "model.longer.recent=2",
    "model.heads.expert_hidden=[16]",
    "model.heads.experts=2",
    "model.heads.tower_hidden=[8]",
    "model.heads.gate_hidden=8",
    "model.onetrans.layers=3",
    "model.onetrans.dim=8",
    "model.onetrans.ns_tokens=3",
    "model.onetrans.pyramid_multiple=2",
    "model.onetrans.candidate_behaviours=4",
    "model.mtgr.dim=8",
    "model.mtgr.candidate_behaviours=4",
    "train.batch_samples=256",
    "train.epochs=2",
    "train.warmup_steps=2",
    "train.learning_rate=0.01",
    "train.device=cpu",
)


def small_config(*overrides: str) -> Config:
    """The embedded configuration at a size that trains in a second."""
    return load_config(overrides=[*SMALL, *overrides])


def small_model(name: str, *overrides: str, seed: int = 0) -> RankingModel:
    return build_model(name, SPEC, small_config(*overrides).model, seed)


def some_rows(folder: Path, split: str = "train", subset: str = "entire") -> tuple[Rows, ItemVectors]:
    """Rows of a folder of `write_samples` in an order that mixes its domains, and the item vectors."""
    rows = read_rows(row_files(folder, split, subset, SPEC), SPEC, subset, keys=("request_id",))
    return rows.take(np.random.default_rng(0).permutation(rows.requests)), ItemVectors.load(folder, SPEC)


def small_samples(folder: Path) -> Path:
    return write_samples(folder, requests_per_day=12, days=6, items=40)


def permute_candidates(rows: Rows, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """The same requests with each one's candidates in another order, and that order (N,)."""
    noise = np.random.default_rng(seed).random(rows.candidates)
    order = np.lexsort((noise, rows.request_of))
    fields = ("candidate_ids", "candidate_numbers", "item", "labels")
    return replace(rows, **{name: getattr(rows, name)[order] for name in fields}), order

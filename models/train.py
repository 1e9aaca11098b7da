"""Training a model of the zoo: prefetched batches, two optimisers, early stopping, calibration, exact resume.

Validation is UniScale's (4.1): exposed rows of the target domain with in-domain labels, GAUC by (user, query).
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from models import carry
from models.batches import Batch, to_batch
from models.blame import cause
from models.calibrate import fit_platt
from models.checkpoint import load_model, save_model
from models.costs import PhaseClock, costs_html, flops_per_sample, matmul_peak, speed
from models.curves import page
from models.data import Position, Reader, Subset, prefetch, read_rows, row_files
from models.distributed import World, world_of
from models.inputs import collisions
from models.next_batch import NextBatch
from models.optimisers import Optimisers, task_losses
from models.predict import predict_logits, stopping_value, validation
from models.recompute import recompute_layers
from models.resume import TABLE, State, load_best, load_checkpoint, save_best, save_checkpoint, whole_weights
from models.sharded_tables import ShardedTables
from models.zoo import build_model, spec_of
from uniscale import progress
from uniscale.artifacts import atomic_folder, content_hash, read_json, source_hash, write_json
from uniscale.config import Config
from uniscale.errors import ConfigError, DataError, ModelError
from uniscale.samples import SampleSpec

CURVE_POINTS = 20  # batches between points of the training curve


def train(
    config: Config, samples: Path, out: Path, name: str, subset: Subset, work: Path, start: Path | None = None
) -> dict[str, Any]:
    """Train one model and write its folder; under `torchrun` every process calls this and the first one writes.

    Args:
        config: sections model and train, and the seed.
        samples: a samples folder (`uniscale.samples`).
        out: model folder: model.json, model.safetensors, optimiser.safetensors (`models.carry`), curves.json and .html.
        name: entry of `models.zoo`.
        subset: rows of Table 1 to train on.
        work: folder for checkpoints; a run that was killed goes on from there and ends in the same bits. Emptied
            once the model is written.
        start: model folder whose weights, statistics of the inputs among them, are the start, and whose optimisers
            go on where `train.carry_optimisers` says so; this run's own if None.

    Returns:
        The report, also in model.json: validation measures, speed, time split, parameters, FLOPs.

    Raises:
        ModelError: an unknown name, a `start` or `sparse_start` that does not fit, or a loss that is not a number
            (with the batch and the feature to blame).
        DataError: samples that break their contract.
        ConfigError: CUDA asked for and absent, or next-batch evaluation in several processes.
    """
    with world_of(resolve_device(config.train.device)) as world:
        run = Run(config, Path(samples), name, subset, Path(work), world, start)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            run.go()
            run.calibrate()
            report = run.report()
            run.join()
        world.wait()
        if world.rank == 0:
            with atomic_folder(Path(out)) as scratch:
                save_model(run.model, scratch, config.seed, report)
                if config.train.carry_optimisers:
                    shutil.copy(run.work / carry.FILE, scratch)
                write_json(scratch / "curves.json", {"steps": run.state.curve, "epochs": run.state.epochs})
                (scratch / "curves.html").write_text(curves_page(run.state, run.model.spec.tasks, name, report))
            shutil.rmtree(work, ignore_errors=True)
    return report


def fingerprint(config: Config, samples: Path, name: str, subset: Subset, start: Path | None = None) -> str:
    """Hash of everything a training depends on: configuration, samples, model, source code; 16 hex digits."""
    parts = {
        "seed": config.seed,
        "model": config.model.model_dump(),
        "train": config.train.model_dump(),
        "samples": [content_hash(Path(samples) / file) for file in ("manifest.json", "spec.json")],
        "name": name,
        "subset": subset,
        "start": [_start_hash(config.train.sparse_start), content_hash(start) if start else ""],
        "source": source_hash(),
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def _start_hash(folder: str) -> str:
    """Hash of the weights that the tables start from, empty without any."""
    weights = Path(folder) / "model.safetensors"
    if folder and not weights.exists():
        raise ModelError(
            f"train.sparse_start = {folder!r} holds no model.safetensors: give a model folder, or leave it empty"
        )
    return content_hash(weights) if folder else ""


def work_folder(
    root: Path, config: Config, samples: Path, name: str, subset: Subset, start: Path | None = None
) -> Path:
    """A checkpoint folder of its own for each training, below a root that outlives the process."""
    return Path(root) / f"{name}-{subset}-{fingerprint(config, samples, name, subset, start)}"


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: CUDA asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device = 'cuda', but this machine has no CUDA device: set train.device=auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


class Run:
    """One training: its model, optimisers, data and state."""

    def __init__(
        self,
        config: Config,
        samples: Path,
        name: str,
        subset: Subset,
        work: Path,
        world: World | None = None,
        start: Path | None = None,
    ):
        self.config, self.work, self.world = config, work, world or World()
        self.start, self.steps_before = start, 0
        if config.train.next_batch and self.world.size > 1:
            raise ConfigError(
                "train.next_batch keeps predictions in order and takes one process: start it without torchrun"
            )
        self.next_batch = NextBatch()
        self.name, self.subset = name, subset
        self.state = State(fingerprint(config, samples, name, subset, start))
        self.device = resolve_device(config.train.device)
        self.spec = spec_of(name, SampleSpec.load(samples), config.model)
        self.days = read_json(samples / "manifest.json")["splits"]["train"]
        self.reader = Reader(
            samples,
            "train",
            subset,
            config.train.batch_samples,
            config.seed,
            by_time=config.train.next_batch,
            world=self.world,
            spec=self.spec,
        )
        held_out = row_files(samples, "valid", "search", self.spec)
        self.valid = read_rows(held_out, self.spec, "search", keys=("user_id", "query"))
        first = self.reader.first_buffer()
        for split, rows in (("training", first), ("validation", self.valid)):
            if not rows.requests:
                raise DataError(
                    f"{samples} has no {split} rows of the subset {subset}: build more days, or all domains"
                )
        self.few = first.take(np.arange(min(64, first.requests)))
        self.expected = self.reader.expected_candidates(first)
        self.collisions = collisions(first, config.model.table_rows)
        self.model = build_model(name, self.spec, config.model, config.seed)
        self.model.fit(first)
        if start is not None:
            begun = load_model(start)
            if begun.spec != self.spec:
                raise ModelError(f"the start {start} reads other features than {samples} offers: train a new model")
            self.model.load_state_dict(begun.state_dict())
        if config.train.sparse_start:
            self.model.inputs.tables.start_from(load_model(Path(config.train.sparse_start)).inputs.tables)
        if config.train.shard_tables and self.world.size > 1:
            self.model.inputs.tables = ShardedTables(self.model.inputs.tables, self.world)
        self.model.to(self.device)
        reset = config.train.sparse_reset
        self.sparse_start = self.model.inputs.tables.weight.detach().clone() if reset else None  # θ_s⁰ of EST 5.5
        half = config.train.precision == "float16" and self.device.type == "cuda"
        self.optimisers = Optimisers(self.model, config.train, self.device, half, self.world)
        if config.train.recompute:
            recompute_layers(self.model.network)
        self.forward = self.world.wrap(self.model, TABLE)
        if config.train.compile and self.device.type == "cuda":
            self.forward.compile(dynamic=True)

    def go(self, stop_before: int | None = None) -> None:
        """Train to the end, or until just before a step (as a killed process would)."""
        train = self.config.train
        torch.manual_seed(self.config.seed + self.world.rank)
        if self.start is not None and train.carry_optimisers:
            self.steps_before = carry.carry(self.start, self.optimisers)
        self.state, kept = load_checkpoint(self.work, self.state.fingerprint, self.model, self.optimisers, self.world)
        self.next_batch.restore(kept)
        state = self.state
        self.clock = PhaseClock(self.device, state.seconds)
        if state.step:
            print(f"{self.name}: going on from step {state.step}", flush=True)
        shown = progress.Progress(f"train {self.name}", self.expected * train.epochs, "samples")
        shown.done = state.samples
        self.model.train()
        while state.position.epoch < train.epochs and state.stale_epochs < train.patience:
            if self.sparse_start is not None and state.position == Position(state.position.epoch, 0, 0):
                self.optimisers.reset_sparse(self.sparse_start)
            batches = prefetch(self.offered(state.position))
            while True:
                with self.clock("data"):
                    entry = next(batches, None)
                if entry is None:
                    break
                if state.step == stop_before:
                    batches.close()
                    return
                state.position = entry[0]
                loss = self.step(entry[1])
                shown.advance(state.samples - shown.done, f"loss {loss:.4f}")
                if state.step % train.checkpoint_batches == 0:
                    self.save()
            self.end_epoch()
        shown.finish(f"best epoch {state.best_epoch + 1}")
        load_best(self.work, self.model)
        self.model.eval()

    def offered(self, position: Position) -> Iterator[tuple[Position, Batch]]:
        """The reader's batches, on CUDA in memory that the device copies from while it computes."""
        for after, batch in self.reader.batches(position):
            yield after, batch.pinned() if self.device.type == "cuda" else batch

    def calibrate(self) -> None:
        """Fit each task's Platt scaling on the validation rows, so that the model ships probabilities."""
        logits = predict_logits(self.model, self.valid, self.reader.vectors).astype(np.float64)
        fitted = {task: fit_platt(self.valid.labels[:, i], logits[:, i]) for i, task in enumerate(self.spec.tasks)}
        self.model.calibrate({task: {"a": c.a, "b": c.b} for task, c in fitted.items()})

    def step(self, batch: Batch) -> float:
        """One update; returns the loss summed over tasks, of the global batch."""
        train, state = self.config.train, self.state
        autocast = train.precision != "float32" and self.device.type == "cuda"
        with self.clock("data"):
            count = torch.tensor([batch.candidates if batch.weights.any() else 0])
            totals = torch.cat([batch.weights.sum(0), count]).to(self.device)
            batch = batch.to(self.device)
            totals = self.world.sum(totals)
        if train.next_batch:
            with self.clock("validation"):
                self.next_batch.predict(self.model, batch)
        with self.clock("forward"):
            with torch.autocast(self.device.type, getattr(torch, train.precision), enabled=autocast):
                logits = self.forward(batch)
            own = task_losses(logits, batch, totals[:-1])
            losses = self.world.sum(own.detach())
        with self.clock("backward"):
            self.optimisers.backward(own.sum())
            loss, samples = float(losses.sum()), int(totals[-1])  # waits for the device; the norm hardly has to then
        if not math.isfinite(loss):
            raise ModelError(self.blame(f"the loss is {loss}", batch))
        with self.clock("optimiser"):
            norm = self.optimisers.step(self.steps_before + state.step)
        if not self.optimisers.scaler.is_enabled() and not math.isfinite(norm):
            raise ModelError(self.blame(f"the gradient's norm is {norm}", batch))
        if state.step % CURVE_POINTS == 0:
            state.curve.append({"step": state.step, **self.by_task(losses)})
        state.step += 1
        state.samples += samples
        return loss

    def save(self) -> None:
        """Write a checkpoint."""
        self.clock.settle()
        save_checkpoint(self.work, self.state, self.model, self.optimisers, self.next_batch.tensors(), self.world)

    def end_epoch(self) -> None:
        """Validate, keep the best weights, write a checkpoint."""
        state = self.state
        with self.clock("validation"), self.optimisers.averaged():
            logits = predict_logits(self.model, self.valid, self.reader.vectors)
            measures = validation(self.valid.labels, logits, self.valid)
        followed, value = stopping_value(measures, self.spec.tasks[0])
        state.epochs.append({"epoch": state.position.epoch, "step": state.step, "followed": followed, **measures})
        state.stale_epochs += 1
        if state.best is None or value > state.best:
            state.best, state.best_epoch, state.stale_epochs = value, state.position.epoch, 0
            with self.optimisers.averaged():
                weights, known = whole_weights(self.model), self.optimisers.tensors()
                if self.world.rank == 0:
                    save_best(self.work, weights)
                    if self.config.train.carry_optimisers:
                        carry.keep(self.work, self.optimisers, known, self.steps_before + state.step)
        if self.world.rank == 0:
            print(f"{self.name}: epoch {state.position.epoch + 1}, validation {followed} {value:.4f}", flush=True)
        state.position = Position(state.position.epoch + 1, 0, 0)
        self.save()

    def report(self) -> dict[str, Any]:
        """What the training cost and reached."""
        self.clock.settle()
        state, tables = self.state, self.model.inputs.tables
        dense = sum(p.numel() for p in self.model.parameters()) - tables.weight.numel()
        train = self.config.train
        precision = train.precision if self.device.type == "cuda" else "float32"
        flops = flops_per_sample(self.model, to_batch(self.few, self.reader.vectors).to(self.device))
        peak = matmul_peak(self.device, getattr(torch, precision))
        return {
            "subset": self.subset,
            "days": self.days,
            "device": str(self.device),
            "processes": self.world.size,
            "precision": precision,
            "epochs": len(state.epochs),
            "best_epoch": state.best_epoch + 1,
            "validation": state.epochs[state.best_epoch],
            "steps": state.step,
            "steps_before": self.steps_before,
            "samples": state.samples,
            "samples_per_epoch": state.samples // max(len(state.epochs), 1),
            **speed(state.seconds, state.samples, flops, peak, self.world.size),
            "seconds": {phase: round(value, 3) for phase, value in state.seconds.items()},
            "parameters": {"dense": dense, "embedding": tables.rows * tables.dim},
            "forward_flops_per_sample": flops,
            "next_batch": self.next_batch.measure(self.reader) if train.next_batch else None,
            "embedding_collisions": self.collisions,
            "sparse": {
                "start": train.sparse_start or "random",
                "reset_each_epoch": train.sparse_reset,
            },
        }

    def join(self) -> None:
        """Bring the tables of all ranks together in the model, which is over with training."""
        if isinstance(self.model.inputs.tables, ShardedTables):
            self.model.inputs.tables = self.model.inputs.tables.joined()

    def blame(self, problem: str, batch: Batch) -> str:
        """The message of a training that cannot go on: where, which input, what is left."""
        position = self.state.position
        where = f"epoch {position.epoch + 1}, buffer {position.buffer + 1}, batch {position.batch}"
        kept = sorted(self.work.glob("step-*"))
        return (
            f"{problem} at {where}: {cause(batch, self.spec)}; last good checkpoint: {kept[-1] if kept else 'none yet'}"
        )

    def by_task(self, losses: Tensor) -> dict[str, float]:
        """Loss of each task by its name."""
        return dict(zip(self.spec.tasks, losses.tolist(), strict=True))


def curves_page(state: State, tasks: tuple[str, ...], name: str, report: dict[str, Any]) -> str:
    """HTML of the loss along the steps, the validation measures along the epochs and what the training cost."""
    losses = {task: [(point["step"], point[task]) for point in state.curve] for task in tasks}
    gauc = {
        f"{task} {measure}": [(e["epoch"] + 1, e[task][measure]) for e in state.epochs if e[task][measure] is not None]
        for task in tasks
        for measure in ("gauc", "auc")
    }
    charts = [("Training loss", "step", losses), ("Validation", "epoch", gauc)]
    return page(f"Training of {name}", charts, costs_html(report))

"""Train one model on one fraction of the pairs: resumable, reproducible, early-stopped."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.given import read_given
from genret_dask.datasets.order import sample_rows
from genret_dask.datasets.pairs import TrainingPairs, dev_pairs, dev_split
from genret_dask.errors import TrainingError
from genret_dask.identifiers import Codes
from genret_dask.models.architectures import architecture_of, count_parameters
from genret_dask.models.configs import config_of
from genret_dask.models.families import family_of
from genret_dask.models.flops import training_flops_per_example
from genret_dask.models.pretrained import load_tokenizer
from genret_dask.models.tokens import read_tokenizer
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.storage.artefacts import fetched, publishing
from genret_dask.storage.host_cache import working_folder
from genret_dask.storage.places import beside, replace_file, writing
from genret_dask.storage.records import dump_record
from genret_dask.training.batches import Batches
from genret_dask.training.build import build_model
from genret_dask.training.loss import identifier_loss
from genret_dask.training.memory import SAMPLED
from genret_dask.training.task import TrainTask, finished
from genret_dask.training.warmstart import warm_start

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]

_DOCUMENT_TOKENS = 512  # that a warm start sees
_COUNTERS = ("step", "tokens_seen", "texts_cut", "seconds", "history")


def training_flops(task: TrainTask) -> float:
    """What a whole training will cost, at the full input length: for plans and their order."""
    if task.model.checkpoint is not None:
        return 0.0
    config = config_of(task.model)
    tokenizer = read_tokenizer(fetched(task.tokenizer) / "tokenizer.json")
    shape = task.identifiers.shape(task.space)
    config.vocab_size = tokenizer.get_vocab_size() + 1 + shape.rows
    per_example = training_flops_per_example(architecture_of(config), task.max_tokens, shape.steps)
    return float(task.training.examples * per_example)


def train(task: TrainTask, threads: int = 1, progress: Progress | None = None) -> dict[str, Any]:
    """Train, or go on from the last evaluation, and publish the best checkpoint.

    Returns
    -------
    dict
        What `training.json` holds: n_params, n_train (pairs), train_flops, dev losses.

    Raises
    ------
    TrainingError
        The loss of training or of the dev pairs is not finite, or no pair has an identifier.
    """
    with alone_in_torch(threads):
        if (record := finished(task)) is not None:  # a twin of this task may have been first
            return record
        run = _Run(task)
        run.resume()
        if progress:  # raises if the worker closed while this task waited for its turn
            progress(run.step, run.steps)
        while not run.done:
            run.train_until_evaluation(progress)
        return run.publish()


class _Run:
    """The state of one training: everything here but the counters is rebuilt from the task."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        task.check_weights()
        spec = task.training
        kind, space = task.identifiers, task.identifiers.open(task.space)
        self.tokenizer = load_tokenizer(str(fetched(task.tokenizer)), local_files_only=True)
        self.family = family_of(task.model.family)
        self.model: Any
        self.model, self.start = build_model(
            task.model,
            self.tokenizer,
            kind.shape(task.space).rows,
            dropout=spec.dropout,
            seed=task.seed,
        )
        self.reader = self.family.reader(self.tokenizer, task.max_tokens, task.model.prompt)
        collection = stored.read_artefact(task.collection)
        if task.model.pretrained is None and spec.init == "lsa":
            self._warm_start(collection, kind.new_rows(space))
        sampler = None
        if kind.choices:
            file = fetched(task.tokenizer) / "tokenizer.json"
            sampler = kind.sampler(collection, file, task.seed)
        self.targets = kind.targets(space, self.start, self.tokenizer.eos_token_id, sampler)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        excluded = kind.without_identifiers(task.space)
        given = None if task.pairs is None else read_given(fetched(task.pairs))
        self.pairs = TrainingPairs(
            collection, spec.pairs, task.seed, task.fraction, excluded, given
        )
        if not len(self.pairs):
            raise TrainingError(
                f"{task.name}: no training pair is of a document that has an identifier",
                expected="documents that n-grams lead to",
                fix="lower identifiers.min_tokens",
            )
        self.batches = Batches(
            self.pairs, self.reader, spec.batch_size, spec.query_share, task.seed
        )
        self.dev = dev_pairs(collection, spec.dev_queries, task.seed, excluded)
        self.dev_split = dev_split(collection)
        if not len(self.dev):
            logger.warning("%s has no dev pair: it trains to the end and is kept as is", task.name)
        self.dev_tokens = self.reader.read(self.dev.texts)
        self.steps = max(1, math.ceil(spec.examples / spec.batch_size))
        self.interval = max(1, math.ceil(self.steps / spec.evaluations))
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.parameters = [*decay, *plain]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": spec.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=spec.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.tokens_seen, self.texts_cut, self.seconds = 0, 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.state = working_folder(task.folder, ".training")

    # --- the loop -----------------------------------------------------------------------------

    @property
    def best(self) -> int:
        """Index of the evaluation with the lowest dev loss; the last one without dev pairs."""
        losses = [entry["dev_loss"] for entry in self.history]
        return len(losses) - 1 if None in losses else int(np.argmin(losses))

    @property
    def done(self) -> bool:
        if self.step >= self.steps:
            return True
        return bool(self.history) and (
            len(self.history) - 1 - self.best >= self.task.training.patience
        )

    def train_until_evaluation(self, progress: Progress | None) -> None:
        began, losses = time.monotonic(), []
        self.model.train()
        end = min(self.steps, (self.step // self.interval + 1) * self.interval)
        while self.step < end:
            losses.append(self._train_step())
            self.step += 1
            if progress and self.step % 10 == 0:
                progress(self.step, self.steps)
        loss = self._finite("training", float(torch.stack(losses).mean()))
        dev_loss = self._finite("dev", self._dev_loss()) if len(self.dev) else None
        self.history.append({"step": self.step, "loss": loss, "dev_loss": dev_loss})
        self.seconds += time.monotonic() - began
        logger.info("%s step %d/%d %s", self.task.name, self.step, self.steps, self.history[-1])
        self._save()
        if progress:
            progress(self.step, self.steps)

    def _finite(self, name: str, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.task.name}: the {name} loss became {loss} by step {self.step}",
                expected="a finite loss",
                fix="lower training.learning_rate",
            )
        return loss

    def _train_step(self) -> torch.Tensor:
        spec = self.task.training
        torch.manual_seed(seed_of(self.task.seed, self.step))
        batch = self.batches.at(self.step)
        tokens, lengths = batch.tokens.copy(), batch.lengths
        self.tokens_seen += int(lengths.sum())
        self.texts_cut += batch.cut
        if spec.word_dropout:
            rng = np.random.default_rng((self.task.seed, 2, self.step))
            hidden = rng.random(tokens.shape) < spec.word_dropout
            hidden[:, : len(self.reader.opening)] = False
            spared = max(1, len(self.reader.closing))
            hidden &= np.arange(hidden.shape[1]) < (lengths - spared)[:, None]
            tokens[hidden] = self.start  # a token that no text holds
        for group in self.optimizer.param_groups:
            group["lr"] = spec.learning_rate * self._schedule()
        visit = np.random.default_rng((self.task.seed, 5, self.step))
        loss = self._losses(tokens, lengths, self.targets.labels(batch.pairs, visit)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.detach()

    def _schedule(self) -> float:
        """Linear warm-up, then half a cosine down to a twentieth."""
        warmup = max(1, round(self.task.training.warmup * self.steps))
        if self.step < warmup:
            return (self.step + 1) / warmup
        share = (self.step - warmup) / max(1, self.steps - warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))

    def _losses(
        self, tokens: np.ndarray, lengths: np.ndarray, identifiers: np.ndarray
    ) -> torch.Tensor:
        labels = torch.from_numpy(identifiers).to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.family.logits(
                self.model,
                torch.from_numpy(tokens).to(self.device),
                torch.from_numpy(lengths).to(self.device),
                labels,
            )
        return identifier_loss(logits, labels)

    def _dev_loss(self) -> float:
        self.model.eval()
        order = np.argsort(self.dev_tokens.lengths, kind="stable")
        total = 0.0
        with torch.inference_mode():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                tokens, lengths = self.dev_tokens.padded(rows)
                labels = self.targets.labels(self.dev.take(rows), np.random.default_rng(start))
                total += float(self._losses(tokens, lengths, labels).sum())
        return total / len(order)

    def _warm_start(self, collection: Collection, codes: Codes | None) -> None:
        rows = sample_rows(len(collection), SAMPLED, (self.task.seed, 11))
        reader = replace(self.reader, max_tokens=_DOCUMENT_TOKENS, opening=(), closing=(), lead="")
        documents = reader.read(map(collection.document, rows.tolist()))
        warm_start(self.family, self.model, documents, codes, rows, self.start)

    # --- checkpoints --------------------------------------------------------------------------

    def _save(self) -> None:
        """Publish the state to resume from, and the weights when they are the best so far."""
        self.state.mkdir(parents=True, exist_ok=True)
        weights = self._weights()
        moments = {
            f"{index}.{name}": value
            for index, parameter in enumerate(self.parameters)
            for name, value in self.optimizer.state[parameter].items()
        }
        _replace(self.state / f"weights.{self.step}.safetensors", weights)
        _replace(self.state / f"optimizer.{self.step}.safetensors", moments)
        if self.best == len(self.history) - 1:
            _replace(self._best_weights, weights)
        counters = {
            "made_from": self.task.made_from.fingerprint,
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "texts_cut": self.texts_cut,
            "seconds": self.seconds,
            "history": self.history,
        }
        replace_file(self.state / "state.json", json.dumps(counters).encode())
        for path in self.state.glob("*.*.safetensors"):
            if path != self._best_weights and path.name.split(".")[1] != str(self.step):
                path.unlink(missing_ok=True)

    @property
    def _best_weights(self) -> Path:
        # By step: a twin of this task that a cluster believed lost may be at another one.
        return self.state / f"best.{self.history[self.best]['step']}.safetensors"

    def resume(self) -> None:
        """Take up the last saved state, if it is whole and was made from the same inputs."""
        try:
            counters = json.loads((self.state / "state.json").read_text())
            same = counters["made_from"] == self.task.made_from.fingerprint
            found = {name: counters[name] for name in _COUNTERS}
            weights, moments = (
                load_file(self.state / f"{name}.{found['step']}.safetensors", device=self.device)
                for name in ("weights", "optimizer")
            )
        except (OSError, ValueError, LookupError, TypeError, SafetensorError):
            same = False
        if not same:
            shutil.rmtree(self.state, ignore_errors=True)
            return
        vars(self).update(found)
        self.model.load_state_dict(weights, strict=False)
        for key, value in moments.items():
            index, name = key.split(".")
            self.optimizer.state[self.parameters[int(index)]][name] = (
                value.cpu() if name == "step" else value
            )
        logger.info("%s goes on at step %d/%d", self.task.name, self.step, self.steps)

    def _weights(self) -> dict[str, torch.Tensor]:
        """One tensor for each stored parameter; tied ones once."""
        return {name: p.detach().contiguous() for name, p in self.model.named_parameters()}

    def publish(self) -> dict[str, Any]:
        """Write the best weights as a Hugging Face folder, by one rename."""
        best = self.history[self.best]
        self.model.load_state_dict(load_file(self._best_weights), strict=False)
        architecture = architecture_of(self.model.config)
        seen = min(self.steps, self.step) * self.task.training.batch_size
        flops = seen * training_flops_per_example(
            architecture, self.tokens_seen / seen, self.targets.length
        )
        record = {
            "name": self.task.name,
            "family": self.task.model.family,
            "n_params": count_parameters(self.model),
            "n_train": len(self.pairs) * max(1, self.task.identifiers.choices),
            "train_fraction": self.task.fraction,
            "train_flops": float(flops),
            "examples": seen,
            "start_token": self.start,
            "max_tokens": self.task.max_tokens,
            "texts_cut": self.texts_cut,
            "begin_tokens": list(self.reader.opening),
            "end_tokens": list(self.reader.closing),
            "lead": self.reader.lead,
            "eos_token": self.tokenizer.eos_token_id,
            "step": best["step"],
            "dev_loss": best["dev_loss"],
            "dev_pairs": len(self.dev),
            "dev_split": self.dev_split,
            "seconds": self.seconds,
            "history": self.history,
        }
        with publishing(self.task.folder, self.task.made_from) as partial:
            self.model.save_pretrained(str(partial), safe_serialization=True)
            self.tokenizer.save_pretrained(str(partial))
            (partial / "training.json").write_bytes(dump_record(record))
        shutil.rmtree(self.state, ignore_errors=True)
        return record


def seed_of(seed: int, step: int) -> int:
    """The seed of PyTorch's random numbers at a step of a training."""
    return int(np.random.SeedSequence((seed, 6, step)).generate_state(1, np.uint64)[0])


def _replace(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    partial = beside(path)
    with writing(path):
        save_file(tensors, partial)
        os.replace(partial, path)

"""A small cross-encoder that learns in minutes on two cores, and its server.

Put on the first token of a sentence encoder, as cross-encoders are, a score starts blind, and a few
thousand pairs do not open its eyes. So this one reads question and text together, as every
cross-encoder does, and scores by comparing the two halves of what comes out: the cosine of their
means, and how near each token of the question comes to its nearest of the text (the late
interaction of ColBERT, Khattab and Zaharia 2020, here over tokens that have seen each other).
Before the first step it knows what the sentence encoder knows, and training improves on that.

``python -m benchmarks._cross_encoder --reranker FOLDER --port N`` is the house's embedding server,
with this in the place of ``load_cross_encoder``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize, softplus
from transformers import AutoModel, AutoTokenizer

from inference.embedding_models import resolve_model
from inference.serving import embedding_server
from inference.serving.encoder import cpu_has_bf16
from inference.types import Vectors

TOKENS = 160
_FROZEN_LAYERS = 3
_BATCH = 8
_LEARNING_RATE = 1e-4
_HEAD_LEARNING_RATE = 1e-2
_HEAD = "head.pt"


class CrossEncoder(torch.nn.Module):
    """Log odds of (question, text) pairs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder: Any = AutoModel.from_pretrained(str(folder), local_files_only=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self.scale = torch.nn.Parameter(torch.tensor([6.0, 6.0]))
        self.bias = torch.nn.Parameter(torch.tensor(-4.0))
        self.importance = torch.nn.Linear(self.encoder.config.hidden_size, 1)
        torch.nn.init.zeros_(self.importance.weight)
        torch.nn.init.zeros_(self.importance.bias)

    def forward(self, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
        """Shape (len(pairs),)."""
        features = self.tokenizer(
            [question for question, _ in pairs],
            [text for _, text in pairs],
            truncation="longest_first", max_length=TOKENS, padding=True, return_tensors="pt",
        )  # fmt: skip
        fast = torch.autocast("cpu", torch.bfloat16) if cpu_has_bf16() else nullcontext()
        with fast:
            tokens = self.encoder(**features).last_hidden_state
        tokens = tokens.float()
        ids = features["input_ids"]
        is_word = (ids != self.tokenizer.cls_token_id) & (ids != self.tokenizer.sep_token_id)
        is_word &= features["attention_mask"].bool()
        in_text = is_word & features["token_type_ids"].bool()
        asked = is_word & ~features["token_type_ids"].bool()
        whole = cosine_similarity(_mean(tokens, asked), _mean(tokens, in_text))
        unit = normalize(tokens, dim=-1)
        near = (unit @ unit.transpose(1, 2)).masked_fill(~in_text[:, None, :], -1.0)
        weights = softplus(self.importance(tokens).squeeze(-1) + 0.5) * asked
        words = (near.amax(-1) * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
        scores: torch.Tensor = self.bias + self.scale[0] * whole + self.scale[1] * words
        return scores

    def save(self, folder: Path) -> None:
        self.encoder.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        rest = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        torch.save(rest, folder / _HEAD)

    @classmethod
    def load(cls, folder: Path) -> CrossEncoder:
        model = cls(folder)
        model.load_state_dict(torch.load(folder / _HEAD, weights_only=True), strict=False)
        return model.eval()


def _mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def train(examples: Sequence[tuple[str, list[str]]], folder: Path) -> None:
    """One pass: among the texts of a question, the first shall win (softmax cross-entropy).

    The lower half of the layers stays as it is, which saves a third of the time. At the end the
    bias is set so that 0 lies between the texts that answer and the best of those that do not.
    """
    torch.manual_seed(1)
    start = resolve_model().path
    assert start is not None, "MiniLM's weights come as a package"
    model = CrossEncoder(start)
    for part in (model.encoder.embeddings, *model.encoder.encoder.layer[:_FROZEN_LAYERS]):
        part.requires_grad_(False)
    above = [each for each in model.encoder.parameters() if each.requires_grad]
    head = [model.scale, model.bias, *model.importance.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": above, "lr": _LEARNING_RATE},
            {"params": head, "lr": _HEAD_LEARNING_RATE},
        ],
        weight_decay=0.01,
    )
    steps = -(-len(examples) // _BATCH)
    rising = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / rising, max(0.0, (steps - at) / (steps - rising + 1)))
    )
    order = np.random.default_rng(6).permutation(len(examples))
    started, losses, middles = time.monotonic(), [], []
    model.eval()  # without dropout: one pass over so few questions does not overfit
    for step in range(steps):
        some = [examples[at] for at in order[step * _BATCH : (step + 1) * _BATCH]]
        scores = model([(query, text) for query, texts in some for text in texts])
        scores = scores.view(len(some), -1)
        loss = cross_entropy(scores, torch.zeros(len(some), dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*above, *head], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        middles.append((scores[:, 0] + scores[:, 1:].amax(1)).mean().item() / 2)
        if (step + 1) % 20 == 0 or step + 1 == steps:
            print(f"  step {step + 1} of {steps}: loss {fmean(losses[-20:]):.3f}", flush=True)
    with torch.no_grad():
        model.bias.sub_(fmean(middles[-20:]))
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    print(
        f"trained on {len(examples)} questions in {time.monotonic() - started:.0f} s: loss"
        f" {fmean(losses[: max(1, steps // 5)]):.3f} to {fmean(losses[-max(1, steps // 5) :]):.3f}",
        flush=True,
    )


class PairEncoder:
    """What the server's thread calls; scores between 0 and 1, shape (len(texts), 1)."""

    def __init__(self, folder: Path, *, threads: int | None) -> None:
        self._model = CrossEncoder.load(folder)
        if cpu_has_bf16():
            self._model.encoder.to(torch.bfloat16)
        self._threads = threads

    def encode(self, texts: Sequence[Any]) -> Vectors:
        if self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            scores = torch.sigmoid(self._model(texts)).numpy()
        return np.asarray(scores, dtype=np.float32).reshape(len(texts), 1)

    def release_memory(self) -> None:
        """Nothing is kept between batches."""


def main() -> int:
    def load(folder: Path, *, threads: int | None = None) -> PairEncoder:
        return PairEncoder(folder, threads=threads)

    embedding_server.load_cross_encoder = load  # type: ignore[assignment, attr-defined]
    return embedding_server.main()


if __name__ == "__main__":
    sys.exit(main())

"""sentence-transformers, loaded once and run by several threads.

Importing this module is cheap; ``load_encoder`` imports torch, which takes seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import logging
import platform
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from inference.embedding_models import EmbeddingModel
from inference.types import Vectors

logger = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16"]
# bf16 vectors measured against float32 here: 0.9999 and above. Below this, something is broken.
MIN_BF16_COSINE: Final = 0.999
_WIDTH_STEP: Final = 16
_PROBE: Final = (
    "Where do I find the travel policy?",
    "Expenses above 500 EUR need the approval of the head of department before the trip.",
)


class EncoderMismatchError(RuntimeError):
    """The loaded model does not produce what its settings promise."""


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether bf16 arithmetic is native here; emulated, it is slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            flags = set(value.split())
            if platform.machine() in {"aarch64", "arm64"}:
                return "bf16" in flags
            return bool(flags & {"avx512_bf16", "amx_bf16"})
    return False


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether an NVIDIA device is here, found without the seconds that importing torch takes."""
    return any(devices.glob("nvidia[0-9]*"))


@contextlib.contextmanager
def _without_sklearn() -> Iterator[None]:
    """Stand-ins for scikit-learn while sentence-transformers is imported.

    It imports ``sklearn.metrics`` (and with it scipy.stats and pandas) for evaluation helpers that
    serving never calls: a quarter of the processor time of the imports and 70 MiB. The names stay
    importable here, calling one raises, and afterwards the real package can be imported as usual.
    """

    def unavailable(*_args: object, **_kwargs: object) -> object:
        raise RuntimeError("scikit-learn was left out of the embedding server")

    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return unavailable

    names = [name for name in ("sklearn", "sklearn.metrics") if name not in sys.modules]
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        module.__dict__["__getattr__"] = attribute
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


class SentenceEncoder:
    """Texts to unit vectors, shape (len(texts), dimension), float32.

    ``threads`` is how many cores one call uses on processors; each calling thread is set to it.
    """

    def __init__(
        self, model: Any, torch: Any, *, device: str, dtype: str, threads: int | None
    ) -> None:
        self._torch = torch
        self._model = model
        self._transformer, *self._tail = list(model)
        self.device = device
        self.dtype = dtype
        self.threads = threads
        self._tokenizing = threading.Lock()  # fast tokenizers may not be borrowed twice
        self._local = threading.local()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One forward pass; the caller bounds the batch."""
        torch = self._torch
        if self.threads and not hasattr(self._local, "is_set"):  # OpenMP keeps it by thread
            torch.set_num_threads(self.threads)
            self._local.is_set = True
        with torch.inference_mode():
            with self._tokenizing:
                features = self._model.preprocess(list(texts))
            if self.device == "cpu":
                features = self._padded(features)
            features = {
                key: value.to(self.device) if hasattr(value, "to") else value
                for key, value in features.items()
            }
            features = self._transformer(features)
            # Pooling and scaling hundreds of bf16 numbers would lose what the layers kept.
            if "token_embeddings" in features:
                features["token_embeddings"] = features["token_embeddings"].float()
            for module in self._tail:
                features = module.float()(features)
            vectors = features["sentence_embedding"].float().cpu().numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)

    def _padded(self, features: dict[str, Any]) -> dict[str, Any]:
        """Widths rounded up: each new shape of a batch leaves memory behind in oneDNN and malloc.

        Measured over 1,200 texts of mixed lengths: a third less growth, no more processor time.
        """
        tokenizer = getattr(self._transformer, "tokenizer", None)
        ids = features.get("input_ids")
        if ids is None or tokenizer is None or (more := -ids.shape[1] % _WIDTH_STEP) == 0:
            return features
        sides = (more, 0) if tokenizer.padding_side == "left" else (0, more)
        fill = {"input_ids": tokenizer.pad_token_id or 0}
        return {
            key: (
                self._torch.nn.functional.pad(value, sides, value=fill.get(key, 0))
                if getattr(value, "shape", None) == ids.shape
                else value
            )
            for key, value in features.items()
        }

    def release_memory(self) -> None:
        """Hand freed memory back to the system, which malloc does not do by itself (glibc only)."""
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def load_encoder(
    model: EmbeddingModel, *, dtype: DType = "auto", threads: int | None = None
) -> SentenceEncoder:
    """Import torch, verify and load the weights, choose the arithmetic, run once.

    ``auto`` is bf16 on CUDA and on CPUs with native bf16, where it is checked against float32 on
    two sentences first; float32 otherwise. Raises ``UnknownModelError``, ``EncoderMismatchError``
    or what the libraries raise for unreadable weights.
    """
    import torch

    with _without_sklearn():
        from sentence_transformers import SentenceTransformer

    model.verify_weights()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    wants_bf16 = dtype == "bfloat16" or (
        dtype == "auto" and (torch.cuda.is_bf16_supported() if on_gpu else cpu_has_bf16())
    )
    # On a GPU a float32 copy would double the memory, and its bf16 needs no proof.
    first = torch.bfloat16 if wants_bf16 and on_gpu else torch.float32
    loaded = SentenceTransformer(
        model.source, device=device, model_kwargs={"dtype": first}, local_files_only=True
    ).eval()
    loaded.max_seq_length = model.window
    encoder = SentenceEncoder(
        loaded, torch, device=device, dtype=str(first).rpartition(".")[2], threads=threads
    )
    probe = encoder.encode(_PROBE)
    if probe.shape[1] != model.dimension:
        raise EncoderMismatchError(
            f"{model.name} makes vectors of {probe.shape[1]} components, its settings say "
            f"{model.dimension}."
        )
    if wants_bf16 and not on_gpu:
        encoder = _to_bf16(encoder, loaded, torch, probe)
    return encoder


def _to_bf16(full: SentenceEncoder, loaded: Any, torch: Any, probe: Vectors) -> SentenceEncoder:
    """Convert in place, or back when the vectors move."""
    next(iter(loaded)).to(torch.bfloat16)
    fast = SentenceEncoder(loaded, torch, device="cpu", dtype="bfloat16", threads=full.threads)
    cosine = float((fast.encode(_PROBE) * probe).sum(axis=1).min())
    if cosine >= MIN_BF16_COSINE:
        logger.info("bfloat16 agrees with float32: cosine %.5f", cosine)
        return fast
    logger.warning("bfloat16 disagrees with float32 (cosine %.5f): using float32", cosine)
    next(iter(loaded)).to(torch.float32)
    return full

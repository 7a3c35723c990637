"""The models one server holds: the one it was started with, and others loaded beside it.

A second model is there while a site moves to it: both answer until the old vectors are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from inference.embedding_models import EmbeddingModel, resolve_model
from inference.serving.batching import Batcher
from inference.tokens import load_token_counter

MAX_MODELS = 3


class ServedModel:
    """A model with the thread that runs it and the counter of its tokens."""

    def __init__(self, model: EmbeddingModel, batcher: Batcher) -> None:
        self.model = model
        self.batcher = batcher
        self._counter = load_token_counter(model)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, before truncation."""
        # Two special tokens frame every text in the models served here.
        return [count + 2 for count in self._counter.count_many(texts)]

    @property
    def state(self) -> str:
        """``loading``, ``ok`` or ``failed``."""
        ready = self.batcher.ready
        if not ready.done():
            return "loading"
        return "failed" if ready.exception() is not None else "ok"


class ShelfFullError(Exception):
    """Every further model would cost memory that nobody planned for."""


class Shelf:
    """Models by name. Thread-safe; the first one stays for the life of the server."""

    def __init__(
        self,
        first: EmbeddingModel,
        make_batcher: Callable[[EmbeddingModel], Batcher],
    ) -> None:
        self._make_batcher = make_batcher
        self._lock = threading.Lock()
        self._served = [ServedModel(first, make_batcher(first))]

    @property
    def first(self) -> ServedModel:
        return self._served[0]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._served))

    def find(self, name: str | None) -> ServedModel | None:
        """The model that answers to ``name``; the first one when no name is given."""
        if name is None:
            return self.first
        return next((served for served in self if served.model.answers_to(name)), None)

    def add(self, source: str) -> ServedModel:
        """Start to load a known name or a directory; the one that is there when it is served.

        Raises UnknownModelError and ShelfFullError.
        """
        model = resolve_model(source)
        with self._lock:
            for served in list(self._served):
                if (served.model.name, served.model.revision) == (model.name, model.revision):
                    if served.state != "failed" or served is self.first:
                        return served
                    self._served.remove(served)
            if len(self._served) >= MAX_MODELS:
                raise ShelfFullError
            served = ServedModel(model, self._make_batcher(model))
            served.batcher.start()
            self._served.append(served)
            return served

    def remove(self, name: str) -> bool:
        """Stop serving a model that was added; False when it is not here or is the first one."""
        with self._lock:
            served = self.find(name)
            if served is None or served is self.first:
                return False
            self._served.remove(served)
        served.batcher.close()
        return True

    def close(self) -> None:
        for served in self:
            served.batcher.close()

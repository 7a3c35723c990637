from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inference.embedding_models import (
    KNOWN_MODELS,
    MANY,
    EmbeddingModel,
    UnknownModelError,
    resolve_model,
)
from inference.tokens import CharacterCounter, TokenizerCounter, load_token_counter


def test_the_default_is_the_packaged_minilm_with_pinned_weights() -> None:
    model = resolve_model()
    assert (model.spec.dimension, model.spec.window) == (384, 256)
    assert model == resolve_model("sentence-transformers/all-minilm-l6-v2")
    model.verify_weights()
    with pytest.raises(UnknownModelError, match="SHA-256"):
        replace(model, weights_sha256="0" * 64).verify_weights()


def test_instructions_stand_before_queries_only() -> None:
    qwen = resolve_model("Qwen3-Embedding-0.6B").spec
    assert qwen.query_prefix.startswith("Instruct: ")
    assert qwen.query_prefix.endswith("\nQuery:")
    assert qwen.passage_prefix == ""
    e5 = resolve_model("intfloat/multilingual-e5-base").spec
    assert (e5.query_prefix, e5.passage_prefix, e5.dimension) == ("query: ", "passage: ", 768)
    assert len({model.name for model in KNOWN_MODELS}) == len(KNOWN_MODELS) == 7


def directory(tmp_path: Path, name: str = "own-model") -> Path:
    path = tmp_path / name
    path.mkdir()
    (path / "config.json").write_text(
        json.dumps({"hidden_size": 32, "max_position_embeddings": 128})
    )
    (path / "model.safetensors").write_bytes(b"x" * 100)
    return path


def test_a_directory_says_its_own_settings(tmp_path: Path) -> None:
    path = directory(tmp_path)
    plain = resolve_model(str(path))
    assert (plain.name, plain.dimension, plain.window) == ("own-model", 32, 128)
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    (path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "q: ", "document": "d: "}}'
    )
    (path / "2_Dense").mkdir()
    (path / "2_Dense" / "config.json").write_text('{"out_features": 16}')
    full = resolve_model(str(path))
    assert (full.dimension, full.window) == (16, 64)
    assert (full.query_prefix, full.passage_prefix) == ("q: ", "d: ")
    assert full.revision != plain.revision


def test_other_weights_are_another_revision(tmp_path: Path) -> None:
    path = directory(tmp_path)
    before = resolve_model(str(path)).revision
    (path / "model.safetensors").write_bytes(b"y" * 100)
    assert resolve_model(str(path)).revision != before


def test_a_known_model_in_a_directory_keeps_its_prefixes(tmp_path: Path) -> None:
    path = directory(tmp_path, "multilingual-e5-small")
    assert resolve_model(str(path)).query_prefix == "query: "


def test_an_unknown_name_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="EMBEDDING_MODEL"):
        resolve_model("no/such-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownModelError, match=r"config\.json"):
        resolve_model(str(tmp_path / "empty"))


def test_counts_are_the_tokenizers_without_special_tokens() -> None:
    counter = load_token_counter(resolve_model())
    assert isinstance(counter, TokenizerCounter)
    text = "Unbelievably, the Grüße cost 5 EUR."
    assert counter.count(text) == len(counter.offsets(text)) == counter.count_many([text])[0]
    starts = [start for start, _ in counter.offsets(text)]
    assert starts == sorted(starts)
    assert counter.count("word " * 1000) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "The quarterly report describes how travel expenses were approved in 2024.",
        "Antidisestablishmentarianism, electroencephalographically speaking!",
        "图书馆星期六十三点关门。",
        "",
    ],
)
def test_the_character_rule_counts_on_the_high_side(text: str) -> None:
    # English and ideographs only: the one tokenizer here spells other languages letter by letter.
    exact = load_token_counter(resolve_model())
    rule = load_token_counter(EmbeddingModel("elsewhere", dimension=8, window=64))
    assert isinstance(rule, CharacterCounter)
    assert exact.count(text) <= rule.count(text) <= 3 * exact.count(text) + 3
    assert rule.offsets(text) == sorted(rule.offsets(text))


def test_the_client_side_imports_no_torch() -> None:
    program = (
        "import sys, inference.embedder, inference.tokens, inference.llm, inference.extractive, "
        "inference.serving.embedding_server; "
        "print({'torch', 'sentence_transformers', 'transformers', 'django'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("card", "vocabulary", "languages"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model", 30522, {"en"}),
        ("---\nlanguage:\n- de\n- no\n---\n", 30522, {"de", "no"}),
        ("---\nlanguage: [af, am, ar, as, az, be, bg, bn]\n---\n", 30522, MANY),
        ("---\nlanguage: multilingual\n---\n", 30522, MANY),
        ("---\nlicense: mit\n---\n", 250002, MANY),
        ("---\nlanguage: [broken\n---\n", 30522, None),
        ("", 30522, None),
    ],
)
def test_a_directory_tells_its_languages(
    tmp_path: Path, card: str, vocabulary: int, languages: set[str] | None
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"hidden_size": 8, "vocab_size": vocabulary}), encoding="utf-8"
    )
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert resolve_model(str(tmp_path)).languages == languages

"""Learn what a score means from judged questions: see assistant/retrieval/learning.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from assistant import engines
from assistant.management.commands.evaluate import _collection, _index
from assistant.retrieval import calibration, spaces
from assistant.retrieval.calibration import Calibrated
from assistant.retrieval.evaluation import read_jsonl, read_judgements
from assistant.retrieval.learning import (
    Errors,
    Example,
    Help,
    errors_by_set,
    examples,
    learn,
    learn_with_reranker,
    log_odds_of,
)
from assistant.retrieval.searching import arms
from assistant.users.models import User
from inference.types import EngineError, Reranker


class Command(BaseCommand):
    help = (
        "Learn from judged questions how probable it is that a passage answers, and below which"
        " probability an answer is not worth giving. Folders in BEIR layout are indexed when"
        " absent. The result is used at once; searches of other processes follow within half a"
        " minute."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folders", type=Path, nargs="*", metavar="DIR")
        parser.add_argument(
            "--false-answers",
            type=float,
            metavar="SHARE",
            help="of the questions without an answer in the index, the share that may pass the"
            " threshold; without it, the threshold lets nearly all of those with an answer pass,"
            " and the language model says no to the rest",
        )
        parser.add_argument("--questions", type=int, default=500, help="at most, of each folder")
        parser.add_argument("--dry-run", action="store_true", help="learn and print, keep nothing")
        parser.add_argument("--reset", action="store_true", help="back to the built-in curves")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["reset"]:
            calibration.clear(space=spaces.active())
            self.stdout.write("The built-in curves hold again.")
            return
        if not options["folders"]:
            raise CommandError("Name at least one folder with judged questions.")
        share: float | None = options["false_answers"]
        if share is not None and not 0 < share < 1:
            raise CommandError("--false-answers is a share between 0 and 1.")
        reranker = engines.reranker()
        found: list[Example] = []
        for folder in options["folders"]:
            found += self._examples(
                folder, reranker, most=options["questions"], quiet=options["json"]
            )
        try:
            plain = learn(found, false_answers=share)
            before = calibration.current(spaces.active()).curve("hybrid")
            errors = errors_by_set(found, before=before)
            reranked = reranker and learn_with_reranker(found, plain=plain, false_answers=share)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if not options["dry_run"]:
            calibration.store(plain, space=spaces.active(), reranker="")
            if reranker and reranked:
                calibration.store(reranked[0], space=spaces.active(), reranker=reranker.model)
        if options["json"]:
            by_set = {name: asdict(each) for name, each in errors.items()}
            printed = {**asdict(plain), "errors": by_set}
            if reranked:
                printed["reranked"] = {**asdict(reranked[0]), **asdict(reranked[1])}
            self.stdout.write(json.dumps(printed, default=str))
            return
        self._print(plain)
        self._print_errors(errors)
        if reranker and reranked:
            self.stdout.write(f"\nWith the reranker {reranker.model}:")
            self._print_reranked(*reranked)

    def _examples(
        self, folder: Path, reranker: Reranker | None, *, most: int, quiet: bool
    ) -> Iterator[Example]:
        for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
            if not (folder / name).is_file():
                raise CommandError(f"{folder} has no {name}; it is not a BEIR-layout folder.")
        actor = User.objects.filter(is_superuser=True, is_active=True).first()
        if actor is None:
            raise CommandError("There is no administrator yet; run `manage.py ensure_admin`.")
        name = folder.resolve().name
        collection = _collection(f"Evaluation: {name}", actor)
        _index(collection, folder, actor, quiet=quiet)
        judgements = read_judgements(folder / "qrels.tsv")
        rows = [row for row in read_jsonl(folder / "queries.jsonl") if row["_id"] in judgements]
        rows = rows[:: max(1, len(rows) // most)][:most]
        for row in tqdm(rows, desc=f"asking {name}", disable=quiet or None):
            candidates, documents = arms(row["text"], user=actor, collections=[collection.pk])
            try:
                odds = log_odds_of(reranker, row["text"], candidates) if reranker else None
            except EngineError as error:
                raise CommandError(f"{error.detail} Nothing was learnt.") from None
            yield from examples(
                name,
                candidates,
                documents=documents,
                relevant=set(judgements[row["_id"]]),
                reranked=odds,
            )

    def _print_errors(self, errors: dict[str, Errors]) -> None:
        """How far a set stands apart from the others shows in the last column."""
        write = self.stdout.write
        write(f"{'of which':24} {'until now':>10} {'learnt':>8} {'from other sets':>16}")
        for name, each in errors.items():
            other = "" if each.other_sets is None else f"{each.other_sets:.3f}"
            write(f"  {name:22} {each.before:10.3f} {each.other_questions:8.3f} {other:>16}")

    def _print_reranked(self, learnt: Calibrated, helped: Help) -> None:
        write = self.stdout.write
        write(
            f"the best passage answers {helped.without:.1%} of the questions without it,"
            f" {helped.reranked:.1%} with it"
        )
        if learnt.has_use_for_reranker:
            self._print(learnt)
        else:
            write("It does not help here and is not asked from now on. Unset RERANKER_MODEL, or")
            write("set another one and calibrate again.")

    def _print(self, learnt: Calibrated) -> None:
        write = self.stdout.write
        write("chance given   did answer   passages")
        for each in learnt.bins:
            write(f"{each.predicted:12.2f} {each.observed:12.2f} {each.count:10,}")
        write(
            f"expected calibration error, on questions that were not learnt from: {learnt.ece:.3f}"
        )
        write(
            f"threshold {learnt.threshold:.3f}: passed by {learnt.answered:.1%} of the questions"
            f" with an answer and {learnt.false_answers:.1%} of those without"
        )

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

from assistant.management.commands.evaluate import _collection, _index
from assistant.retrieval import calibration, spaces
from assistant.retrieval.calibration import Calibrated
from assistant.retrieval.evaluation import read_jsonl, read_judgements
from assistant.retrieval.learning import Example, examples, learn
from assistant.retrieval.searching import arms
from assistant.users.models import User


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
        found: list[Example] = []
        for folder in options["folders"]:
            found += self._examples(folder, most=options["questions"], quiet=options["json"])
        try:
            learnt = learn(found, false_answers=share)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if not options["dry_run"]:
            calibration.store(learnt, space=spaces.active(), reranker="")
        if options["json"]:
            self.stdout.write(json.dumps(asdict(learnt), default=str))
        else:
            self._print(learnt)

    def _examples(self, folder: Path, *, most: int, quiet: bool) -> Iterator[Example]:
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
            yield from examples(
                name, candidates, documents=documents, relevant=set(judgements[row["_id"]])
            )

    def _print(self, learnt: Calibrated) -> None:
        write = self.stdout.write
        write("chance given   did answer   passages")
        for each in learnt.bins:
            write(f"{each.predicted:12.2f} {each.observed:12.2f} {each.count:10,}")
        write(f"expected calibration error, on what was not learnt from: {learnt.ece:.3f}")
        write(
            f"threshold {learnt.threshold:.3f}: passed by {learnt.answered:.1%} of the questions"
            f" with an answer and {learnt.false_answers:.1%} of those without"
        )

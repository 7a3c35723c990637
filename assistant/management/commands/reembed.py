from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from assistant.retrieval import reembedding, spaces

_STEP_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Move the site to another embedding model without a gap: the new vectors are made beside"
        " the old ones, searches switch in one commit, and the old ones stay until --drop-old."
        " Interrupting this command loses nothing: the workers go on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--model", help="a known name, or the directory of a model")
        what.add_argument("--rollback", action="store_true", help="return to the previous model")
        what.add_argument("--cancel", action="store_true", help="stop filling, keep the old model")
        what.add_argument(
            "--drop-old", action="store_true", help="remove the vectors that are not used any more"
        )
        parser.add_argument(
            "--base-url",
            default="",
            help="the server that has the model, when it is not the one at EMBEDDING_BASE_URL",
        )
        parser.add_argument("--no-wait", action="store_true", help="leave it to the workers")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._handle(**options)
        except reembedding.ReembedError as error:
            raise CommandError(str(error)) from error

    def _handle(self, **options: Any) -> None:
        if options["cancel"]:
            stopped = reembedding.cancel(actor=None)
            self.stdout.write("Stopped." if stopped else "Nothing was under way.")
            return
        if options["drop_old"]:
            dropped = reembedding.drop_unused(actor=None)
            self.stdout.write(f"Dropped: {', '.join(dropped)}." if dropped else "Nothing to drop.")
            return
        if options["rollback"]:
            reembedding.go_back(actor=None)
        elif options["model"]:
            reembedding.start(options["model"], actor=None, base_url=options["base_url"])
        if (options["rollback"] or options["model"]) and not options["no_wait"]:
            self._wait()
        self._report()

    def _wait(self) -> None:
        """Work along with the workers until the switch."""
        with tqdm(desc="embedding", unit="passage") as bar:
            while (state := reembedding.progress()) is not None:
                bar.total, bar.n = state.total, state.done
                bar.set_postfix_str(state.error[:60])
                if not reembedding.fill(seconds=_STEP_SECONDS):
                    time.sleep(_STEP_SECONDS / 2)

    def _report(self) -> None:
        present, before = spaces.active(), reembedding.previous()
        self.stdout.write(f"Searched: {present.model if present else 'nothing yet'}.")
        if state := reembedding.progress():
            self.stdout.write(f"Being filled: {state.model}, {state.done} of {state.total}.")
            if state.error:
                self.stdout.write(f"Standing still: {state.error}")
        if before is not None:
            self.stdout.write(
                f"Kept: {before.model}. Back to it: --rollback. Its vectors away: --drop-old."
            )

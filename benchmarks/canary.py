"""Whether anything leaks, over thousands of random questions and changes of rights.

    python -m benchmarks.canary [--steps 10000] [--seed 1]

Starts a database of its own with 24 people, 6 groups and 20 collections. Each document holds a
canary, a word that is nowhere else, beside words that all share, so that hidden documents are as
near to each question as visible ones. Every step is one of: a search by somebody in some mode, with
or without filters, named collections, a budget and an explanation; a change of rights (a grant
given, taken or changed, somebody put into a group or out of it, deactivated, made superuser or
not); a document uploaded, replaced, deleted, disabled or enabled. A model of who may see what is
kept in plain Python beside it, and every text, title and name in every result is held against it:

- no canary that the person may not see, in passages or in the explanation,
- no text of a deleted, disabled or superseded version,
- as many documents as the model allows, where the question is for all of them,
- a named collection that is hidden is refused like one that is absent.

Prints what was done and the leaks; ends with 1 when there is one. The test suite runs a short form.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks._database import running_database


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="knowledge-canary-") as folder:
        Path(folder).chmod(0o711)
        with running_database(Path(folder)):
            from tests.retrieval.canary_house import House

            house = House(arguments.seed)
            for step in range(arguments.steps):
                house.step()
                if (step + 1) % 500 == 0:
                    print(f"{step + 1:>7,} steps, {len(house.leaks)} leaks", flush=True)
            report(house.done, house.leaks)
            sys.exit(1 if house.leaks else 0)


def report(done: Counter[str], leaks: list[str]) -> None:
    for name, count in sorted(done.items()):
        print(f"{count:>7,} {re.sub('_', ' ', name)}")
    print(f"{len(leaks)} leaks")
    for leak in leaks[:20]:
        print(f"  {leak}")


if __name__ == "__main__":
    main()

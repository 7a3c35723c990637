"""Without a language model: which questions of a conversation are searched together.

    SHARED_DATA=... python -m benchmarks.conversations [--questions 150] [--kept DIR]

XQuAD (en), asked of all its paragraphs. Three kinds of second questions, made from its own: a *new
subject* after a question about another article; a *follow-up* to a question about the same
paragraph, with what it is about replaced by "it"; and the last words of that one alone
("And ..."). Prints the share whose best passage is of the right paragraph when the second question
is searched alone, always together with the first, and as the site does. Then the share of short
questions, as people type them, that the site takes for what they are. Ends with 1 where one of its
shares is less than 0.9.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from benchmarks._database import running_database
from benchmarks._passages import shared_retrieval
from benchmarks.ranking import JudgedSet, KeptEmbedder, fill, read_set
from inference.embedding_models import resolve_model
from inference.types import ChatMessage

AIM = 0.9
_NO_NAMES = {"the", "and"}

# A question, one with a subject of its own, and one that goes on from the first.
SHORT = (
    ("How do I get reimbursed for travel?", "What is in one-on-ones?", "How long does it take?"),
    ("How many days of leave do I have?", "Where is the canteen?", "Can they be carried over?"),
    ("Where is the canteen?", "Who approves travel?", "When does it open?"),
    ("How do I book a meeting room?", "What is the dress code?", "For how many people?"),
    ("What is the notice period?", "How do I reset my password?", "And during probation?"),
    ("How do I reset my password?", "When is payday?", "What if I lost my phone?"),
    ("Who is on the works council?", "Can I work from abroad?", "How are they elected?"),
    ("What is our parental leave?", "Which laptop do I get?", "What about part-time employees?"),
    ("Which laptop do I get?", "What is the VPN address?", "Can I choose another one?"),
    ("How do I report a phishing mail?", "What does health insurance cover?", "Why?"),
    ("What is the expense limit for hotels?", "How does on-call work?", "And for meals?"),
    ("How does on-call work?", "What are our core hours?", "Is it paid?"),
    ("How are salaries reviewed?", "Can I bring my dog?", "Who decides?"),
    ("What is continuous deployment?", "Who leads IT?", "What are its advantages?"),
    ("How do I get a parking space?", "What is a retro?", "How much does it cost?"),
    ("Wie viele Urlaubstage habe ich?", "Wo ist die Kantine?", "Und in Teilzeit?"),
    ("Wo ist die Kantine?", "Wer genehmigt Dienstreisen?", "Wann öffnet sie?"),
    ("Wie beantrage ich Elternzeit?", "Welche Versicherung habe ich?", "Wie lange dauert das?"),
    ("When is the library open?", "Who is the data protection officer?", "And on Sunday?"),
    ("What is a sprint?", "What do I do when I am sick?", "How long is one?"),
)
# A first question, the second, and the paragraph that answers that.
Pair = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=150, help="of each kind")
    parser.add_argument("--kept", type=Path, help="where vectors are kept for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="knowledge-conversations-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        with running_database(folder / "database"):
            ours = measure(options.kept or folder, options.questions)
    missed = [kind for kind, share in ours.items() if share < AIM]
    for kind in missed:
        print(f"missed: {kind}")
    sys.exit(1 if missed else 0)


def measure(kept: Path, most: int) -> dict[str, float]:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from assistant.chat.rewriting import standalone_query
    from assistant.retrieval import search, spaces
    from inference.extractive import ExtractiveLLM

    embedder = KeptEmbedder(resolve_model().spec)
    spaces.embedder_of = lambda space: embedder
    judged = read_set("xquad-en", kept=kept, embedder=embedder)
    reader, _ = fill(judged)
    llm = ExtractiveLLM(embedder)

    def finds(query: str, paragraph: str) -> bool:
        (best,) = search(query, user=reader, limit=1).passages
        return best.external_id == paragraph

    ours: dict[str, float] = {}
    print("                 alone   together   ours")
    for kind, pairs in kinds(judged, most).items():
        hits = [0, 0, 0]
        for first, second, paragraph in pairs:
            history = [ChatMessage("user", first), ChatMessage("assistant", "Yes.")]
            chosen = asyncio.run(standalone_query(second, history, llm=llm))
            for at, query in enumerate((second, f"{first} {second}", chosen)):
                hits[at] += finds(query, paragraph)
        alone, together, ours[kind] = (count / len(pairs) for count in hits)
        print(f"  {kind:12} {alone:8.3f} {together:10.3f} {ours[kind]:6.3f}", flush=True)
    news, follow_ups = [], []
    for first, new, follow_up in SHORT:
        history = [ChatMessage("user", first)]
        news.append(asyncio.run(standalone_query(new, history, llm=llm)) == new)
        query = asyncio.run(standalone_query(follow_up, history, llm=llm))
        follow_ups.append(query != follow_up)
    ours["short, new"], ours["short, follow-up"] = fmean(news), fmean(follow_ups)
    print(f"  short questions: new {ours['short, new']:.2f}", end=", ")
    print(f"follow-ups {ours['short, follow-up']:.2f}")
    return ours


def kinds(judged: JudgedSet, most: int) -> dict[str, list[Pair]]:
    chance = random.Random(3)
    titles = dict(_titles())
    paragraph = {question: next(iter(grades)) for question, grades in judged.grades.items()}
    questions = [question for question in judged.questions if question in paragraph]
    by_paragraph: dict[str, list[str]] = {}
    for question in questions:
        by_paragraph.setdefault(paragraph[question], []).append(judged.questions[question])

    def elsewhere(question: str) -> str:
        while True:
            other = chance.choice(questions)
            if titles[paragraph[other]] != titles[paragraph[question]]:
                return judged.questions[other]

    new = [
        (elsewhere(question), judged.questions[question], paragraph[question])
        for question in chance.sample(questions, min(most, len(questions)))
    ]
    following = [
        (first, pronoun, place)
        for place, asked in by_paragraph.items()
        for first, second in pairwise(asked)
        if (pronoun := _without_names(second, titles[place])) != second
    ]
    following = chance.sample(following, min(most, len(following)))
    words = [
        (first, f"And {' '.join(second.split()[-3:])}", place) for first, second, place in following
    ]
    return {"new subject": new, "follow-up": following, "last words": words}


def _titles() -> Iterator[tuple[str, str]]:
    from assistant.retrieval.evaluation import read_jsonl

    for row in read_jsonl(shared_retrieval() / "xquad-en" / "corpus.jsonl"):
        yield row["_id"], row["title"]


def _without_names(question: str, title: str) -> str:
    """``question`` with "it" for what the article is about."""
    words = [word for word in re.split(r"[_\W]+", title) if len(word) > 2]
    names = "|".join(re.escape(word) for word in words if word.lower() not in _NO_NAMES)
    if not names:
        return question
    pattern = rf"\b(?:the )?(?:{names})(?:'s)?(?: (?:{names}))*\b"
    return re.sub(pattern, "it", question, flags=re.IGNORECASE)


if __name__ == "__main__":
    main()

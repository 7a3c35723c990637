"""A compound question becomes the questions in it: "What is X, and who approves Y?".

One vector for two subjects lies between them and is near neither. Only what stands alone is split
off: a part that points back ("how do I renew it?") is found by the whole question, which is always
searched for too.
"""

from __future__ import annotations

import re
from typing import Final

MOST_PARTS: Final = 3
_MOST_CHARACTERS: Final = 400
_LEAST_WORDS: Final = 3
_LEAST_UNSPACED: Final = 5

# Words that begin a question or a request, by language.
_OPENERS: Final = (
    "what which who whom whose when where why how list name describe explain compare"
    " was wer wen wem wessen wann wo woher wohin warum weshalb wie wieviel welche welcher welches"
    " welchem welchen nenne erkläre"
    " que quel quelle quels quelles qui quand où pourquoi comment combien est-ce"
    " qué cuál cuáles quién quiénes cuándo dónde cómo cuánto cuánta cuántos cuántas"
    " cosa quale quali chi quando dove perché come quanto"
)
# These do so only before a subject: in "is made and is sold" they do not.
_VERBS: Final = (
    r"(?:is|are|do|does|did|can|could|should|will|may|must|ist|sind|kann|können|darf|dürfen|muss"
    r"|müssen|soll|gibt)\s+(?:i|we|you|my|our|the|an?|there|ich|wir|man|mein|meine|der|die|das|eine?)"
)
_ANDS: Final = r"and(?:\s+also)?|as\s+well\s+as|und(?:\s+auch)?|sowie|et|y|e|ed"
_BORDER: Final = re.compile(
    rf"[?？؟;；]+\s*(?:(?:{_ANDS})\b)?"
    rf"|,?\s+(?:{_ANDS})\s+(?=(?:{'|'.join(_OPENERS.split())}|{_VERBS})\b)",
    re.IGNORECASE,
)
# What points at something that was said before.
_POINTING: Final = re.compile(
    r"\b(?:it|its|they|them|their|theirs|this|that|these|those|he|she|him|his|her|there|one|ones"
    r"|es|er|sie|ihn|ihm|ihr|ihre|ihrer|ihren|deren|dessen|diese|dieser|dieses|dies|davon|dafür|dort"
    r"|il|elle|ils|elles|lui|leur|leurs|cela|ça|ello|ellos|ellas|su|sus|eso|esto)\b",
    re.IGNORECASE,
)
_POINTING_ELSEWHERE: Final = re.compile("[它他她其这那此该]")
_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def parts_of(question: str) -> tuple[str, ...]:
    """Up to ``MOST_PARTS`` questions that stand alone; empty when there are not two subjects.

    Linear in the length of the question; long texts are left whole.
    """
    if len(question) > _MOST_CHARACTERS:
        return ()
    pieces = [piece.strip(" ,.\n\t") for piece in _BORDER.split(question)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < 2:
        return ()
    alone = [
        piece for at, piece in enumerate(pieces) if _is_whole(piece) and not (at and _points(piece))
    ]
    return tuple(dict.fromkeys(alone))[:MOST_PARTS] if alone else ()


def _is_whole(piece: str) -> bool:
    return (
        len(_WORD.findall(piece)) >= _LEAST_WORDS
        or len(_UNSPACED.findall(piece)) >= _LEAST_UNSPACED
    )


def _points(piece: str) -> bool:
    return bool(_POINTING.search(piece) or _POINTING_ELSEWHERE.search(piece))

"""The index. ``search()`` is its one door for questions, ``index`` its one door for ingestion."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assistant.retrieval.arms import Mode
    from assistant.retrieval.passages import Passage
    from assistant.retrieval.searching import SearchResult, asearch, search

__all__ = ["Mode", "Passage", "SearchResult", "asearch", "search"]


def __getattr__(name: str) -> object:
    """Django imports this package before models can be: the door opens on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from assistant.retrieval import searching

    return getattr(searching, name)

"""From what a model writes to what readers are shown: harmless links, known markers, quotes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from assistant.chat.citing import Marker, MarkerParser, bind
from assistant.chat.events import CitationFound, Delta, Event
from assistant.chat.links import LinkGuard, addresses_of
from assistant.chat.turn import Turn
from assistant.retrieval import Passage


class Writer:
    """Notes text and citations in ``turn`` as they are shown."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._parser = MarkerParser(frozenset(range(1, len(turn.passages) + 1)))
        self._guard = LinkGuard(addresses_of(_linkable(turn.passages)))

    def feed(self, text: str) -> Iterator[Event]:
        """The events for the next piece of what the model writes."""
        yield from self._shown(self._parser.feed(self._guard.feed(text)))

    def finish(self) -> Iterator[Event]:
        """The events for what was held back."""
        yield from self._shown((*self._parser.feed(self._guard.finish()), *self._parser.finish()))

    def _shown(self, pieces: Iterable[str | Marker]) -> Iterator[Event]:
        """Markers are text too: ``[n]``."""
        said = ""
        for piece in pieces:
            said += piece if isinstance(piece, str) else f"[{piece.number}]"
            if isinstance(piece, Marker) and (citation := self._citation(piece)):
                self._turn.text += said
                yield Delta(said)
                said = ""
                self._turn.citations.append(citation)
                yield citation
        if said:
            self._turn.text += said
            yield Delta(said)

    def _citation(self, marker: Marker) -> CitationFound | None:
        passage = self._turn.passages[marker.number - 1]
        about = " ".join((passage.title, *passage.locator.heading_path))
        quote = bind(marker.claim, passage.text, about=about)
        if quote is None:
            return None
        return CitationFound(
            number=marker.number,
            quote=quote.text,
            verified=quote.verified,
            locator=passage.locate(quote.span.start, quote.span.end).to_json(),
            document_id=str(passage.document_id),
            version_id=str(passage.version_id),
        )


def _linkable(passages: Sequence[Passage]) -> Iterator[str]:
    """Where addresses may be taken from: what was read, and where it came from."""
    for passage in passages:
        yield passage.text
        yield passage.source_url

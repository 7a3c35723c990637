from __future__ import annotations

import pytest

from inference.sse import MAX_LINE_BYTES, SSELineTooLongError, SSEParser

STREAM = (
    ": hello\r\n\r\ndata: ä\r\ndata: 東\r\n\r\nevent: x\rdata:no space\r\rid: 1\n\ndata: last"
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_events_survive_any_cut(size: int) -> None:
    parser = SSEParser()
    events: list[str] = []
    for at in range(0, len(STREAM), size):
        events += parser.feed(STREAM[at : at + size])
    assert [*events, *parser.close()] == ["ä\n東", "no space", "last"]


def test_a_line_without_end_is_refused() -> None:
    parser = SSEParser()
    with pytest.raises(SSELineTooLongError):
        for _ in range(MAX_LINE_BYTES // 65536 + 1):
            list(parser.feed(b"x" * 65536))

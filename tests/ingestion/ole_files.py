"""Small OLE containers for tests: enough of [MS-CFB] for readers to accept."""

from __future__ import annotations

import struct

_SECTOR = 512
_FREE, _END, _FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
_CUTOFF = 4096  # smaller streams would need a second allocation table


def ole(streams: dict[str, bytes]) -> bytes:
    """``streams`` by path ("storage/name"); short ones are padded with NUL to 4,096 bytes."""
    entries: list[list[object]] = [["Root Entry", 5, []]]
    places = {"": 0}
    for path, data in streams.items():
        parent = ""
        *folders, name = path.split("/")
        for folder in folders:
            inner = f"{parent}/{folder}"
            if inner not in places:
                places[inner] = len(entries)
                entries.append([folder, 1, []])
                entries[places[parent]][2].append(places[inner])  # type: ignore[attr-defined]
            parent = inner
        entries[places[parent]][2].append(len(entries))  # type: ignore[attr-defined]
        entries.append([name, 2, data.ljust(_CUTOFF, b"\0")])
    return _assembled(entries)


def _assembled(entries: list[list[object]]) -> bytes:
    directory_sectors = -(-len(entries) * 128 // _SECTOR)
    fat: list[int] = [*range(1, directory_sectors), _END]
    body = b""
    starts: dict[int, int] = {}
    for index, (_, kind, content) in enumerate(entries):
        if kind == 2:
            assert isinstance(content, bytes)
            starts[index] = len(fat)
            count = -(-len(content) // _SECTOR)
            fat += [*range(len(fat) + 1, len(fat) + count), _END]
            body += content.ljust(count * _SECTOR, b"\0")
    fat_sectors = 1
    while (len(fat) + fat_sectors) * 4 > fat_sectors * _SECTOR:
        fat_sectors += 1
    first_fat = len(fat)
    fat += [_FAT] * fat_sectors
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(fat_sectors * _SECTOR, b"\xff")
    difat = [*range(first_fat, first_fat + fat_sectors)]
    header = struct.pack(
        "<8s16sHHHHH6xIIIIIIIII",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"", 0x3E, 3, 0xFFFE, 9, 6),
        *(0, fat_sectors, 0, 0, _CUTOFF, _END, 0, _END, 0),
    )
    header += struct.pack("<109I", *difat, *[_FREE] * (109 - len(difat)))
    directory = b"".join(_entry(entries, index, starts) for index in range(len(entries)))
    return header + directory.ljust(directory_sectors * _SECTOR, b"\0") + body + table


def _entry(entries: list[list[object]], index: int, starts: dict[int, int]) -> bytes:
    name, kind, content = entries[index]
    raw = f"{name}\0".encode("utf-16-le")
    size = len(content) if isinstance(content, bytes) else 0
    child = content[0] if isinstance(content, list) and content else _FREE
    return struct.pack(
        "<64sHBBIII16sI8s8sIII",
        *(raw, len(raw), kind, 1, _FREE, _sibling(entries, index), child),
        *(b"", 0, b"", b"", starts.get(index, _END if kind == 2 else 0), size, 0),
    )


def _sibling(entries: list[list[object]], index: int) -> int:
    """Each entry's next one in its folder stands to its right."""
    for _, kind, content in entries:
        if kind != 2 and isinstance(content, list) and index in content[:-1]:
            following: int = content[content.index(index) + 1]
            return following
    return _FREE

"""Read the statement of origin of an mp4, apart from the code that writes it."""

import json
import struct
from typing import Any
from xml.sax.saxutils import unescape

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_OPEN, _CLOSE = '<rdf:li xml:lang="x-default">', "</rdf:li>"


def read_provenance(mp4: bytes) -> dict[str, Any] | None:
    """Return the facts that the product wrote, or None when the file has no statement."""
    position = 0
    while position + 8 <= len(mp4):
        size, kind = struct.unpack_from(">I4s", mp4, position)
        header = 8
        if size == 1 and position + 16 <= len(mp4):
            (size,) = struct.unpack_from(">Q", mp4, position + 8)
            header = 16
        if size == 0:  # a box without a size reaches to the end of the file
            size = len(mp4) - position
        body = mp4[position + header : position + size]
        if kind == b"uuid" and body[:16] == _XMP_UUID:
            text = body[16:].decode()
            _, _, rest = text.partition(_OPEN)
            facts: dict[str, Any] = json.loads(unescape(rest.partition(_CLOSE)[0]))
            return facts
        if size < header:
            return None
        position += size
    return None

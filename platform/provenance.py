"""Write into an mp4 that it was made by a model, by which one and how.

The statement is an XMP packet in the `uuid` box that Adobe's specification reserves for it, put at
the file's end, where no offset changes. Its DigitalSourceType is IPTC's term for generated media,
which common tools show; the description holds our own facts as JSON.

References:
    Adobe, XMP specification part 3 (storage in MPEG-4); IPTC NewsCodes, digital source type.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from animaray.platform.errors import MediaError
from animaray.platform.json_text import json_text

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_OPEN, _CLOSE = '<rdf:li xml:lang="x-default">', "</rdf:li>"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool="{tool}"
    Iptc4xmpExt:DigitalSourceType="{source}">
   <dc:description><rdf:Alt>{open}{facts}{close}</rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def add_provenance(mp4: bytes, tool: str, facts: Mapping[str, Any]) -> bytes:
    """Return the mp4 with a statement of its origin; pictures and index stay byte for byte.

    Args:
        mp4: A complete file.
        tool: Name and version of the software.
        facts: JSON values: engine, model, seed, options, digests of the inputs ... Bytes that are
            no mp4 file raise MediaError.
    """
    return mp4 + provenance_box(mp4[:8], tool, facts)


def append_provenance(path: Path, tool: str, facts: Mapping[str, Any]) -> None:
    """Add the statement to a file, which need not fit into memory; see `add_provenance`.

    Args:
        path: A complete mp4 of our own.
        tool: Name and version of the software.
        facts: JSON values.
    """
    with path.open("r+b") as file:
        box = provenance_box(file.read(8), tool, facts)
        file.seek(0, os.SEEK_END)
        file.write(box)


def provenance_box(head: bytes, tool: str, facts: Mapping[str, Any]) -> bytes:
    """Return the statement as the bytes that belong at an mp4's end.

    Args:
        head: The file's first eight bytes.
        tool: Name and version of the software.
        facts: JSON values.

    Raises:
        MediaError: They are not those of an mp4 file.
    """
    if head[4:8] != b"ftyp":
        raise MediaError("Expected an mp4 file to mark, got other bytes.", reason="not_a_video")
    packet = _PACKET.format(
        tool=escape(tool, {'"': "&quot;"}),
        source=_SOURCE_TYPE,
        open=_OPEN,
        facts=escape(json_text(facts, sort_keys=True)),
        close=_CLOSE,
    ).encode()
    return struct.pack(">I4s", 24 + len(packet), b"uuid") + _XMP_UUID + packet

"""Decode a clip once for all who look at some of its frames."""

from collections.abc import Sequence

from animaray.platform.media.video import DecodedVideo, FrameSelection, decode_together


class ClipSamples:
    """Frames of one of our own clips, decoded at the first call and handed out once each."""

    def __init__(self, media_path: str, together: Sequence[FrameSelection] = ()) -> None:
        """Say what will be asked for.

        Args:
            media_path: The clip.
            together: Selections that are decoded in one pass; another one takes a pass of its own.
        """
        self._path = media_path
        self._waiting = tuple(together)
        self._ready: dict[FrameSelection, DecodedVideo] = {}

    def take(self, selection: FrameSelection) -> DecodedVideo:
        """Return frames, and keep none of them.

        Raises:
            MediaError: The clip does not decode.
        """
        if selection in self._waiting:
            wanted, self._waiting = self._waiting, ()
            self._ready = dict(zip(wanted, decode_together(self._path, wanted), strict=True))
        elif selection not in self._ready:
            return decode_together(self._path, [selection])[0]
        return self._ready.pop(selection)

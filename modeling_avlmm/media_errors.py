"""Errors and warnings of the modules that read media."""

from collections.abc import Iterable

DAMAGED = "It is truncated, damaged or not media: re-encode it or leave it out"  # the usual advice
MOST_PLACES = 20  # moments that a warning lists


class MediaError(ValueError):
    """An error of one media input.

    Args:
        name (`str`): The caller's name for the input.
        reason (`str`): The fault.
        advice (`str`): The remedy.
    """

    def __init__(self, name: str, reason: str = "", advice: str = ""):
        super().__init__(name, reason, advice)
        self.name, self.reason, self.advice = name, reason, advice

    def __str__(self) -> str:
        if not self.reason:  # a DataLoader raises a worker's error again with the message alone
            return self.name
        return f"{self.name}: {self.reason}." + (f" {self.advice}." if self.advice else "")

    def __reduce__(self):
        # OSError rewrites its arguments, so without this the subclasses couldn't be pickled
        return type(self), (self.name, self.reason, self.advice)


class MediaNotFoundError(MediaError, FileNotFoundError):
    """The file does not exist, or the link leads to none."""


class MediaTooLargeError(MediaError):
    """The input exceeds a limit, in bytes to download or in bytes of decoded frames."""


class UnreadableMediaError(MediaError):
    """The input is empty, not media, without frames and sound, or too damaged to use."""


class DecoderCrashedError(MediaError):
    """The process that decoded the input ended: FFmpeg crashed, or the system ended it for its memory."""


class DecoderStalledError(MediaError):
    """The input took longer to decode than the limit, and decoding was stopped."""


class ReaderStartError(OSError):
    """No process could be started that decodes files: no file is to blame, and none can be read."""


class NothingToScoreError(UnreadableMediaError):
    """The input was read, but there is nothing in it that a detector takes."""


class UnsupportedSourceError(MediaError):
    """The input has a type, a link scheme or an array format that is not supported."""


class PlacedWarning(str):
    """A warning about certain moments of a file; [`merged_warnings`] joins those of several windows.

    Args:
        template (`str`): The text, with `{}` for the moments.
        places (iterable of `str`): The moments in seconds, such as "0.52" or "1.00-1.50".
    """

    def __new__(cls, template: str, places: Iterable[str]):
        places = tuple(places)
        more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
        self = super().__new__(cls, template.format(", ".join(places[:MOST_PLACES]) + more))
        self.template, self.places = template, places
        return self

    def __reduce__(self):
        return type(self), (self.template, self.places)


def tells_damage(warning: str) -> bool:
    """Return whether a warning says that something stands in for a part of the picture or the sound that cannot be decoded."""
    return isinstance(warning, PlacedWarning) and "cannot be decoded" in warning.template


def merged_warnings(warnings: Iterable[str]) -> list[str]:
    """Return each warning once, in order of appearance, with the moments of equal warnings joined."""
    places: dict[str, dict[str, None]] = {}
    for warning in warnings:
        if isinstance(warning, PlacedWarning):
            places.setdefault(warning.template, {}).update(dict.fromkeys(warning.places))
        else:
            places.setdefault(str(warning), {})
    return [PlacedWarning(text, moments) if moments else text for text, moments in places.items()]

"""What can be wrong with a media input, as types: shared by the modules that read media."""

DAMAGED = "It is truncated, damaged or not media: re-encode it or leave it out"  # the advice for most of it


class MediaError(ValueError):
    """Something is wrong with one media input.

    Args:
        name (`str`): The media, as the caller knows it.
        reason (`str`): What is wrong.
        advice (`str`): What to do about it.
    """

    def __init__(self, name: str, reason: str = "", advice: str = ""):
        super().__init__(name, reason, advice)
        self.name, self.reason, self.advice = name, reason, advice

    def __str__(self) -> str:
        if not self.reason:  # a DataLoader raises a worker's error again from one text
            return self.name
        return f"{self.name}: {self.reason}." + (f" {self.advice}." if self.advice else "")

    def __reduce__(self):
        # OSError rewrites its arguments, so the subclasses need this to travel between processes
        return type(self), (self.name, self.reason, self.advice)


class MediaNotFoundError(MediaError, FileNotFoundError):
    """There is no such file, or the link does not answer with one."""


class MediaTooLargeError(MediaError):
    """More bytes than allowed: to download, or to hold as decoded frames."""


class UnreadableMediaError(MediaError):
    """Empty, not media, without frames and sound, or damaged beyond use."""


class UnsupportedSourceError(MediaError):
    """An input of a kind that is not read: wrong type, wrong scheme, wrong array."""

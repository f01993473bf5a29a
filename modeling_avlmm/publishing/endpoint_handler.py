"""The handler of an Inference Endpoint: a link or a file in a JSON request in, a verdict with a timeline out.

`publish --endpoint` copies this file into a detector's folder as `handler.py`. Hugging Face's inference toolkit finds it there
and calls `EndpointHandler(path)`. It needs the other files of the folder and the packages in `requirements.txt`, nothing else.

    curl $ENDPOINT -H "Authorization: Bearer $HF_TOKEN" -H "Content-Type: application/json" \
        -d '{"inputs": "https://example.org/clip.mp4", "parameters": {"window_seconds": 4}}'

`inputs` is an http or https link, or the file itself in base64. The answer is the pipeline's result. A request or a file that
cannot be judged gets an answer too: its `error` has a `type` and a `message`, and its `label` is null.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import math
import multiprocessing
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import torch
from transformers import pipeline

TASK = "av-deepfake-detection"
MAX_BYTES = 200_000_000
"""Largest file; our own choice, as are the other limits."""
MAX_SECONDS = 600.0
"""Longest recording."""
LINK_SECONDS = 30.0
"""Longest wait for the answer to a link."""
DECODE_SECONDS = 120.0
"""Longest time in which the whole file must be decoded."""
LEAST_SECONDS = 0.5
"""Shortest window, and shortest time from one window to the next."""
MOST_CHARACTERS = 300
"""Longest message about a request."""


class RequestError(ValueError):
    """A request that is not one; the message says what to send."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _seconds(value: Any) -> bool:
    return _number(value) and value >= LEAST_SECONDS


PARAMETERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "threshold": (_number, "a number from 0 to 1"),
    "temperature": (_number, "a number above 0"),
    "aggregate": (lambda value: isinstance(value, str), '"mean" or "max"'),
    "abstain": (lambda value: isinstance(value, bool), "true or false"),
    "window_seconds": (_seconds, f"a number of at least {LEAST_SECONDS:g}"),
    "hop_seconds": (_seconds, f"a number of at least {LEAST_SECONDS:g}"),
    "questions": (
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
        'a list of "overall", "video" and "audio"',
    ),
    "faces": (lambda value: isinstance(value, str), '"off", "largest" or "all"'),
}
"""The pipeline's options that a request may set, each with its check and its values in words."""


class EndpointHandler:
    """
    The detector of a folder, behind a door for strangers.

    A link is followed to public addresses only, redirects included, up to `MAX_BYTES`. No string is ever opened as a file of
    the server. Each file is decoded once in a process of its own before it is judged, so that one which crashes or stalls
    FFmpeg costs its own request only.

    Args:
        path (`str`): The folder that holds this file.
        private_links (`bool`, *optional*, defaults to `False`): Follow links into private networks, too.

    Example:

    ```python
    >>> handler = EndpointHandler("/repository")
    >>> handler({"inputs": "https://example.org/clip.mp4"})
    {'label': 'fake', 'score': 0.97, 'video_score': 0.99, 'audio_score': 0.12, 'windows': [...], 'error': None, ...}
    ```
    """

    def __init__(self, path: str = "", private_links: bool = False):
        self.detector = pipeline(TASK, model=str(path), trust_remote_code=True)
        self.private_links = private_links
        # The detector's own modules: in an endpoint, those that `transformers` loaded from the folder.
        package = type(self.detector.processor).__module__.rpartition(".")[0]
        self._media, self._links, self._sources, self._errors, self._finder = (
            importlib.import_module(f"{package}.{name}")
            for name in ("media", "media_links", "media_sources", "media_errors", "face_finder")
        )
        self._lock = (
            threading.Lock()
        )  # one request at a time: nothing else decodes here while a process is split off

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Judge the recording of a request.

        Args:
            data (`dict`):
                `inputs` is a link or base64, also as a `data:` address; bytes are taken, too. `parameters`, *optional*, are
                the pipeline's `threshold`, `temperature`, `aggregate`, `abstain`, `window_seconds`, `hop_seconds`, `questions`
                and `faces`.

        Returns:
            `dict`: the pipeline's result. With an `error`, the scores are null or hold for what came before it.
        """
        try:
            options = self._options(data)
            content, name = self._content(data["inputs"])
            with self._lock:
                self._rehearse(content, name)
                result = self.detector({"bytes": content, "path": name}, on_error="return", **options)
        except (RequestError, self._errors.MediaError, self._finder.FaceFinderError) as error:
            return {
                "label": None,
                "score": None,
                "video_score": None,
                "audio_score": None,
                "error": {"type": type(error).__name__, "message": _shortened(str(error))},
            }
        return json.loads(json.dumps(result))  # plain values, whichever serialiser comes next

    # -- the request ---------------------------------------------------------------------------------------------------

    def _options(self, data: Any) -> dict[str, Any]:
        """Return the pipeline's options of a request.

        Raises:
            RequestError: For a request without `inputs`, and for a parameter that is unknown or has no such value.
        """
        if not isinstance(data, dict) or data.get("inputs") is None:
            raise RequestError('the request has no "inputs": give a link or a file in base64')
        if unknown := sorted(set(map(str, data)) - {"inputs", "parameters"}):
            raise RequestError(f'unknown entry {unknown[0]!r}: a request has "inputs" and "parameters"')
        given = data.get("parameters") or {}
        if not isinstance(given, dict):
            raise RequestError(f'"parameters" is a {type(given).__name__}: give an object')
        for name, value in given.items():
            if name not in PARAMETERS:
                raise RequestError(f"unknown parameter {name!r}: known are {', '.join(PARAMETERS)}")
            is_right, told = PARAMETERS[name]
            if value is not None and not is_right(value):
                raise RequestError(f"{name} is {value!r}: give {told}")
        options = {name: value for name, value in given.items() if value is not None}
        if "questions" in options:
            options["questions"] = tuple(options["questions"])
        longest = self.detector.processor.max_seconds
        if options.get("window_seconds", 0) > longest:
            raise RequestError(f"window_seconds is {options['window_seconds']:g}: give at most {longest:g}")
        try:
            self.detector._sanitize_parameters(**options)
        except ValueError as error:
            raise RequestError(str(error)) from error
        return options

    def _content(self, inputs: Any) -> tuple[bytes, str]:
        """Return the bytes of `inputs` and a name for messages.

        Raises:
            RequestError: If it is neither a link nor base64.
            MediaError: If the link cannot or may not be followed, or the file is too large.
        """
        if isinstance(inputs, bytes | bytearray):
            return self._within_limit(bytes(inputs), "<bytes>"), "<bytes>"
        if not isinstance(inputs, str):
            raise RequestError(f'"inputs" is a {type(inputs).__name__}: give a link or a file in base64')
        if self._links.is_link(inputs):
            return self._download(inputs.strip())
        text = inputs.partition(",")[2] if inputs.startswith("data:") else inputs
        text, name = "".join(text.split()), "<base64>"
        if len(text) * 3 // 4 > MAX_BYTES + 2:
            raise self._too_large(name)
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(
                f'"inputs" is neither an http or https link nor base64 ({error}); files of the server are not opened'
            ) from error
        return self._within_limit(content, name), name

    def _download(self, link: str) -> tuple[bytes, str]:
        name = self._sources.name_of(link)
        link = self._sources.checked(link, name)
        with tempfile.NamedTemporaryFile(prefix="clip-") as file:
            self._sources.store(link, name, file, MAX_BYTES, LINK_SECONDS, private=self.private_links)
            file.seek(0)
            return file.read(), name

    def _within_limit(self, content: bytes, name: str) -> bytes:
        if len(content) > MAX_BYTES:
            raise self._too_large(name)
        return content

    def _too_large(self, name: str) -> Exception:
        return self._errors.MediaTooLargeError(name, f"is larger than {MAX_BYTES} bytes", "Cut it")

    # -- the file ------------------------------------------------------------------------------------------------------

    def _rehearse(self, content: bytes, name: str) -> None:
        """
        Decode a file once, as the pipeline will, in a process that may crash or stall.

        Other faults are not looked for here: the pipeline meets them again and says what they are.

        Raises:
            MediaError: If the recording is too long, or its process crashed or stalled.
        """
        if not sys.platform.startswith("linux"):  # processes are not split off elsewhere; endpoints are Linux
            return
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()
        process = context.Process(target=self._decode, args=(content, name, told), daemon=True)
        process.start()
        process.join(DECODE_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            reason = f"took more than {DECODE_SECONDS:g} s to decode"
            raise self._errors.DecoderStalledError(name, reason, "Cut it, or encode it again")
        if process.exitcode < 0:
            reason = f"ended the process that decoded it (signal {-process.exitcode})"
            raise self._errors.DecoderCrashedError(name, reason, "Encode it again")
        if not told.empty() and (seconds := told.get()) > MAX_SECONDS:
            reason = f"lasts {seconds:.0f} s, above the limit of {MAX_SECONDS:g} s"
            raise self._errors.MediaTooLargeError(name, reason, "Cut out the part in question")

    def _decode(self, content: bytes, name: str, told: Any) -> None:
        torch.set_num_threads(1)  # the threads of the parent do not exist here
        processor = self.detector.processor
        try:
            with self._media.MediaReader(content, name=name) as reader:
                told.put(reader.info.duration)
                if reader.info.duration <= MAX_SECONDS:
                    for start, end in reader.windows(processor.max_seconds):
                        reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames)
        except Exception:  # the pipeline meets it again and names it
            return


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."

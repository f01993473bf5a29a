"""The sound of a media input: pieces of 16 kHz samples, each with the time of its first sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .media_errors import DAMAGED, PlacedWarning, UnreadableMediaError
from .media_tracks import (
    JUMP_AHEAD,
    SAMPLING_RATE,
    Clock,
    decoded_packets,
    explain,
    known,
    survey,
    timed,
    torchcodec_decoders,
)

JOIN = 0.02  # seconds by which a piece of sound may miss the end of the one before and still continue it
WRONG_END = (
    0.5  # seconds by which header and sound may differ before all of the sound is decoded; our own choice
)
CANCELLED = (
    0.01  # energy of the mean of the channels by that of a channel, below which they cancel; our own choice
)

Pieces = list[tuple[torch.Tensor, float]]


def resample(waveform: torch.Tensor, orig_freq: int, new_freq: int, rolloff: float = 0.95) -> torch.Tensor:
    """Resample a 1-D waveform with a Kaiser-windowed sinc of 32 zero crossings (Smith, *Digital Audio Resampling*, 1984).

    The cutoff is `rolloff` times the lower of the two Nyquist frequencies.
    """
    if orig_freq == new_freq or waveform.numel() == 0:
        return waveform
    divisor = math.gcd(orig_freq, new_freq)
    step, phases = orig_freq // divisor, new_freq // divisor
    cutoff = rolloff * min(1.0, new_freq / orig_freq)
    half = math.ceil(16 / cutoff)
    # one filter for each phase: at most `new_freq` filters for any pair of rates
    phase = torch.arange(phases, dtype=torch.float64)[:, None] / phases
    position = torch.arange(-half + 1, half + 1, dtype=torch.float64)[None] - phase
    window = torch.special.i0(9.0 * (1 - (position / half) ** 2).clamp(min=0).sqrt())
    filters = torch.sinc(position * cutoff) * window
    filters = (filters / filters.sum(1, keepdim=True)).float()
    taps = torch.nn.functional.pad(waveform.float(), (half - 1, half + 1)).unfold(0, 2 * half, 1)
    out = torch.empty(math.ceil(waveform.numel() * new_freq / orig_freq))
    for part in torch.arange(len(out)).split(16384):
        tick = part * step
        out[part] = (taps[tick // phases] * filters[tick % phases]).sum(1)
    return out


def mono(samples: torch.Tensor, notes: list[str]) -> torch.Tensor:
    """Return the mean of the channels of sound of shape `(channels, samples)`; the loudest one where they cancel."""
    mean = samples.mean(0)
    if samples.shape[0] > 1 and samples.shape[1]:
        energy = samples.double().square().mean(1)
        if float(mean.double().square().mean()) < CANCELLED * float(energy.mean()):
            loudest = int(energy.argmax())
            notes.append(
                f"the sound's channels cancel each other: channel {loudest + 1} stands for their mean"
            )
            return samples[loudest]
    return mean


def placed(out: torch.Tensor, samples: torch.Tensor, at: float) -> None:
    """Write `samples` into `out` at `at` seconds, without those that fall outside."""
    first = round(at * SAMPLING_RATE)
    samples = samples[max(0, -first) :]
    first = max(0, first)
    samples = samples[: max(0, len(out) - first)]
    out[first : first + len(samples)] = samples


class FileAudio:
    """
    The audio track of a file, decoded by torchcodec.

    Torchcodec seeks, unless what it finds is not what the header promises: then the track is decoded from front to back.

    Args:
        name (`str`): Name of the media in messages.
        handle: Source that torchcodec opens.
        stream (`int`, *optional*): Index of the track. Defaults to the best one.
        demuxer (`torchcodec.decoders.Demuxer`, *optional*): Demuxer of the same file, at its start, with the sound selected.
        seekable (`bool`, *optional*, defaults to `True`): Whether to seek at all.

    Raises:
        RuntimeError, ValueError: If nothing of it can be decoded.
    """

    def __init__(
        self,
        name: str,
        handle: Any,
        stream: int | None = None,
        demuxer: Any = None,
        seekable: bool = True,
    ):
        self.name, self.handle, self.stream = name, handle, stream
        self.shifts: tuple[float, ...] = ()
        self.runs: list[tuple[float, float]] = []
        self._ordered: _SoundInOrder | None = None
        self._seeks = True
        self._renew()
        meta = self.decoder.metadata
        self.codec, self.sampling_rate = meta.codec, meta.sample_rate
        self.begin, self.end = meta.begin_stream_seconds or 0.0, -math.inf  # until _find_end has found it
        claimed_end = self.begin + (meta.duration_seconds or 0.0)
        if seekable and known(self.begin):
            times = first_times(demuxer or torchcodec_decoders().Demuxer(handle, streams=self._selector))
            seekable = all(map(known, times))
            # the header of an Ogg file says 0 although the first sample comes some ms later
            if times and self.begin < times[0] < self.begin + 0.1:
                self.begin = times[0]
        if seekable and known(self.begin):
            self.end = self._find_end(claimed_end)
        if abs(self.end - claimed_end) > WRONG_END or not known(self.begin):
            self.survey()

    @property
    def _selector(self) -> int | str:
        return "audio" if self.stream is None else self.stream

    def _renew(self) -> None:
        # not num_channels=1: FFmpeg's downmix of floats adds channels at 0.71 each instead of averaging
        self.decoder = torchcodec_decoders().AudioDecoder(
            self.handle, stream_index=self.stream, sample_rate=SAMPLING_RATE
        )
        self.read_until = -math.inf

    def survey(self) -> None:
        """Decode the whole track once to find its true begin and end, and seek no more."""
        found = survey(self.handle, self._selector, self._clock())
        self._seeks = False
        if found is None:
            self.begin = self.end = self.begin if known(self.begin) else 0.0
        else:
            self.begin, self.end, self.runs = found.begin, found.end, found.runs

    def _clock(self) -> Clock:
        return Clock(1 / SAMPLING_RATE, shifts=list(self.shifts), ahead=JUMP_AHEAD)

    def set_shifts(self, shifts: tuple[float, ...]) -> None:
        """Move each joined recording after the first by its number of seconds."""
        self.shifts, self._ordered = shifts, None
        self.end = self.runs[-1][1] + shifts[-1]

    def _in_order(self, a: float, b: float) -> tuple[Pieces, bool]:
        """Return the sound in [a, b) in pieces, and whether some of it is damaged, without seeking."""
        if self._ordered is None:
            self._ordered = _SoundInOrder(lambda: timed(self.handle, self._selector, self._clock()))
        return self._ordered.read(a, b)

    def _pieces(self, a: float, b: float) -> tuple[Pieces, bool]:
        """Return the sound in [a, b) in pieces, and whether some of it is damaged."""
        if not self._seeks:
            return self._in_order(a, b)
        if a < self.read_until:
            self._renew()  # torchcodec 0.17 finds nothing on its way back to the start of an edited mp4
        self.read_until = b
        try:
            got = self.decoder.get_samples_played_in_range(a, b)
        except RuntimeError as error:
            self.read_until = math.inf
            if "No audio frames were decoded" in explain(error):
                return [], False
            return self._in_order(a, b)
        # torchcodec joins samples across a gap in time: too few samples are decoded again, packet by packet
        expected = min(b, self.end) - max(a, got.pts_seconds)
        if got.data.shape[1] / SAMPLING_RATE > expected - JOIN:
            return [(got.data, got.pts_seconds)], False
        return self._in_order(a, b)

    def _find_end(self, claimed: float) -> float:
        """Return the end of the decodable sound: headers overstate it in truncated files and often in others."""
        back, at = 1.0, max(self.begin, claimed - 1.0)
        while not (pieces := self._pieces(at, at + 1.0)[0]):
            if at <= self.begin:
                return self.begin
            back *= 2
            at = max(self.begin, claimed - back)
        while pieces:
            samples, begin = pieces[-1]
            end, at = begin + samples.shape[1] / SAMPLING_RATE, at + 1.0
            pieces = self._pieces(at, at + 1.0)[0] if end > at - 0.01 else []
        return end

    def read(self, a: float, b: float, notes: list[str]) -> Pieces:
        """Return the sound in [a, b) as pieces of mono 16 kHz samples, each with its time in seconds.

        Raises:
            UnreadableMediaError: If more than half of it cannot be decoded.
        """
        a, b = max(a, self.begin), min(b, self.end)
        if b - a < 1 / SAMPLING_RATE:
            return []
        pieces, damaged = self._pieces(a, b)
        lost = _lost(pieces, a, b)
        if lost and self._seeks:  # a seek that failed, or damage
            pieces, damaged = self._in_order(a, b)
            lost = _lost(pieces, a, b)
        if damaged and sum(y - x for x, y in lost) > (b - a) / 2:
            reason = f"more than half of the audio between {a:.2f} and {b:.2f} s cannot be decoded"
            raise UnreadableMediaError(self.name, reason, DAMAGED)
        if lost:
            what = "cannot be decoded" if damaged else "is missing"
            spans = (f"{x - self.begin:.2f}-{y - self.begin:.2f}" for x, y in lost)
            notes.append(PlacedWarning(f"audio at {{}} s of its track {what}: silence there", spans))
        return _mixed(pieces, notes)


def _lost(pieces: Pieces, a: float, b: float) -> list[tuple[float, float]]:
    """Return the parts of [a, b) that no piece covers, without those below 20 ms."""
    edges = [a, *(t for x, at in pieces for t in (at, at + x.shape[1] / SAMPLING_RATE)), b]
    return [(x, y) for x, y in zip(edges[::2], edges[1::2], strict=True) if y - x > JOIN]


def _mixed(pieces: Pieces, notes: list[str]) -> Pieces:
    """Return the pieces in mono, all mixed in the same way."""
    if len({x.shape[0] for x, _ in pieces}) != 1:
        return [(mono(x, notes), at) for x, at in pieces]
    whole = mono(torch.cat([x for x, _ in pieces], 1), notes)
    parts = whole.split([x.shape[1] for x, _ in pieces])
    return [(part, at) for part, (_, at) in zip(parts, pieces, strict=True)]


class _SoundInOrder:
    """
    The sound of a track decoded from front to back; to go back it begins again.

    Args:
        frames (`Callable`): Function that returns the frames of the track from its beginning, as [`timed`] does.
    """

    def __init__(self, frames: Callable[[], Iterator[Any]]):
        self.frames = frames
        self._begin_again()

    def _begin_again(self) -> None:
        self._source = _resampled(self.frames())
        self._kept: Pieces = []
        self._damage: list[float] = []
        self._reached = self._from = -math.inf

    def read(self, a: float, b: float) -> tuple[Pieces, bool]:
        """Return the sound in [a, b) in pieces that do not touch each other, and whether some of it is damaged."""
        if a < self._from:
            self._begin_again()
        self._from = a
        while self._reached < b + JOIN:
            piece = next(self._source, ())
            if piece is None:
                self._damage.append(self._reached)
            elif not piece:
                break
            elif piece[0].shape[1]:
                self._kept.append(piece)
                self._reached = piece[1] + piece[0].shape[1] / SAMPLING_RATE
        self._kept = [(x, at) for x, at in self._kept if at + x.shape[1] / SAMPLING_RATE > a - JOIN]
        return _joined([(x, at) for x, at in self._kept if at < b + JOIN]), any(
            a - 1 < at < b + JOIN for at in self._damage
        )


def _joined(pieces: Pieces) -> Pieces:
    """Return pieces with those that continue each other as one."""
    groups: list[tuple[list[torch.Tensor], float]] = []
    end = -math.inf
    for samples, at in pieces:
        if groups and abs(at - end) < JOIN and groups[-1][0][0].shape[0] == samples.shape[0]:
            groups[-1][0].append(samples)
        else:
            groups.append(([samples], at))
        end = at + samples.shape[1] / SAMPLING_RATE
    return [(torch.cat(parts, 1), at) for parts, at in groups]


def _resampled(frames: Iterator[Any]) -> Iterator[tuple[torch.Tensor, float] | None]:
    """Yield pieces of 16 kHz sound, of shape `(channels, samples)`, with their times; `None` for a damaged packet."""
    run, end, layout = None, math.inf, None
    for item in frames:
        if item is None:
            yield None
            continue
        at, raw = item
        if run is None or abs(at - end) > JOIN or layout != (raw.sample_rate, raw.num_channels):
            if run is not None:
                yield run.add(run.converter.drain())
            run, end, layout = _Run(at), at, (raw.sample_rate, raw.num_channels)
        end += raw.num_samples / raw.sample_rate
        yield run.add(run.converter.convert(raw))
    if run is not None:
        yield run.add(run.converter.drain())


class _Run:
    """Sound without a gap, which one resampler turns into 16 kHz."""

    def __init__(self, begin: float):
        self.begin, self.made = begin, 0
        self.converter = torchcodec_decoders().AudioConverter(sample_rate=SAMPLING_RATE)

    def add(self, samples: Any) -> tuple[torch.Tensor, float]:
        at = self.begin + self.made / SAMPLING_RATE
        self.made += samples.data.shape[1]
        return samples.data, at


class ArrayAudio:
    """Samples in memory, already at 16 kHz."""

    codec = None

    def __init__(self, samples: torch.Tensor, begin: float = 0.0, sampling_rate: int = SAMPLING_RATE):
        self.samples, self.begin, self.sampling_rate = samples, begin, sampling_rate
        self.end = begin + len(samples) / SAMPLING_RATE

    def read(self, a: float, b: float, notes: list[str]) -> Pieces:
        first = max(0, round((a - self.begin) * SAMPLING_RATE))
        stop = max(first, round((b - self.begin) * SAMPLING_RATE))
        return [(self.samples[first:stop], self.begin + first / SAMPLING_RATE)]


class SoundFileAudio:
    """A sound file read by libsndfile, for files that torchcodec cannot read."""

    begin = 0.0

    def __init__(self, file: Any):
        self.file, self.sampling_rate, self.codec = file, file.samplerate, file.subtype.lower()
        self.end = file.frames / file.samplerate

    def read(self, a: float, b: float, notes: list[str]) -> Pieces:
        # start on a sample of both rates, with room for the filter: so a window equals that part of the whole
        rate = self.sampling_rate
        block = rate // math.gcd(rate, SAMPLING_RATE)
        margin = 64 + 64 * rate // SAMPLING_RATE
        first = max(0, (math.floor(a * rate) - margin) // block * block)
        stop = min(self.file.frames, math.ceil(b * rate) + margin)
        self.file.seek(first)
        data = self.file.read(max(0, stop - first), dtype="float32", always_2d=True)
        samples = resample(mono(torch.from_numpy(data).T, notes), rate, SAMPLING_RATE)
        return ArrayAudio(samples, first / rate).read(a, b, notes)


def first_times(demuxer: Any) -> list[float]:
    """Return the times of what the first packet of sound gives, in seconds; none if it is damaged.

    Nothing is resampled: torchcodec's resampler drops up to 10 ms of a track that starts off its grid.
    """
    track = next((x for x in demuxer.streams if x.index == demuxer.metadata.best_audio_stream_index), None)
    if track is None:
        return []
    packets = (packet for packet in demuxer if packet.stream_index == track.index)
    found = next(filter(lambda group: group != [], decoded_packets(packets, track.make_decoder())), None)
    return [output.pts_seconds for output in found or ()]

"""Messages between a process and its reader processes: pickled, with large tensors in shared memory that is used again.

Fresh pages cost more than the copy into them, so a buffer stays mapped on both sides. It is written again once no tensor
of the receiver lies in it.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import pickle
import socket
import struct
import tempfile
import weakref
from typing import Any

import numpy as np
import torch

_HEAD = struct.Struct(">QB")  # bytes of the message, and whether a file descriptor comes with it
SMALL = 1 << 14
"""Tensors of up to this many bytes travel in the message itself; our own choice."""
FREE_BUFFERS = 3
"""Buffers that are kept for the next tensors; our own choice."""
ALIGNMENT = 64


def send(to: socket.socket, message: Any, file: int | None = None) -> None:
    """Send a message, and a duplicate of the descriptor of an open file if there is one."""
    _send_body(to, pickle.dumps(message), file)


def receive(source: socket.socket) -> tuple[Any, int | None]:
    """Return the next message and the descriptor that came with it, which the caller closes.

    Raises:
        EOFError: If the other side has ended.
        TimeoutError: If there is none within the time that is set for the socket.
    """
    body, file = _receive_body(source)
    return pickle.loads(body), file


class Outbox:
    """The side that sends tensors: writes them into buffers that the other side does not use."""

    def __init__(self) -> None:
        self._buffers: dict[int, torch.Tensor] = {}
        self._free: list[int] = []
        self._number = 0

    def freed(self, numbers: list[int]) -> None:
        """Note buffers in which no tensor is used any more."""
        self._free += numbers

    def send(self, to: socket.socket, message: Any) -> None:
        """Send a message with tensors."""
        body, tensors = io.BytesIO(), []
        pickler = _Pickler(body, tensors)
        pickler.dump(message)
        number, file, dropped = None, None, []
        if tensors:
            number, file, dropped = self._room(pickler.size)
            place = 0
            for tensor in tensors:
                flat = tensor.view(-1).view(torch.uint8)
                self._buffers[number][place : place + len(flat)] = flat
                place += _aligned(len(flat))
        try:
            _send_body(to, pickle.dumps((number, dropped, body.getvalue())), file)
        finally:
            if file is not None:
                os.close(file)

    def _room(self, size: int) -> tuple[int, int | None, list[int]]:
        """Return a buffer of at least this size, its descriptor if it is new, and the buffers that were given up."""
        fitting = [number for number in self._free if len(self._buffers[number]) >= size]
        number = min(fitting, key=lambda number: len(self._buffers[number]), default=None)
        if number is None:
            dropped, self._free = self._free, []  # they are too small
        else:
            self._free.remove(number)
            dropped, self._free = self._free[:-FREE_BUFFERS], self._free[-FREE_BUFFERS:]
        for old in dropped:
            del self._buffers[old]
        if number is not None:
            return number, None, dropped
        file = anonymous_file()
        os.ftruncate(file, size)
        self._number += 1
        self._buffers[self._number] = torch.frombuffer(mapped_file(file), dtype=torch.uint8)
        return self._number, file, dropped


class Inbox:
    """The side that receives tensors: they lie in the shared buffers, and tell when they are gone."""

    def __init__(self) -> None:
        self._buffers: dict[int, mmap.mmap] = {}
        self._freed: list[int] = []

    def freed(self) -> list[int]:
        """Return the buffers in which no tensor is used any more, each once."""
        freed, self._freed[:] = self._freed[:], []
        return freed

    def receive(self, source: socket.socket) -> Any:
        """Return the next message; raises as [`receive`] does."""
        (number, dropped, body), file = receive(source)
        for old in dropped:
            self._buffers.pop(old, None)
        if number is None:
            return _Unpickler(io.BytesIO(body), None).load()
        if file is not None:
            self._buffers[number] = mapped_file(file)
            os.close(file)
        view = self._buffers[number]
        content = (ctypes.c_uint8 * len(view)).from_buffer(view)
        weakref.finalize(content, self._freed.append, number)  # when the last tensor in it is gone
        memory = torch.from_numpy(np.ctypeslib.as_array(content))
        return _Unpickler(io.BytesIO(body), memory).load()


class _Pickler(pickle.Pickler):
    """Keeps large tensors aside."""

    def __init__(self, to: io.BytesIO, tensors: list[torch.Tensor]):
        super().__init__(to, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors, self.size = tensors, 0

    def persistent_id(self, value: Any) -> Any:
        if not torch.is_tensor(value) or value.nbytes <= SMALL:
            return None
        # in the order in which it lies in memory: pictures keep their colours interleaved
        order = sorted(range(value.ndim), key=lambda axis: -value.stride(axis))
        dense = value.permute(order).contiguous()
        place, self.size = self.size, self.size + _aligned(dense.nbytes)
        self.tensors.append(dense)
        back = [order.index(axis) for axis in range(value.ndim)]
        return place, dense.nbytes, tuple(dense.shape), back, dense.dtype


class _Unpickler(pickle.Unpickler):
    """Finds large tensors in a buffer."""

    def __init__(self, content: io.BytesIO, memory: torch.Tensor | None):
        super().__init__(content)
        self.memory = memory

    def persistent_load(self, found: Any) -> torch.Tensor:
        place, size, shape, back, dtype = found
        return self.memory[place : place + size].view(dtype).view(shape).permute(back)


def anonymous_file() -> int:
    """Return the descriptor of a new file without a name: in memory where the system has that, else on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("avlmm-reader")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def mapped_file(file: int) -> mmap.mmap:
    """Map a whole file for reading and writing, with its pages present at once where the system can do that."""
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if hasattr(mmap, "MAP_POPULATE") else 0)
    return mmap.mmap(file, os.fstat(file).st_size, flags=flags)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _send_body(to: socket.socket, body: bytes, file: int | None) -> None:
    head = _HEAD.pack(len(body), file is not None)
    if file is None:
        to.sendall(head + body)
    else:
        socket.send_fds(to, [head], [file])
        to.sendall(body)


def _receive_body(source: socket.socket) -> tuple[bytes, int | None]:
    head, files, _, _ = socket.recv_fds(source, _HEAD.size, 1)
    if not head:
        raise EOFError
    head += _exactly(source, _HEAD.size - len(head))
    size, with_file = _HEAD.unpack(head)
    return _exactly(source, size), files[0] if with_file else None


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)

"""A server on the loopback that speaks the OpenAI protocol as vLLM does, with the stock thinker of `transformers` behind it."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from torchcodec.decoders import AudioDecoder, VideoDecoder
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

VLLM_FRAMES = 32
"""Frames that vLLM takes of a video unless a request says otherwise."""


class StubServer:
    """
    A server with one model, in a thread; use it as a context.

    `requests` holds what was asked for. A test may set `fault`, a function from a request to (status, answer), or to None for
    the real answer; `models`, the names that are listed; and `key`.
    """

    def __init__(self, folder: Path):
        self.processor = Qwen2_5OmniProcessor.from_pretrained(folder)
        self.thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder).eval()
        self.models, self.key, self.fault, self.requests = ["tiny"], None, None, []
        self._turn = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(*stub.listing(self.headers))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*stub.chat(body))

            def _answer(self, status, answer):
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> StubServer:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def listing(self, headers) -> tuple[int, dict]:
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        return 200, {"object": "list", "data": [{"id": name} for name in self.models]}

    def chat(self, body: dict) -> tuple[int, dict | bytes]:
        with self._turn:
            self.requests.append(body)
            if self.fault is not None and (answer := self.fault(body)) is not None:
                return answer
            try:
                return 200, self.scored(body)
            except ValueError as error:
                return 400, {"error": {"message": str(error), "code": 400}}

    @torch.no_grad()
    def scored(self, body: dict) -> dict:
        """Return the answer to a chat: log-probabilities over the whole vocabulary of the tokens that are asked for."""
        options = dict(body.get("mm_processor_kwargs", {}))
        with_sound = options.pop("use_audio_in_video", False)
        frames, sound, chat = None, None, []
        for message in body["messages"]:
            parts = []
            for part in message["content"]:
                if part["type"] == "text":
                    parts.append(part)
                    continue
                data = base64.b64decode(part[part["type"]]["url"].partition(",")[2])
                if part["type"] == "video_url":
                    most = body.get("media_io_kwargs", {}).get("video", {}).get("num_frames", VLLM_FRAMES)
                    frames = sampled(VideoDecoder(data)[:], most)
                    if with_sound:
                        sound = samples_of(data)
                else:
                    sound = samples_of(data)
                parts.append({"type": part["type"].removesuffix("_url")})
            chat.append({"role": message["role"], "content": parts})
        text = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        media = {"videos": None if frames is None else [frames], "audio": None if sound is None else [sound]}
        if with_sound:  # the same under the names of this version of transformers
            options |= {"load_audio_from_video": True, "audio_from_video_indices": [0]}
        inputs = self.processor(text=[text], return_tensors="pt", **media, **options)
        logits = self.thinker(**inputs, use_audio_in_video=with_sound).logits[0, -1].float()
        values = logits.log_softmax(-1)
        best = int(values.argmax())
        ids = dict.fromkeys([best, *body["logprob_token_ids"]])
        top = [
            {"token": self.processor.tokenizer.decode([token]), "logprob": float(values[token])}
            for token in ids
        ]
        return {"choices": [{"logprobs": {"content": [{"token": top[0]["token"], "top_logprobs": top}]}}]}


def sampled(frames: torch.Tensor, most: int) -> torch.Tensor:
    """Return the frames that vLLM takes: all with -1, and otherwise at most `most`, spread evenly."""
    if most < 0 or len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most, dtype=int)]


def samples_of(data: bytes) -> np.ndarray:
    """Return the sound of a file; ValueError, as from vLLM, if there is none."""
    try:
        return AudioDecoder(data).get_all_samples().data.mean(0).numpy()
    except (ValueError, RuntimeError) as error:
        raise ValueError("Video doesn't have audio track with `audio_in_video=True`") from error


def slow(seconds: float):
    """Return a `fault` that answers late."""

    def answer(_):
        time.sleep(seconds)

    return answer

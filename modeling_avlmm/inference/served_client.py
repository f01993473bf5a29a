"""A client of a vLLM server, or of another that speaks its OpenAI protocol: log-probabilities of the two answers."""

from __future__ import annotations

import math
import time
from typing import Any

import httpx2

from ..configuration_avlmm import LABEL_WORDS

TRIES = 4
"""Requests until a server that is busy, or cannot be reached, is given up; our own choice."""

PAUSE_SECONDS = 1.0
"""Wait before the second try, doubled for every further one; our own choice."""

BUSY = (429, 502, 503, 504)
"""Statuses after which a request is sent again."""

ABOUT_THE_CLIP = (400, 413, 422, 500)
"""Statuses of a request that the server cannot answer, while it may answer others."""

FLOOR = -9999.0
"""The number that vLLM writes for minus infinity."""


class EndpointError(ConnectionError):
    """A server that cannot be used for any clip; the message says what to change."""


class WrongModelError(EndpointError):
    """A server that serves another model."""


class NoLogProbabilitiesError(EndpointError):
    """A server that does not give the log-probabilities of the two answers."""


class RequestRefusedError(Exception):
    """A request that the server refused or failed on; others may succeed."""


class RequestTimeoutError(Exception):
    """A request that the server did not answer in time."""


class ServedModelClient:
    """
    A client of one served model.

    Args:
        endpoint (`str`): Such as `http://localhost:8000`, with or without `/v1`.
        model (`str`, *optional*): Name of the served model. Defaults to the only one.
        api_key (`str`, *optional*): Key that the server was started with.
        seconds (`float`, *optional*, defaults to 120.0): Longest wait for an answer.

    Raises:
        EndpointError: If the server cannot be reached or does not speak the protocol.
        WrongModelError: If it does not serve the model.
    """

    def __init__(
        self,
        endpoint: str,
        model: str | None = None,
        api_key: str | None = None,
        seconds: float = 120.0,
    ):
        if not endpoint.startswith(("http://", "https://")):
            raise EndpointError(f"{endpoint} is no address of a server: it looks like http://localhost:8000.")
        self.endpoint = endpoint.rstrip("/").removesuffix("/v1")
        self.seconds = seconds
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx2.Client(headers=headers, timeout=seconds)
        self.model = self._served(model)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _served(self, wanted: str | None) -> str:
        try:
            answer = self._ask("GET", "/v1/models", tries=1)
        except (RequestRefusedError, RequestTimeoutError) as error:
            raise EndpointError(f"{self.endpoint} does not list its models: {error}") from error
        try:
            names = [str(model["id"]) for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise EndpointError(
                f"{self.endpoint} answers, but not as a server of the OpenAI protocol: /v1/models gave no list of models."
            ) from error
        if wanted is not None and wanted not in names:
            raise WrongModelError(
                f"{self.endpoint} does not serve {wanted!r}. It serves {', '.join(names) or 'nothing'}."
            )
        if wanted is None and len(names) != 1:
            raise WrongModelError(
                f"{self.endpoint} serves {len(names)} models ({', '.join(names) or 'none'}): name the detector's."
            )
        return names[0] if wanted is None else wanted

    def log_odds(
        self, messages: list[dict], label_token_ids: list[int], options: dict[str, Any]
    ) -> float | None:
        """
        Return how much more likely the answer Fake is than Real, as the difference of their log-probabilities.

        Args:
            messages (`list[dict]`): The chat.
            label_token_ids (`list[int]`): Vocabulary ids of the answers, ordered `real, fake`.
            options (`dict`): Further fields of the request.

        Returns:
            `float`: The log-odds of Fake; None if the network gave neither answer a probability.

        Raises:
            RequestRefusedError, RequestTimeoutError: If this request failed.
            EndpointError: If the server cannot be used.
        """
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "logprob_token_ids": label_token_ids,
            **options,
        }
        real, fake = self._of_labels(self._ask("POST", "/v1/chat/completions", body))
        return None if max(real, fake) <= FLOOR else fake - real

    def _of_labels(self, answer: dict) -> list[float]:
        """Return the log-probabilities of the two answers in a server's reply."""
        try:
            token = answer["choices"][0]["logprobs"]["content"][0]
            given = {item["token"]: float(item["logprob"]) for item in token["top_logprobs"]}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise NoLogProbabilitiesError(
                f"{self.endpoint} gave no log-probabilities. They need `logprob_token_ids`, as vLLM has it."
            ) from error
        if all(word in given for word in LABEL_WORDS):
            values = [given[word] for word in LABEL_WORDS]
            return [FLOOR if math.isnan(value) else value for value in values]
        words = ", ".join(map(repr, given)) or "none"
        if len(given) < len(LABEL_WORDS):
            raise NoLogProbabilitiesError(
                f"{self.endpoint} gave log-probabilities of {words}, and not of {' and '.join(LABEL_WORDS)}. They need "
                "`logprob_token_ids`, as vLLM has it."
            )
        raise WrongModelError(
            f"In the vocabulary of {self.model!r} at {self.endpoint} the answers' tokens are {words}, and not "
            f"{' and '.join(LABEL_WORDS)}: another model is served."
        )

    def _ask(self, method: str, path: str, body: dict | None = None, tries: int = TRIES) -> dict:
        """Send a request, again while the server is busy or cannot be reached, and return its answer."""
        for left in reversed(range(tries)):
            try:
                response = self._client.request(method, self.endpoint + path, json=body)
            except httpx2.TimeoutException as error:
                raise RequestTimeoutError(f"the server did not answer within {self.seconds:g} s") from error
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                if not left:
                    told = str(error) or type(error).__name__
                    raise EndpointError(
                        f"{self.endpoint} cannot be reached ({told}). Start the server, or correct the address."
                    ) from error
            else:
                if response.status_code not in BUSY or not left:
                    return self._checked(response)
            time.sleep(PAUSE_SECONDS * 2 ** (tries - 1 - left))
        raise AssertionError("the last try returns or raises")

    def _checked(self, response: httpx2.Response) -> dict:
        """Return the JSON of a response; raise what its status means."""
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError as error:
                raise EndpointError(
                    f"{self.endpoint} answers, but not in JSON: it is no such server."
                ) from error
        told = _message(response)
        if status in ABOUT_THE_CLIP and "mm_processor_kwargs" in told and "trust" in told:
            raise EndpointError(
                f"{self.endpoint} takes no settings of requests, and would sample clips in its own way. Start it with "
                "--trust-request-mm-kwargs."
            )
        if status in ABOUT_THE_CLIP:
            raise RequestRefusedError(f"the server refused the clip with status {status}: {told}")
        if status in (401, 403):
            raise EndpointError(f"{self.endpoint} wants another key (status {status}).")
        raise EndpointError(f"{self.endpoint} answers with status {status}: {told}")


def _message(response: httpx2.Response) -> str:
    """Return in one line what a server says about an error."""
    try:
        answer = response.json()
        error = answer.get("error", answer)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:500] or "without a word"

"""The ranking service as a function: a request in, its answer out, over one kept-alive HTTP client."""

import time
from types import TracebackType
from typing import Any

import httpx

from uniscale.errors import ServingError

RETRIED_STATUS = (429, 503)
LONGEST_WAIT_SECONDS = 5.0


class HttpRanker:
    """Posts requests to `{url}/rank`; safe to call from several threads.

    An answer of 429 or 503 is tried again after its Retry-After (0.1 s when absent, 5 s at most), and so is a dropped
    connection, up to `attempts` times in all. A refused connection is not: nobody is there.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_seconds: float = 10.0, attempts: int = 5):
        self.url, self.attempts = url.rstrip("/"), attempts
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.client = httpx.Client(headers=headers, timeout=timeout_seconds)

    def __call__(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The service's answer to a request.

        Raises:
            ServingError: the service cannot be reached, stays busy, or refuses the request.
        """
        reason, wait = "", 0.0
        for _ in range(self.attempts):
            time.sleep(wait)
            wait = 0.1
            try:
                response = self.client.post(f"{self.url}/rank", json=payload)
            except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
                raise ServingError(f"no service at {self.url} ({error}): start it, or correct the URL") from None
            except httpx.TransportError as error:
                reason = f"{type(error).__name__} {error}"
                continue
            if response.status_code in RETRIED_STATUS:
                reason, wait = f"status {response.status_code}", _retry_after(response)
                continue
            return self._answer(response)
        raise ServingError(
            f"{self.url}/rank gave no answer in {self.attempts} attempts (last: {reason}): "
            "lower the load or add workers"
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def __enter__(self) -> "HttpRanker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        if response.status_code != 200:
            raise ServingError(f"{self.url}/rank answered {response.status_code}: {response.text[:300]}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServingError(f"{self.url}/rank answered no JSON object but {response.text[:300]!r}")
        return answer


def http_ranker(url: str, api_key: str | None = None) -> HttpRanker:
    """A ranker for `run_live` that asks the service at `url`; close it (or use `with`) when done."""
    return HttpRanker(url, api_key)


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), LONGEST_WAIT_SECONDS)
    except (KeyError, ValueError):  # absent, or a date
        return 0.1

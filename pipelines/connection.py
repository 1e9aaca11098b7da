"""A connection to Kubeflow Pipelines whose failures are messages: unreachable, refused, unknown."""

import contextlib
import functools
import io
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from uniscale.errors import UniscaleError

CONNECT_SECONDS, ATTEMPTS = 3, 4  # the longest that each attempt to connect waits
HEALTH_SECONDS, ANSWER_SECONDS = 10, 20  # the longest that an answer may take, to an upload of IR as well


class Unreachable(UniscaleError):
    """Kubeflow Pipelines does not answer; what was started there goes on."""


def connect(host: str, token: str | None, namespace: str | None = None) -> Any:
    """The real `kfp.Client`, after one request that shows whether host and token are right.

    The client itself would retry a refusal for half a minute.

    Raises:
        Unreachable: nothing answers there.
        UniscaleError: the API refuses the token, or is none.
    """
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        limits = httpx.Timeout(HEALTH_SECONDS, connect=CONNECT_SECONDS)
        answer = httpx.get(f"{host.rstrip('/')}/apis/v2beta1/healthz", headers=headers, timeout=limits)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"cannot reach Kubeflow Pipelines at {host} ({error}; asked once for its health, {CONNECT_SECONDS} s to "
            f"connect and {HEALTH_SECONDS} s to answer): check the URL and the network"
        ) from None
    if answer.status_code != 200:
        raise UniscaleError(
            f"{host} refused the connection: {answer.status_code} {answer.reason_phrase}: {_remedy(answer.status_code)}"
        )
    if "json" not in answer.headers.get("Content-Type", ""):
        raise UniscaleError(f"{host} answers with a page, not with the API: give a token, and the URL of the API")
    import kfp  # seconds, which a wrong URL or token need not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it wants Kubeflow 2, which healthz has shown
        client = kfp.Client(host=host, existing_token=token, **({"namespace": namespace} if namespace else {}))
    _limit(client, (CONNECT_SECONDS, ANSWER_SECONDS))
    return client


def _limit(client: Any, seconds: tuple[float, float]) -> None:
    """Let no attempt to connect and no answer take longer: neither client nor `urllib3` has a limit of its own."""
    import urllib3

    api = client._run_api.api_client  # the one that all parts of the client share
    api.request = functools.partial(_within, api.request, seconds)
    # A request that went unanswered is not sent again; one that never got through is.
    api.rest_client.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(total=ATTEMPTS - 1, read=False)


def _within(request: Callable[..., Any], seconds: tuple[float, float], *given: Any, **options: Any) -> Any:
    return request(*given, **(options | {"_request_timeout": seconds}))


@contextlib.contextmanager
def asking(host: str) -> Iterator[None]:
    """Turn the client's exceptions into messages, and keep the links it prints to itself.

    Raises:
        Unreachable: the connection broke, or the server is in trouble (5xx).
        UniscaleError: the API refused what was asked, or its answer is none of this API.
    """
    import kfp_server_api
    import urllib3

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except urllib3.exceptions.MaxRetryError as error:
        tried = f"{type(error.reason).__name__} in each of {ATTEMPTS} attempts of up to {CONNECT_SECONDS} s to connect"
        raise Unreachable(f"lost Kubeflow Pipelines at {host} ({tried})") from None
    except urllib3.exceptions.HTTPError as error:
        tried = f"{type(error).__name__}; sent once, {ANSWER_SECONDS} s to answer"
        raise Unreachable(f"lost Kubeflow Pipelines at {host} ({tried})") from None
    except kfp_server_api.ApiException as error:
        kind = Unreachable if error.status >= 500 else UniscaleError
        message = f"{host} answered {error.status} {error.reason}: {_said(error.body)}"
        raise kind(f"{message}; {_remedy(error.status)}") from None
    except kfp_server_api.exceptions.OpenApiException as error:
        raise UniscaleError(
            f"{host} answers with something that the client does not understand ({error}): check the URL, and that "
            "Kubeflow Pipelines 2 is there"
        ) from None


def _said(body: Any) -> str:
    """The message in an answer's body."""
    try:
        answer = json.loads(body)
        return str(answer.get("message") or answer.get("error") or answer)[:500]
    except (TypeError, ValueError, AttributeError):
        return str(body)[:500]


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "check the token (--token or KFP_TOKEN) and what it may do in this namespace"
    if status == 404:
        return "check the id, and the URL"
    return "check the URL, and the log of the API server"

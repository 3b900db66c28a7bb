"""Clients of `ams serve`, with the standard library alone."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener, HTTPSHandler

from ._model import Explained, Page, Similar
from ._requests import Behaviors, Candidates, Cell, Instant, User, Value, Values, page_view, to_json


class ServerError(Exception):
    """The server refused a request, or could not be asked (`status` 0)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status = status
        self.detail = detail


class _NoRedirect(HTTPRedirectHandler):
    """A token is for this server alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """Asks a server. Threads may use it together; every request has a connection of its own."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._opener = build_opener(_NoRedirect, *([HTTPSHandler(context=tls)] if tls else []))

    def _ask(self, path: str, body: str | None = None) -> Any:
        answer = self._fetch(path, body)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ServerError(0, f"{self._url}{path}: the answer is no JSON: {error}") from None

    def _fetch(self, path: str, body: str | None = None) -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else body.encode()
        request = Request(self._url + path, data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise ServerError(error.code, _detail(error)) from None
        except URLError as error:
            raise ServerError(0, f"{self._url}: {error.reason}") from None
        except TimeoutError:
            raise ServerError(0, f"{self._url}: no answer within {self._timeout} s") from None
        except (OSError, HTTPException) as error:
            raise ServerError(0, f"{self._url}: {error}") from None

    @staticmethod
    def _path(model: str, version: int | None, operation: str) -> str:
        versions = "" if version is None else f"/versions/{version}"
        return f"/v1/models/{quote(model, safe='')}{versions}{operation}"

    def models(self) -> Any:
        """Names and live versions."""
        return self._ask("/v1/models")

    def card(self, model: str, *, version: int | None = None) -> dict[str, Any]:
        """The card of a model, with examples to try."""
        return dict(self._ask(self._path(model, version, "")))

    def is_ready(self) -> bool:
        """Whether the server should get requests."""
        try:
            self._fetch("/health/ready")
        except ServerError as error:
            if error.status == 0 or error.status >= 500:
                return False
            raise
        return True

    def score(
        self,
        model: str,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
        version: int | None = None,
        deadline_ms: int | None = None,
    ) -> Page:
        """Ranks the candidates of one page view; the arguments are those of `Model.score`."""
        options = {"top_k": top_k, "deadline_ms": deadline_ms}
        body = page_view(user, behaviors, candidates, context, options, time)
        return Page(**self._ask(self._path(model, version, "/score"), body))

    def score_page(self, model: str, page: Mapping[str, Any], *, version: int | None = None) -> Page:
        """Ranks the candidates of a request of docs/requests.md."""
        return Page(**self._ask(self._path(model, version, "/score"), to_json(page)))

    def explain(
        self,
        model: str,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
        version: int | None = None,
    ) -> Explained:
        """The effect of each behavior on the best candidates."""
        body = page_view(user, behaviors, candidates, context, {"top_k": top_k}, time)
        return Explained.of(self._ask(self._path(model, version, "/explain"), body))

    def similar(
        self,
        model: str,
        item: Value | None = None,
        *,
        picture: str | None = None,
        tower: str | None = None,
        top_k: int | None = None,
        version: int | None = None,
    ) -> Similar:
        """Items whose pictures are like one."""
        asked = {"item": item, "picture": picture, "tower": tower, "top_k": top_k}
        body = to_json({name: value for name, value in asked.items() if value is not None})
        answer = self._ask(self._path(model, version, "/similar"), body)
        return Similar(answer["tower"], answer["items"], answer["cosine"])


def _detail(error: HTTPError) -> str:
    """What the server says: `detail` of application/problem+json."""
    body = error.read()
    try:
        said = json.loads(body)
        return str(said.get("detail") or said.get("error") or said)
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace") or str(error.reason)


class AsyncClient:
    """`Client` for programs of asyncio: requests run in threads, and waiting for them blocks nothing."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._client = Client(url, token=token, timeout=timeout, tls=tls)

    async def models(self) -> Any:
        """As `Client.models`."""
        return await asyncio.to_thread(self._client.models)

    async def card(self, model: str, *, version: int | None = None) -> dict[str, Any]:
        """As `Client.card`."""
        return await asyncio.to_thread(self._client.card, model, version=version)

    async def is_ready(self) -> bool:
        """As `Client.is_ready`."""
        return await asyncio.to_thread(self._client.is_ready)

    async def score(
        self,
        model: str,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
        version: int | None = None,
        deadline_ms: int | None = None,
    ) -> Page:
        """As `Client.score`."""
        return await asyncio.to_thread(
            self._client.score,
            model,
            user,
            behaviors,
            candidates,
            context,
            top_k,
            time=time,
            version=version,
            deadline_ms=deadline_ms,
        )

    async def score_page(self, model: str, page: Mapping[str, Any], *, version: int | None = None) -> Page:
        """As `Client.score_page`."""
        return await asyncio.to_thread(self._client.score_page, model, page, version=version)

    async def explain(
        self,
        model: str,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
        version: int | None = None,
    ) -> Explained:
        """As `Client.explain`."""
        return await asyncio.to_thread(
            self._client.explain, model, user, behaviors, candidates, context, top_k, time=time, version=version
        )

    async def similar(
        self,
        model: str,
        item: Value | None = None,
        *,
        picture: str | None = None,
        tower: str | None = None,
        top_k: int | None = None,
        version: int | None = None,
    ) -> Similar:
        """As `Client.similar`."""
        return await asyncio.to_thread(
            self._client.similar, model, item, picture=picture, tower=tower, top_k=top_k, version=version
        )

"""The gateway, as an edge asks it over HTTPS."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from .errors import LinkError

PROBLEM = "application/problem+json"

SECONDS = 20.0
"""How long an answer may take to begin, and to go on."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another host is not told our token."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect is an error."""
        return None


class Link:
    """A workload's gateway at ``url``, ``https://host/<workload>``.

    ``token``: a bearer token for what stands before the gateway; ``cafile``: certificates (PEM) of the authorities to
    trust, none: the system's.
    """

    def __init__(self, url: str, token: str | None = None, cafile: str | None = None) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
            raise LinkError(url, 0, "must have the form https://host/<workload>")
        self.url, self._token = url.rstrip("/"), token
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=cafile))
        self._opener = urllib.request.build_opener(tls, _NoRedirects)

    def decision(self) -> dict[str, Any]:
        """Who serves."""
        return _object(self.url, self._asked("/v1/edge/decision"))

    def bundle(self, digest: str) -> bytes:
        """The packed bundle of the version whose artefact has this digest."""
        return self._asked(f"/v1/edge/bundles/{urllib.parse.quote(digest, safe='')}")

    def send(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give records to the platform; returns what became of each, in order, once the stream has them."""
        body = json.dumps({"records": list(records)}).encode()
        taken = _object(self.url, self._asked("/v1/edge/records", body)).get("records")
        if not isinstance(taken, list) or len(taken) != len(records):
            raise LinkError(self.url, 200, f"it does not tell what became of {len(records)} records")
        return taken

    def _asked(self, path: str, body: bytes | None = None) -> bytes:
        """The answer's body.

        Raises:
            LinkError: there is no answer, or it is a refusal.

        """
        url = self.url + path
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(2000).decode("utf-8", "replace")
            problem = error.headers.get_content_type() == PROBLEM
            raise LinkError(url, error.code, f"status {error.code}: {detail}", problem=problem) from error
        except (OSError, ValueError, HTTPException) as error:  # URLError and time-outs are OSErrors
            raise LinkError(url, 0, f"no answer: {error}") from error


def _object(url: str, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise LinkError(url, 200, f"that is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise LinkError(url, 200, "that is no JSON object")
    return found

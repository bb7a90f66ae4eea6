"""The REST API of a Kubeflow Pipelines server (v2beta1). The one module that talks to it.

Kubeflow's own client takes more than a second to import, tries a wrong token for half a minute, and looks for contexts
in the home folder; what is needed of the API are a dozen requests. A failure is one of four kinds, each with its own
remedy: nobody answers (:class:`UnavailableError`), we are not let in (:class:`AccessError`: token, certificate or
permission), what was asked is refused (:class:`RefusedError`), or is there already (:class:`ExistsError`).
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from components.contracts.errors import (
    AccessError,
    CohobateError,
    ConfigError,
    ExistsError,
    RefusedError,
    UnavailableError,
)
from components.contracts.settings import Settings

SERVICE = "Kubeflow Pipelines"
CONFIGURE = "set COHOBATE_KFP_HOST to the URL of the Kubeflow Pipelines API, as http(s)://host:port"
AUDIENCE = "pipelines.kubeflow.org"
"""The audience that a token must be issued for."""

TIME_LIMITS = httpx.Timeout(30.0, connect=10.0)
"""Limits of one request, in seconds: each phase of it."""

PAGE = 100
"""Rows that are asked for at once."""

AWAY = (502, 503, 504)
"""What a proxy answers for a server that is not there."""


class Kubeflow:
    """A server that answered: its mode, and requests to it. ``namespace`` is empty on one for single users."""

    def __init__(self, settings: Settings, client: httpx.Client) -> None:
        self._settings, self._client = settings, client
        self.host = settings.kfp_host.rstrip("/")
        health = self.ask("GET", "healthz")
        self.multi_user = bool(health.get("multi_user"))
        self.pipeline_store = str(health.get("pipeline_store", ""))
        self.namespace = settings.kfp_namespace if self.multi_user else ""

    def need_namespace(self) -> None:
        """Check that there is a namespace where one is needed, before anything is sent.

        Raises:
            ConfigError: the server is a multi-user one, and no namespace is set.

        """
        if self.multi_user and not self.namespace:
            raise ConfigError(
                "COHOBATE_KFP_NAMESPACE",
                "",
                f"{self.host} is a multi-user Kubeflow: set it (or --namespace) to the namespace of your profile",
            )

    def need_versions(self) -> None:
        """Check that the server keeps pipelines and their versions by name, as those since 2.17 say that they do.

        Raises:
            RefusedError: it is an older one.

        """
        if not self.pipeline_store:
            raise RefusedError(
                SERVICE, self.host, "its health tells no pipeline_store, so it is an older server",
                "upgrade it to 2.17 or later, or upload the files of 'cohobate pipeline compile' by hand",
            )  # fmt: skip

    @property
    def place(self) -> dict[str, str]:
        """The namespace as a query's or body's member, where there is one."""
        return {"namespace": self.namespace} if self.namespace else {}

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        upload: bytes | None = None,
    ) -> dict[str, Any]:
        """What the server answers; the token is read anew for every request, as its file may have been renewed.

        Raises:
            UnavailableError, AccessError, RefusedError, ExistsError: see this module.

        """
        answer = self._answer(method, path, query, body, upload)
        return self._read(answer)

    def find(self, method: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """Like :meth:`ask`, but None where the server says that what is named by the path is not there."""
        answer = self._answer(method, path, query)
        missing = answer.status_code == 404 and "json" in answer.headers.get("Content-Type", "")
        return None if missing else self._read(answer)

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        upload: bytes | None = None,
    ) -> httpx.Response:
        more: dict[str, Any] = {"params": query}
        if upload is not None:
            more["files"] = {"uploadfile": ("pipeline.yaml", upload)}
        elif body is not None:
            more["json"] = body
        token = self._settings.secret("kfp_token")
        answer = self._send(method, path, token, more)
        if answer.status_code == 401 and (renewed := self._settings.secret("kfp_token")) != token:
            answer = self._send(method, path, renewed, more)  # it was renewed between our look and the server's
        return answer

    def _send(self, method: str, path: str, token: str | None, more: Mapping[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return self._client.request(method, f"{self.host}/apis/v2beta1/{path}", headers=headers, **more)
        except httpx.InvalidURL as error:
            raise ConfigError("COHOBATE_KFP_HOST", self.host, f"{CONFIGURE} ({error})") from error
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise AccessError(
                    SERVICE, self.host, "authority", "its certificate is not trusted",
                    "set COHOBATE_KFP_CAFILE to the certificates (PEM) of its authority",
                ) from error  # fmt: skip
            remedy = f"is COHOBATE_KFP_HOST right, and the API up? ({error or type(error).__name__})"
            raise UnavailableError(SERVICE, self.host, remedy) from error

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        page = answer.is_redirect or "html" in answer.headers.get("Content-Type", "")
        if page and answer.status_code not in AWAY:
            raise AccessError(
                SERVICE, self.host, "token", f"a web page answers (status {answer.status_code}), a login perhaps",
                "set COHOBATE_KFP_HOST to the API's own address, within the cluster or behind a port-forward, or "
                "COHOBATE_KFP_TOKEN_FILE to a token that the page's gateway takes",
            )  # fmt: skip
        try:
            found = json.loads(answer.content or b"{}")
        except ValueError:
            found = None
        if answer.is_success and isinstance(found, dict):
            return found
        said = _sentence(found) if isinstance(found, dict) else "" if page else answer.text[:200].strip()
        said = said or answer.reason_phrase
        # A proxy whose server is away, or another server: its path is not known there, or its answer is none of ours.
        if answer.status_code in AWAY or (found is None and answer.status_code in (200, 404)):
            remedy = f"is COHOBATE_KFP_HOST right, and the API up? (status {answer.status_code}: {said})"
            raise UnavailableError(SERVICE, self.host, remedy)
        raise self._refusal(answer.status_code, said)

    def _refusal(self, status: int, said: str) -> CohobateError:
        if status == 401:
            return AccessError(
                SERVICE, self.host, "token", said,
                f"COHOBATE_KFP_TOKEN or ..._FILE must be a token that has not ended, for the audience {AUDIENCE}",
            )  # fmt: skip
        if status == 403:
            return AccessError(
                SERVICE, self.host, "permission", said,
                "is COHOBATE_KFP_NAMESPACE right? Else have the user's role there allow it",
            )  # fmt: skip
        if status == 409:
            return ExistsError(SERVICE, self.host, said, "take another name, or remove it first")
        return RefusedError(SERVICE, self.host, said, f"correct what was asked for (status {status})")

    def each(self, path: str, member: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page; ``member``: what the list is called in the answer."""
        asked = {"page_size": str(PAGE), **(query or {})}
        while True:
            page = self.ask("GET", path, query=asked)
            yield from page.get(member, ())
            if not page.get("next_page_token"):
                return
            asked["page_token"] = page["next_page_token"]

    def experiment(self, name: str) -> dict[str, Any] | None:
        """The experiment of this name; None where there is none."""
        return self.named("experiments", "experiments", name, self.place)

    def named(self, path: str, member: str, name: str, query: Mapping[str, str]) -> dict[str, Any] | None:
        """The first row of a list (:meth:`each`) that is called so; None where there is none."""
        predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        asked = {"filter": json.dumps({"predicates": [predicate]}), **query}
        return next(self.each(path, member, asked), None)


def _sentence(found: Mapping[str, Any]) -> str:
    """The short sentence of an error's body; a long one repeats it, and an upload's has a stack beside it."""
    details = found.get("details") or [{}]
    first = details[0].get("message") if isinstance(details[0], dict) else None
    return str(first or found.get("error_message") or found.get("message") or found.get("error") or "").strip()


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator[Kubeflow]:
    """A server that is there, and a namespace where it needs one.

    Raises:
        ConfigError: no host is set, or no namespace where one is needed, or the certificates cannot be read.
        UnavailableError, AccessError: it does not answer, or not to us.

    """
    if not settings.kfp_host.startswith(("http://", "https://")):
        raise ConfigError("COHOBATE_KFP_HOST", settings.kfp_host, CONFIGURE)
    with httpx.Client(timeout=TIME_LIMITS, verify=_trust(settings)) as client:
        server = Kubeflow(settings, client)
        server.need_namespace()
        yield server


def _trust(settings: Settings) -> ssl.SSLContext:
    if settings.kfp_host.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; reading all authorities takes its time
    try:
        return ssl.create_default_context(cafile=str(settings.kfp_cafile) if settings.kfp_cafile else None)
    except OSError as error:
        raise ConfigError(
            "COHOBATE_KFP_CAFILE", str(settings.kfp_cafile), f"must be a readable PEM file of certificates ({error})"
        ) from error

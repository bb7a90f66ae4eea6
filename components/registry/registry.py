"""Student versions in MLflow, by any tracking URI: the one module that touches MLflow's registry.

One experiment and one registered model a workload, both named ``cohobate-<workload>``. A registration is a run
(parameters, metrics, the snapshots as datasets, the artifact as it is) and a model version whose tags carry the
lineage. The artifact that serves is the one at our own URI, by its digest; the copy in the run is for the MLflow UI.
Nothing is pickled: an ONNX file is logged as a file, which also spares MLflow's guessing of requirements.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import msgspec

from components.contracts.errors import ForeignVersionError, NotFoundError, UnavailableError
from components.contracts.settings import Settings, mask
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.registry import runs
from components.registry.names import aliases_of, json_object
from components.registry.names import model_name as model_name
from components.registry.tags import VERDICT_FILE, WHOLE, tags_of, verdict_tag
from components.student.card import StudentCard

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

Alias = Literal["candidate", "champion", "previous"]

NUMBER = re.compile(r"[1-9][0-9]{0,8}")
"""A version's number, as MLflow's databases hold it; what is none is an alias."""

P = ParamSpec("P")
T = TypeVar("T")


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version.

    ``created_at``: Unix seconds; ``verdict``: the gate's, as it was registered, or of a long one what fits into a tag
    (with the key ``whole``; :meth:`Registry.verdict` reads it whole).
    """

    ref: ModelRef
    aliases: tuple[str, ...]
    created_at: float
    snapshots: tuple[str, ...]
    parent: str | None
    code: str
    variant: str
    verdict: dict[str, Any]
    metrics: dict[str, float]
    run_id: str

    @property
    def version(self) -> str:
        """The version's number as text."""
        return self.ref.version


class ForeignVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is not ours. ``why``: what it lacks of what our registration writes."""

    version: str
    aliases: tuple[str, ...]
    why: str


def _asked(method: Callable[Concatenate[Registry, P], T]) -> Callable[Concatenate[Registry, P], T]:
    """MLflow that does not answer is an UnavailableError; what else it raises stays what it is."""

    @wraps(method)
    def asked(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            if isinstance(error, UnavailableError) or not runs.is_away(error):
                raise
            detail = f"is it up, and COHOBATE_TRACKING_URI right? ({type(error).__name__})"
            raise UnavailableError("MLflow", mask(self._settings.mlflow_uri), detail) from error

    return asked


class Registry:
    """The registry at ``settings.mlflow_uri``. The connection opens at the first use (2 to 6 s, with the import).

    Every method raises UnavailableError where MLflow does not answer. A version that somebody made by hand is in the
    registry too, but not ours: it can be seen (:meth:`named`, :meth:`foreign`), and whoever wants to serve it gets a
    ForeignVersionError.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: tuple[sqlite3.Connection, int] | None = None

    @cached_property
    def _client(self) -> MlflowClient:
        return runs.connect(self._settings)

    def open(self, workload: str) -> None:
        """Connect now, so that nobody waits for it when a version is needed at once.

        A database is asked once, too, which makes MLflow's tables and mappers; a server is not: it may be away.
        """
        _ = self._client
        if self._settings.mlflow_uri.startswith("sqlite"):
            self.named(workload, "champion")

    def changed(self) -> bool:
        """Whether anybody may have written to the registry since this was last asked. For one thread.

        On SQLite this costs microseconds (https://www.sqlite.org/pragma.html#pragma_data_version); elsewhere it cannot
        be told for less than the question itself, and the answer is always True.
        """
        if not self._settings.mlflow_uri.startswith("sqlite:///"):
            return True
        path = Path(self._settings.mlflow_uri.removeprefix("sqlite:///"))
        try:
            connection = self._seen[0] if self._seen else sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            self.close()
            return True
        before, self._seen = self._seen, (connection, version)
        return before is None or before[1] != version

    def close(self) -> None:
        """Let go of the connection of :meth:`changed`."""
        if self._seen is not None:
            self._seen[0].close()
            self._seen = None

    @_asked
    def register(
        self,
        spec: Spec,
        uri: str,
        digest: str,
        card: StudentCard,
        *,
        verdict: dict[str, Any],
        metrics: Mapping[str, float],
        params: Mapping[str, Any],
    ) -> ModelRef:
        """Register the artifact at ``uri`` as a version; sets no alias.

        The same digest again gives the version that it has, whose verdict becomes the new one; so a crash anywhere
        in here leaves nothing double:

        1. find the version with this digest, else
        2. find or start the run tagged with this digest, and log everything to it;
        3. create the version with all its tags at once;
        4. of versions that are double all the same, keep the first: MLflow's client sends a request again whose answer
           was lost, and another process may register the same artifact.

        Raises:
            ArtifactError: ``uri`` does not exist or has another digest.

        """
        data = get_bytes(uri, digest)
        # Step 1
        known = self._one(spec.name, digest)
        if known is not None:
            if known.run_id:
                self._client.log_dict(known.run_id, verdict, VERDICT_FILE)
            tag = verdict_tag(verdict)
            self._client.set_model_version_tag(model_name(spec.name), str(known.version), "verdict", tag)
            return _ref(known)
        # Step 2
        run = runs.record(
            self._client, self._settings.artifacts, spec, data=data, digest=digest, card=card,
            verdict=verdict, metrics=metrics, params=params,
        )  # fmt: skip
        # Step 3
        self._ensure_model(spec)
        created = self._client.create_model_version(
            model_name(spec.name),
            source=f"{run.info.artifact_uri}/student",
            run_id=run.info.run_id,
            description=f"{card.variant} student of {card.teacher}, {card.form}",
            tags=tags_of(spec, uri, digest, card, verdict, metrics),
        )
        # Step 4
        return _ref(self._one(spec.name, digest) or created)

    @_asked
    def get(self, workload: str, alias_or_version: str) -> ModelRef | None:
        """The version that an alias or a version number names; None where there is none.

        Raises:
            ForeignVersionError: there is one, and it is not ours.

        """
        found = self._version(workload, alias_or_version)
        return _ref(found) if found else None

    @_asked
    def named(self, workload: str, alias: Alias) -> str | None:
        """The number of the version that has an alias, ours or not; None where none has."""
        return self._aliases(workload).get(alias)

    @_asked
    def info(self, workload: str, alias_or_version: str) -> VersionInfo:
        """All that is known of a version.

        Raises:
            NotFoundError: there is none.
            ForeignVersionError: it is not ours.

        """
        found = self._version(workload, alias_or_version)
        if found is None:
            raise _no_version(workload, alias_or_version)
        return _info(found, self._aliases(workload))

    @_asked
    def verdict(self, workload: str, alias_or_version: str) -> dict[str, Any]:
        """The whole verdict of a version, from its tag or, where that does not hold it, from its run.

        Raises:
            NotFoundError: there is no such version.
            ForeignVersionError: it is not ours.
            ArtifactError: its run holds no verdict (any more).

        """
        info = self.info(workload, alias_or_version)
        if WHOLE not in info.verdict:
            return info.verdict
        return runs.read_json(self._client, info.run_id, str(info.verdict[WHOLE]))

    def versions(self, workload: str) -> list[VersionInfo]:
        """All versions of a workload that are ours, oldest first."""
        return self.sorted_out(workload)[0]

    @_asked
    def sorted_out(self, workload: str) -> tuple[list[VersionInfo], list[ForeignVersion]]:
        """All versions of a workload, oldest first: those that are ours, and those that are not."""
        aliases = self._aliases(workload)
        ours, foreign = [], []
        for version in sorted(self._search(workload), key=lambda v: int(v.version)):
            try:
                ours.append(_info(version, aliases))
            except ForeignVersionError as error:
                number = str(version.version)
                foreign.append(ForeignVersion(version=number, aliases=aliases_of(number, aliases), why=error.why))
        return ours, foreign

    @_asked
    def set_alias(self, workload: str, alias: Alias, version: str) -> None:
        """Point an alias at a version; setting it again changes nothing.

        Raises:
            NotFoundError: there is no such version.

        """
        if self._version(workload, version) is None:
            raise _no_version(workload, version)
        self._client.set_registered_model_alias(model_name(workload), alias, version)

    @_asked
    def drop_alias(self, workload: str, alias: Alias) -> None:
        """Remove an alias; removing one that is not there changes nothing."""
        if alias in self._aliases(workload):
            self._client.delete_registered_model_alias(model_name(workload), alias)

    def _version(self, workload: str, alias_or_version: str) -> ModelVersion | None:
        is_number = NUMBER.fullmatch(alias_or_version) is not None
        number = alias_or_version if is_number else self._aliases(workload).get(alias_or_version)
        if number is None:
            return None
        return runs.unless_absent(lambda: self._client.get_model_version(model_name(workload), number))

    def _aliases(self, workload: str) -> dict[str, str]:
        model = runs.unless_absent(lambda: self._client.get_registered_model(model_name(workload)))
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def _search(self, workload: str, condition: str = "") -> list[ModelVersion]:
        query = f"name = '{model_name(workload)}'" + condition
        found, token = [], None
        while True:
            page = self._client.search_model_versions(query, max_results=200, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _one(self, workload: str, digest: str) -> ModelVersion | None:
        """The version with a digest: the first that an alias names, else the first; later ones are deleted."""
        found = sorted(self._search(workload, f" and tags.digest = '{digest}'"), key=lambda v: int(v.version))
        if len(found) < 2:
            return found[0] if found else None
        named = set(self._aliases(workload).values())
        kept = next((v for v in found if str(v.version) in named), found[0])
        delete, name = self._client.delete_model_version, model_name(workload)
        for double in (str(v.version) for v in found[found.index(kept) + 1 :]):
            if double not in named:
                runs.unless_absent(partial(delete, name, double))
        return kept

    def _ensure_model(self, spec: Spec) -> None:
        name, tags = model_name(spec.name), {"workload": spec.name, "task": spec.task}
        if runs.unless_absent(lambda: self._client.get_registered_model(name)) is None:
            runs.unless_there(lambda: self._client.create_registered_model(name, tags, spec.description))


def _ref(version: ModelVersion) -> ModelRef:
    return ModelRef(
        version=str(version.version),
        uri=_tag(version, "uri"),
        digest=_tag(version, "digest"),
        snapshot=_tag(version, "snapshots").split(",")[0],
        teacher=_tag(version, "teacher"),
        defer_below=_values(version, "metrics").get("defer_below"),
    )


def _tag(version: ModelVersion, name: str) -> str:
    """A tag that every registration of ours writes.

    Raises:
        ForeignVersionError: it is not there.

    """
    found = version.tags.get(name)
    if found is None:
        raise ForeignVersionError(version.name, str(version.version), f"it has no tag {name!r}")
    return str(found)


def _values(version: ModelVersion, name: str) -> dict[str, Any]:
    """A tag that holds a JSON object.

    Raises:
        ForeignVersionError: it is not there, or holds something else.

    """
    found = json_object(_tag(version, name))
    if found is None:
        raise ForeignVersionError(version.name, str(version.version), f"its tag {name!r} is no JSON object")
    return found


def _info(version: ModelVersion, aliases: Mapping[str, str]) -> VersionInfo:
    ref = _ref(version)
    return VersionInfo(
        ref=ref,
        aliases=aliases_of(ref.version, aliases),
        created_at=version.creation_timestamp / 1000,
        snapshots=tuple(filter(None, _tag(version, "snapshots").split(","))),
        parent=_tag(version, "parent") or None,
        code=_tag(version, "code"),
        variant=_tag(version, "variant"),
        verdict=_values(version, "verdict"),
        metrics=_values(version, "metrics"),
        run_id=version.run_id,
    )


def _no_version(workload: str, name: str) -> NotFoundError:
    return NotFoundError("model version", f"{model_name(workload)}:{name}", "list them with 'cohobate rollout list'")

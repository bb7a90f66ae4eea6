"""Exporting a registered version as a bundle for a target.

1. Read the version, and the limits of its spec.
2. Build the model and the target's files in a folder beside the output.
3. Write the card, the lineage, the package and the manifest.
4. Ask the bundle in its own runtime about the version's holdout, and refuse it where it answers otherwise.
5. Write the parity report, the final manifest and the attestation.
6. Give the folder its name in one step: there is a whole bundle, or none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from components.contracts.errors import ArtifactError, CohobateError, ConfigError, ParityError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.spec.declared import check_training
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.export import manifest as contract
from components.export.manifest import ATTESTATION, MANIFEST, Agreement, Defer, Manifest, Runtime
from components.export.notices import notices, version_of
from components.export.package import PACKAGE, modules, requirements
from components.export.parity import HALVES_SIZES, IN_HALVES, Compared, Report, compare, worst
from components.export.targets import target_of
from components.export.targets.contract import Built, Target, Version, wanted, write
from components.ledger import signatures
from components.steps import windows_until
from components.student.runtime import Student

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.registry.registry import Registry

CALIBRATING = 256
"""Inputs that a quantisation is calibrated on."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the bundle's folder, the report and the manifest."""

    folder: str
    target: str
    version: str
    student: str
    precision: str
    signed: bool
    bytes: int
    parity: Report


def version_to_export(
    spec: Spec, settings: Settings, registry: Registry, store: ControlStore, alias_or_version: str
) -> tuple[Version, Sequence[bytes]]:
    """A registered version, and the inputs of its holdout that it is judged by.

    Raises:
        ConfigError: the terms of its teacher or its data, as they are declared by now, forbid training.
        NotFoundError: there is no such version, or its snapshot is unknown here.
        ForeignVersionError: it is not ours.
        UntrustedError: it is not signed by a key that counts, where the policy asks for that; the ledger has it.
        ArtifactError: its artifact is missing or was changed.

    """
    from components.distill.data import declared_teacher, holdout_payloads, window_rows

    check_training(spec, settings.licence_policy)
    info = registry.info(spec.name, alias_or_version)
    if settings.artifact_policy == "signed":
        try:
            signatures.vouched(store, spec.name, info.ref, info.verdict.get("decision"))
        except CohobateError as error:
            of = {"version": info.version, "digest": info.ref.digest}
            signatures.refused(store, spec.name, settings.actor, error, of)
            raise
    artefact = get_bytes(info.ref.uri, info.ref.digest)
    card = Student.load(artefact, source=spec.source).card
    windows = windows_until(store, spec, card.snapshots[0])
    own = msgspec.structs.replace(spec, teacher_digest=None)  # whoever is declared by now, the windows have their own

    def full() -> bytes:
        return get_bytes(f"{info.ref.uri.rsplit('/', 1)[0]}/float.onnx")

    def calibration() -> Sequence[bytes]:
        rows = window_rows(windows[-1], "train", spec.task, declared_teacher(own, windows))
        return list(rows.payloads[:CALIBRATING])

    lineage = {
        "workload": spec.name,
        "version": info.version,
        "aliases": list(info.aliases),
        "student": info.ref.digest,
        "teacher": card.teacher,
        "parent": card.parent,
        "start": msgspec.to_builtins(card.start),
        "snapshots": list(card.snapshots),
        "code": card.code,
        "variant": card.variant,
        "spec": spec.digest,
        "registered_at": info.created_at,
        "verdict": registry.verdict(spec.name, info.version),
    }
    version = Version(
        workload=spec.name, version=info.version, artefact=artefact, defer=defer_of(spec, info.ref, card.novelty),
        lineage=lineage, source=spec.source, full=full, calibration=calibration,
    )  # fmt: skip
    return version, holdout_payloads(own, windows)


def defer_of(spec: Spec, ref: ModelRef, known: tuple[tuple[float, ...], ...]) -> Defer:
    """When a version's answers say ``defer``, as the gateway has it where nothing is guarded."""
    below = spec.serve.defer_below
    if spec.serve.max_disagreement is not None:
        below = ref.own_limit
    return Defer(below=below, novelty=spec.serve.novelty, known=known)


def export(
    version: Version,
    target: str,
    output: Path,
    payloads: Sequence[bytes],
    *,
    limit: float | None,
    precision: str = "",
    by: Signer | None = None,
) -> Exported:
    """Write the bundle of a version into the folder ``output``, which must not exist yet, or be empty.

    ``payloads``: the holdout; ``limit``: the largest share of labels that may differ; None: any.

    Raises:
        ConfigError: the target, its precision or the folder is not allowed, or the student's input is not exported.
        ParityError: it answers otherwise than the judged artefact, or there is nothing to tell it by.

    """
    chosen = target_of(target)
    done_in = wanted(chosen, precision, version.precision)
    output = output.resolve()  # it is asked in processes that run elsewhere
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("--output", str(output), "must not exist yet, or be an empty folder")
    whole = output.with_name(f".{output.name}.part")
    shutil.rmtree(whole, ignore_errors=True)
    folder = whole / chosen.root.replace("NAME", version.workload)
    folder.mkdir(parents=True)
    try:
        # Steps 2 and 3
        built = chosen.build(version, folder, done_in)
        manifest = _described(version, chosen, built, folder)
        chosen.finish(manifest, folder, whole)
        _sealed(manifest, folder)
        # Step 4
        report = _judged(version, chosen, manifest, folder, payloads, limit)
        # Step 5
        write(folder, "parity.json", msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        agreement = Agreement(rows=report.rows, gap=report.gap, limit=limit)
        manifest = _sealed(msgspec.structs.replace(manifest, parity=agreement), folder)
        if by is not None:
            write(folder, ATTESTATION, contract.attested((folder / MANIFEST).read_bytes(), manifest, by))
        size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        # Step 6
        if output.exists():
            output.rmdir()
        output.parent.mkdir(parents=True, exist_ok=True)
        whole.rename(output)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return Exported(
        folder=str(output / folder.relative_to(whole)), target=target, version=version.version,
        student=version.digest, precision=manifest.model.precision, signed=by is not None, bytes=size, parity=report,
    )  # fmt: skip


def _described(version: Version, target: Target, built: Built, folder: Path) -> Manifest:
    """The manifest without its files, once everything that it describes is written."""
    card, files = version.card, {}
    for name, data in getattr(version.student.featuriser, "files", {}).items():
        files[name] = f"features/{name}"
        write(folder, files[name], data)
    given = msgspec.structs.replace(
        version.given, featuriser=msgspec.structs.replace(version.given.featuriser, files=files)
    )
    needs = sorted({built.runtime, "numpy", *built.needs, *requirements(given)})
    manifest = Manifest(
        workload=version.workload,
        version=version.version,
        target=target.name,
        task=card.task,
        space=card.space,
        classes=card.classes,
        input=given,
        model=built.model,
        defer=version.defer,
        runtime=Runtime(name=built.runtime, version=version_of(built.runtime)),
        lineage=version.line,
        requirements=tuple(f"{name}=={version_of(name)}" for name in needs),
    )
    for name, source in modules(given, built.modules).items():
        write(folder, f"{PACKAGE}/{name}", source)
    write(folder, "card.json", msgspec.json.format(msgspec.json.encode(card)) + b"\n")
    write(folder, "lineage.json", msgspec.json.format(msgspec.json.encode(version.lineage)) + b"\n")
    write(folder, "requirements.txt", "".join(f"{line}\n" for line in manifest.requirements))
    write(folder, "NOTICES.md", notices(manifest, needs, card.attribution))
    write(folder, "README.md", _readme(manifest, target))
    return manifest


def _sealed(manifest: Manifest, folder: Path) -> Manifest:
    """Write the manifest, with the digests of all files that are there."""
    for cache in list(folder.rglob(contract.BYTE_CODE)):
        shutil.rmtree(cache)
    manifest = msgspec.structs.replace(manifest, files=contract.files_of(folder))
    write(folder, MANIFEST, contract.encoded(manifest))
    return manifest


def _judged(
    version: Version, target: Target, manifest: Manifest, folder: Path, payloads: Sequence[bytes], limit: float | None
) -> Report:
    """The parity in the target's runtime, if it is within the limit."""
    found = compare(version.student, target.ask(folder), payloads, version.defer)
    what = f"{version.workload} version {version.version} for {target.name} ({manifest.model.precision})"
    halves = _in_halves(what, version, target, folder, payloads) if manifest.model.precision == "float16" else ()
    gap = worst((*found, *halves))
    report = Report(
        how=f"{target.name}: asked raw inputs in a process of its own, beside the judged artefact",
        runtime=f"{manifest.runtime.name} {manifest.runtime.version}",
        precision=manifest.model.precision,
        rows=max((c.rows for c in found), default=0),
        gap=gap,
        limit=limit,
        batches=found,
        halves=halves,
    )
    if limit is not None and gap is None:
        raise ParityError(what, "there is no held-out input to tell by whether it answers as it was judged", None)
    if limit is not None and gap is not None and gap > limit:
        over = [(c, "") for c in found] + [(c, ", reckoned in halves") for c in halves]
        at = ", ".join(f"{c.gap:.4f} in batches of {c.batch}{how}" for c, how in over if c.gap > limit)
        said = (
            f"the share of its labels that are not those of the artefact that was judged is {at}, and max_parity_gap "
        )
        raise ParityError(what, f"{said}is {limit:g}: export it in another precision, or for another target", gap)
    return report


def _in_halves(
    what: str, version: Version, target: Target, folder: Path, payloads: Sequence[bytes]
) -> tuple[Compared, ...]:
    """The parity in arithmetic of halves, where what runs the bundle elsewhere reckons so."""
    ask = target.ask_in_halves(folder)
    if ask is None:
        return ()
    try:
        return compare(version.student, ask, payloads, version.defer, most=IN_HALVES, sizes=HALVES_SIZES)
    except ArtifactError as error:
        said = f"reckoned in halves, which end at 65504, it does not answer ({error})"
        raise ParityError(what, f"{said}: export it in another precision, or for another target", None) from error


def _readme(manifest: Manifest, target: Target) -> str:
    given, defer = manifest.input, manifest.defer
    unsure = [f"its confidence is below {defer.below:g}"] if defer.below > 0.0 else []
    if defer.novelty is not None and defer.known:
        unsure.append(f"its novelty is at or below {defer.novelty:g}")
    names = "tags" if manifest.task == "tagging" else "classes"
    classes = f"{len(manifest.classes)} {names} of `{manifest.space}`" if manifest.classes else f"`{manifest.space}`"
    soft = "spans and tokens with the tags' probabilities" if manifest.task == "tagging" else "soft label"
    return f"""# {manifest.workload}, version {manifest.version}

A student that was distilled from `{manifest.lineage.teacher}`: {manifest.task}, {classes}. It answers raw input
({given.media_type}, at most {given.max_bytes} bytes) and needs Python 3.11 or later and

```
pip install -r requirements.txt
```

An answer has the label, its confidence, the {soft}, the novelty of the input, and `defer`, which asks for somebody
else: {" or ".join(unsure) or "no answer of this version says so"}.

```
python -B -m {PACKAGE} check                      # is every file what manifest.json says?
python -B -m {PACKAGE} predict an-input           # one input
python -B -m {PACKAGE} predict --lines inputs     # each line is one
```
{target.readme(manifest)}
`parity.json` says how far its answers are from those of the artefact that was judged
(`{manifest.lineage.student[:12]}`), in {manifest.runtime.name} {manifest.runtime.version} and
{manifest.model.precision}. `manifest.json` has the SHA-256 of every file; where `attestation.json` is there, it is
signed: `cohobate verify-export DIR --public-key FILE`, which takes no byte code (`__pycache__`) beside it. Whose work
is in it: `NOTICES.md`.
"""


def signer_of(settings: Settings, key: str, public_key: Path | None) -> Signer | None:
    """Who signs a bundle: the key that is given, else the one of ``COHOBATE_WORKLOAD_SIGNING_KEY``, else nobody.

    Raises:
        ConfigError: it is no key that can sign.

    """
    from components.contracts import attestation
    from components.contracts.signing import private_key

    if key:
        return attestation.signer(key, public_key)
    found = settings.secret("workload_signing_key")
    if found is None:
        return None
    return attestation.signer_by(private_key(found, "COHOBATE_WORKLOAD_SIGNING_KEY"))

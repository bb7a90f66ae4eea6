import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from components.federation.agreement import Agreement, Site
from components.federation.exchange import Said, row_id, set_digest, write
from tests.keys import keys

CLASSES = ("ham", "spam")
TEXTS = ("one", "two", "three")
SPACE = "mail@1"
FEDERATION = "banks"


class Desk:
    """Sites with keys of their own, and the files that they would hand on."""

    def __init__(self, folder, names):
        self.made = {name: keys(folder, name) for name in names}

    def agreement(self, **values):
        sites = {name: Site(key=str(public)) for name, (_, public) in self.made.items()}
        return Agreement(**{"name": FEDERATION, "space": SPACE, "classes": CLASSES, "sites": sites, **values})

    def signer(self, name):
        return CryptoSigner(load_pem_private_key(self.made[name][0].read_bytes(), None))

    def file(self, name, spam=0.9, *, by=None, texts=TEXTS, answers=None, **values):
        """What a site hands on: ``spam`` for every text, or the distributions ``answers`` by the text."""
        answers = answers or {t: {"ham": 1.0 - spam, "spam": spam} for t in texts}
        said = Said(
            **{"federation": FEDERATION, "site": name, "round": 1, "space": SPACE, "classes": CLASSES,
               "student": "0" * 64, "public": set_digest(map(row_id, TEXTS)), **values}
        )  # fmt: skip
        return write(said, {row_id(t): d for t, d in answers.items()}, self.signer(by or name)).data


@pytest.fixture(scope="package")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("keys"), ("east", "north", "south", "west"))

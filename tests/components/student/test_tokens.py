import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from components.contracts.errors import ConfigError
from components.contracts.spec import Factory
from components.student.card import pack, unpack
from components.student.features import featuriser, files_of
from components.student.tokens import Tokens

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "p", "##a", "##r", "good", "bad", "parcel", "##s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.enable_truncation(max_length=4)
    made.enable_padding(length=60)  # of its own: only what the options say counts
    where = tmp_path_factory.mktemp("tokens")
    made.save(str(where / "tokenizer.json"))
    return where


def tokens(folder, **options):
    return Tokens(str(folder), **options)


def test_ids_and_mask_of_texts_alone_and_in_a_batch(folder):
    features = tokens(folder)
    assert features.signature["ids"].below == len(WORDS)
    found = features.encode(["good parcels bad good", "good", ""])
    assert found["ids"].tolist() == [[2, 7, 9, 10, 8, 7, 3], [2, 7, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]]
    assert found["mask"].tolist() == [[1] * 7, [1] * 3 + [0] * 4, [1] * 2 + [0] * 5]
    assert found["ids"].dtype == found["mask"].dtype == np.int64
    assert features.encode(["good"])["ids"].tolist() == [[2, 7, 3]]
    assert features.encode([])["ids"].shape == (0, 1)


def test_a_long_text_is_cut_and_keeps_the_tokenizer_s_last_token(folder):
    assert tokens(folder, length=4).encode(["good bad good bad"])["ids"].tolist() == [[2, 7, 8, 3]]
    assert tokens(folder, head=4).encode(["good bad"])["ids"].tolist() == [[2, 7, 3]]


def test_a_cut_vocabulary_splits_words_into_what_is_left_of_it(folder):
    cut = tokens(folder, vocabulary=9)
    assert cut.signature["ids"].below == 9
    assert cut.encode(["good parcel"])["ids"].tolist() == [[2, 7, 1, 3]]  # no pieces are left for the rest of it
    assert tokens(folder, vocabulary=9).encode(["par"])["ids"].tolist() == [[2, 4, 5, 6, 3]]
    assert "parcel" not in cut.files["tokenizer.json"].decode()
    with pytest.raises(ConfigError, match=r"vocabulary is 3: must be >= 4"):
        tokens(folder, vocabulary=3)


def test_the_file_travels_and_nothing_else_is_read(folder, tmp_path):
    options = {"tokenizer": "model", "vocabulary": 9}
    (tmp_path / "model").symlink_to(folder)
    factory = Factory(factory="components.student.tokens:Tokens", options=options)
    here = featuriser(factory, str(tmp_path / "spec.yaml"))
    files = unpack(pack(files_of(here)))
    (tmp_path / "model").unlink()
    there = featuriser(factory, str(tmp_path / "elsewhere" / "spec.yaml"), files)
    assert there.encode(["par good"])["ids"].tolist() == here.encode(["par good"])["ids"].tolist()
    assert files_of(there) == files and there.signature == here.signature


def test_a_missing_or_broken_tokenizer_is_named_with_the_remedy(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"features\.options\.tokenizer is 'none/at/all': no such file .*relative"):
        Tokens("none/at/all", spec_folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json: name the file"):
        Tokens(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"features\.options\.tokenizer.*is no tokenizer\.json of tokenizers"):
        Tokens(str(tmp_path))
    with pytest.raises(ConfigError, match=r"features\.options\.vocabulary.*can be cut"):
        Tokens(str(tmp_path), vocabulary=100)
    described = json.loads((folder / "tokenizer.json").read_bytes())
    described["model"]["type"] = "BPE"
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="this is a BPE"):
        Tokens(str(tmp_path), vocabulary=100)
    with pytest.raises(ConfigError, match=r"length >= 4"):
        tokens(folder, length=3)

"""A small token classifier of transformers, trained on made-up texts: BERT with two layers, and its tokenizer."""

import random
from pathlib import Path

from components.contracts.tagging import tagged
from tests.spans import KINDS, NAMES, TEMPLATES, message, tags

EPOCHS, BATCH, TEXTS = 12, 16, 600
WIDTH, LAYERS, HEADS = 48, 2, 4


def save(folder: Path, *, epochs: int = EPOCHS, texts: int = TEXTS) -> Path:
    """Train it on both regimes and write it as ``save_pretrained`` does."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    made = tokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")  # noqa: E501, S106  # fmt: skip
    known = tags()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = BertForTokenClassification(
        BertConfig(
            vocab_size=made.get_vocab_size(), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=2 * WIDTH, max_position_embeddings=96, num_labels=len(known),
            id2label=dict(enumerate(known)), label2id={tag: i for i, tag in enumerate(known)},
        )
    )  # fmt: skip
    chance = random.Random(0)
    rows = [message(regime, chance) for _ in range(texts // 2) for regime in KINDS]
    optimiser = torch.optim.Adam(net.parameters(), lr=0.002)
    net.train()
    for _ in range(epochs):
        chance.shuffle(rows)
        for first in range(0, len(rows), BATCH):
            some = rows[first : first + BATCH]
            encoded = fast([t for t, _ in some], padding=True, return_tensors="pt")
            wanted = torch.full(encoded.input_ids.shape, -100)
            for i, (_, spans) in enumerate(some):
                pieces = encoded[i]
                starts = [
                    (at, pieces.offsets[at])
                    for at, word in enumerate(pieces.word_ids)
                    if word is not None and word != pieces.word_ids[at - 1]
                ]
                for (at, _), tag in zip(starts, tagged(spans, [place for _, place in starts], known), strict=True):
                    wanted[i, at] = known.index(tag)
            optimiser.zero_grad()
            net(**encoded, labels=wanted).loss.backward()
            optimiser.step()
    net.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tokenizer():
    """WordPiece over the words of the templates, with capitals; the rest is spelled."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {w for some in TEMPLATES.values() for t in some for w in t.replace("{", " ").replace("}", " ").split()}
    words |= {w for regime in NAMES.values() for some in regime.values() for name in some for w in name.split()}
    pieces = {piece for w in words for piece, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(w)}
    letters = sorted({c for p in pieces for c in p} | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    entries = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *letters,
        *(f"##{c}" for c in letters),
        *sorted(pieces - set(letters)),
    ]
    made = Tokenizer(models.WordPiece({e: i for i, e in enumerate(entries)}, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made

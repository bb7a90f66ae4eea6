"""Of images and of sounds."""

import pytest
import torch

from components.contracts.errors import ConfigError
from components.distill.networks.audio_convolution import AudioConvolution
from components.distill.networks.image_convolution import ImageConvolution
from components.student.audio import Spectrogram
from components.student.features import bag_signature
from components.student.image import Image

SOUND, PICTURE = Spectrogram(rate=8000, mels=16).signature, Image(height=9, width=13).signature


def net(kind, inputs, **options):
    torch.manual_seed(0)
    return kind(task="classification", inputs=inputs, outputs=3, channels=[6, 8, 10], **options)


def test_every_stage_but_the_first_halves_an_image():
    model = net(ImageConvolution, PICTURE).eval()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    said = model(torch.randn(2, 3, 9, 13))
    assert shapes == [(2, 6, 9, 13), (2, 8, 5, 7), (2, 10, 3, 4)]
    assert said["logits"].shape == (2, 3) and said["pooled"].shape == (2, 10)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
def test_padding_of_a_sound_changes_nothing(length):
    model = net(AudioConvolution, SOUND).train()
    model(torch.randn(8, 16, 40), torch.ones(8, 40, dtype=torch.int64))  # moves what the norms know
    model.eval()
    sound = torch.randn(1, 16, length)
    alone = model(sound, torch.ones(1, length, dtype=torch.int64))
    wide, mask = torch.randn(2, 16, 21), torch.zeros(2, 21, dtype=torch.int64)
    wide[0, :, :length], mask[0, :length] = sound[0], 1
    padded = model(wide, mask)
    assert torch.allclose(alone["logits"][0], padded["logits"][0], atol=1e-6)
    assert torch.isfinite(padded["logits"]).all()


def test_each_takes_what_its_featuriser_gives_alone():
    for kind in (ImageConvolution, AudioConvolution):
        with pytest.raises(ConfigError, match=r"student\.network.*name a featuriser that gives them in features"):
            net(kind, bag_signature(64))
    with pytest.raises(ConfigError, match="takes pixels"):
        net(ImageConvolution, SOUND)


def test_refuses_options_out_of_range():
    with pytest.raises(ConfigError, match=r"student\.network\.options"):
        AudioConvolution(task="classification", inputs=SOUND, outputs=3, width=4)
    for kind, inputs in ((ImageConvolution, PICTURE), (AudioConvolution, SOUND)):
        with pytest.raises(ConfigError, match=r"student\.network\.options"):
            kind(task="classification", inputs=inputs, outputs=3, channels=[])

"""Models beside the paper's Mixers: what is built is what is priced, and published figures are the
tables' own."""

import pytest
import torch

from mixerkit.benchmark.architectures import (
    FORMS,
    Architecture,
    built,
    forward,
    priced,
    published_rate,
    standardised_once,
)
from mixerkit.benchmark.peers import counted
from mixerkit.spec.paper import VARIANTS

VIT = Architecture("ViT-B/16", 224, "vit_base_patch16_224")


def small(form=None, size=64):
    return Architecture("Mixer-S/32", size, form=form, native_size=64)


@pytest.mark.parametrize("size", [64, 128, 192])
def test_a_mixer_in_each_form_is_priced_as_it_is_built(size):
    """The oracle is PyTorch's own count of the model that is timed."""
    for form in FORMS:
        one = small(form, size)
        (model,) = built([one]).values()
        assert counted(model.to("meta"), (3, size, size)) == priced(one)


def test_prices_are_those_of_table_1_and_of_appendix_c():
    for row in VARIANTS:
        parameters, macs = priced(Architecture(f"Mixer-{row.label}"))
        assert parameters == row.parameters and macs / 1e9 == pytest.approx(row.gmacs, abs=5e-4)
    dense = [Architecture(f"Mixer-{label}", 448, form="dense") for label in ("L/16", "H/14")]
    assert [priced(one)[0] for one in dense] == [280_500_584, 589_723_368]
    tiles = Architecture("Mixer-H/14", 448, form="shared")
    parameters, macs = priced(Architecture("Mixer-H/14"))
    assert priced(tiles)[0] == parameters
    assert priced(tiles)[1] == pytest.approx(4 * macs, rel=1e-4)  # one head


def test_others_are_priced_as_their_authors_say():
    assert priced(VIT)[0] == 86_567_656
    parameters, macs = priced(Architecture("ResNet-50", 224, "resnet50"))
    assert parameters == 25_557_032 and macs / 1e9 == pytest.approx(4.09, abs=0.01)


def test_the_price_of_a_vit_is_that_of_its_image_size():
    """In closed form: an embedding, 12 blocks over patches and a class token, a head."""
    size, C = 96, 768
    S = (size // 16) ** 2 + 1
    blocks = 12 * (12 * S * C * C + 2 * S * S * C)
    macs = (S - 1) * 3 * 16 * 16 * C + blocks + C * 1000
    assert priced(Architecture("ViT-B/16", size, "vit_base_patch16_224"))[1] == macs


def test_dense_and_shared_forms_compute_the_same_and_share_their_channel_mixing():
    dense, tiles = built([small("dense", 128), small("shared", 128)]).values()
    for norm in [module for module in tiles.modules() if isinstance(module, torch.nn.LayerNorm)]:
        torch.nn.init.normal_(norm.weight)  # the dense model's too
    images = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        logits = dense(images)
        assert logits.abs().max() > 0
        assert (logits - tiles(images)).abs().max() <= 1e-5 * logits.abs().max()
    ours, theirs = (model.blocks[0].channel_mixing.fc1.weight for model in (dense, tiles))
    assert ours.data_ptr() == theirs.data_ptr()
    assert dense.blocks[0].token_mixing.fc1.weight.shape == (4 * 256, 16)


def test_published_rates_are_those_of_the_model_that_is_measured():
    known = {
        ("Mixer-B/16", 224): 1384, ("Mixer-L/16", 448): 105, ("Mixer-H/14", 448): 40,
        ("ViT-L/16", 512): 32, ("ViT-H/14", 224): 87, ("ViT-H/14", 518): 15,
        ("BiT-R152x4", 480): 26, ("BiT-R152x4", 224): None, ("ResNet-50", 224): None,
    }  # fmt: skip
    assert {pair: published_rate(*pair) for pair in known} == known
    assert Architecture("Mixer-H/14", 448, form="dense").published_rate == 40
    assert Architecture("Mixer-H/14", 448, form="shared").published_rate is None
    assert Architecture("HaloNet", 256, "halonet50ts", stand_in="HaloNet").published_rate is None


def test_a_pass_is_in_inference_mode_without_training():
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, images):
            seen.append((images.shape, self.training, torch.is_inference_mode_enabled()))
            return images

    forward(Watching(), 8, 2)()
    assert seen == [((2, 3, 8, 8), False, True)]


def test_titles_say_name_size_and_form():
    titles = [VIT.title, small("shared", 128).title]
    assert titles == ["ViT-B/16 at 224 px", "Mixer-S/32 at 128 px, shared tiles"]
    assert (VIT.family, small().family) == ("ViT", "Mixer")


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "dm_nfnet_f0"])
def test_standardising_once_changes_no_output(name):
    from timm import create_model

    torch.manual_seed(0)
    model = create_model(name).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)  # gains and norms, some of which start at 0
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        after = standardised_once(model)(images)
    assert before.abs().max() > 0
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    assert not [one for one in model.modules() if "Std" in type(one).__name__]

"""Every published layout is recognised, computes what its authors did, and goes back intact."""

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.convert import write_layout
from mixerkit.checkpoint.layouts import LAYOUTS, our_name, their_name
from mixerkit.checkpoint.load import load, save_model
from mixerkit.errors import UserError
from mixerkit.spec.mixer import variant_of
from mixerkit.spec.zoo import PUBLISHED
from tests import oracle
from tests.checkpoint import published
from tests.checkpoint.published import FILES, TINY


def images_for(shape: published.Shape, count: int = 1, seed: int = 1) -> np.ndarray:
    side = int(shape.S**0.5) * shape.P
    return np.random.default_rng(seed).uniform(-1, 1, (count, shape.I, side, side))


def expected(arrays, shape: published.Shape, images: np.ndarray, gelu: str = "tanh") -> np.ndarray:
    weights = published.oracle_weights(arrays)
    return oracle.mixer(images, weights, patch=(shape.P, shape.P), depth=shape.L, gelu=gelu)


def logits(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    dtype = next(model.parameters()).dtype
    with torch.inference_mode():
        return model(torch.from_numpy(images).to(dtype)).numpy()


ONE_OF_EACH = {shape: name for name, shape in reversed(FILES.items())}
"""Files that differ in nothing but where they lie have the same arrays here."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_files_in_the_published_shapes_give_the_oracles_logits(name, tmp_path):
    shape = FILES[name]
    arrays = published.linen(shape)
    model = load(published.write(tmp_path / "file.npz", arrays))
    label = name.partition("-")[2].replace("_", "/")
    assert variant_of(model.config) == label and model.config.num_classes == shape.K
    assert model.config.gelu == "tanh" and model.config.norm_eps == 1e-6
    images = images_for(shape)
    wanted = expected(arrays, shape, images)
    assert oracle.difference(logits(model, images), wanted) < 2e-5
    assert oracle.difference(logits(model.double(), images), wanted) < 1e-10


def test_the_zoo_lists_the_published_files_with_their_shapes():
    google = {p.file.removesuffix(".npz"): p for p in PUBLISHED.values() if p.gelu == "tanh"}
    assert set(google) == set(FILES)
    for name, model in google.items():
        shape = FILES[name]
        numbers = sum(array.size for array in published.linen(shape).values()) if shape.L < 9 else 0
        assert model.num_classes == shape.K
        assert model.variant == name.partition("-")[2].replace("_", "/")
        if numbers:  # the archive adds names and headers
            assert 0 < model.mebibytes - numbers * 4 / 2**20 < 0.1


FORMS = {
    "linen": lambda arrays: arrays,
    "params/": published.prefixed,
    "opt/target/": lambda arrays: published.prefixed(arrays, "opt/target/"),
    "before linen": published.before_linen,
    "before linen, params/": lambda arrays: published.prefixed(published.before_linen(arrays)),
    "numbered through": published.numbered_through,
    "numbered through, params/": lambda a: published.prefixed(published.numbered_through(a)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [TINY, published.named("S/32", blocks=2)], ids=["tiny", "S/32"])
def test_each_older_form_is_recognised_without_being_told(form, shape, tmp_path):
    arrays = published.linen(shape)
    model = load(published.write(tmp_path / "file.npz", FORMS[form](arrays)))
    images = images_for(shape, 2)
    wanted = expected(arrays, shape, images)
    assert oracle.difference(logits(model.double(), images), wanted) < 1e-10


def test_the_other_gelu_is_noticed(tmp_path):
    arrays = published.linen(TINY)
    images = images_for(TINY, 2)
    model = load(published.write(tmp_path / "file.npz", arrays), gelu="erf").double()
    assert oracle.difference(logits(model, images), expected(arrays, TINY, images)) > 1e-6
    wanted = expected(arrays, TINY, images, "erf")
    assert oracle.difference(logits(model, images), wanted) < 1e-10


@pytest.mark.parametrize("shape", [TINY, published.named("B/16", blocks=2)], ids=["tiny", "B/16"])
def test_npz_to_ours_to_npz_keeps_every_bit(shape, tmp_path):
    arrays = published.linen(shape)
    first = load(published.write(tmp_path / "file.npz", arrays))
    save_model(tmp_path / "ours", first, first.preprocess, first.about)
    write_layout(tmp_path / "back.npz", load(tmp_path / "ours"), "google")
    with np.load(tmp_path / "back.npz", allow_pickle=False) as back:
        assert set(back.files) == set(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype and back[name].shape == array.shape
            assert back[name].tobytes() == array.tobytes()


def test_the_older_layout_is_written_too(tmp_path):
    arrays = published.linen(TINY)
    model = load(published.write(tmp_path / "file.npz", arrays))
    write_layout(tmp_path / "older.npz", model, "google-older")
    older = published.before_linen(arrays)
    with np.load(tmp_path / "older.npz") as back:
        assert set(back.files) == set(older)
        assert all(back[name].tobytes() == older[name].tobytes() for name in older)


# -- timm and mmpretrain ----------------------------------------------------------------------


def timm_model(name: str):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.normal_(0, scale)
    return model


TIMM_NAMES = [
    "mixer_s32_224",
    "mixer_s16_224",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mixer_b32_224", "mixer_b16_224", "mixer_l32_224", "mixer_l16_224")
    ),
]


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timms_models_go_in_compute_the_same_and_come_out(name, tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = timm_model(name)
    state = theirs.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors")
    assert variant_of(model.config) == name[6].upper() + "/" + name[7:9]
    assert model.config.gelu == "erf"
    images = images_for(published.named(f"{name[6].upper()}/{name[7:9]}"))
    assert oracle.difference(logits(model, images), logits(theirs, images)) < 1e-5
    save_model(tmp_path / "ours", model, model.preprocess, model.about)
    write_layout(tmp_path / "back.safetensors", load(tmp_path / "ours"), "timm")
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) == set(state)
    assert all(
        torch.equal(back[key].view(torch.int32), state[key].view(torch.int32)) for key in state
    )
    theirs.load_state_dict(back)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_pth_files_of_training_scripts(wrap, prefix, tmp_path):
    state = timm_model("mixer_s32_224").state_dict()
    torch.save(wrap({prefix + key: value for key, value in state.items()}), tmp_path / "last.pth")
    model = load(tmp_path / "last.pth")
    assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])


def test_averaged_weights_are_taken_before_the_plain_ones_and_that_is_said(tmp_path):
    plain = load(published.write(tmp_path / "file.npz", published.linen(TINY)))
    names = {ours: their_name(LAYOUTS["timm"], ours) for ours in plain.state_dict()}
    state = {names[ours]: tensor for ours, tensor in plain.state_dict().items()}
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "both.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "one.pth")
    both, one = load(tmp_path / "both.pth"), load(tmp_path / "one.pth")
    assert torch.equal(both.head.bias, averaged["head.bias"])
    assert torch.equal(one.head.bias, state["head.bias"])
    said = "state_dict_ema was taken, not state_dict."
    assert any(said in note for note in both.notes)
    assert not any("was taken" in note for note in one.notes)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_name_comes_back_and_nothing_like_it_does(layout):
    general = {f"{module}.{leaf}" for module in layout.modules for leaf in ("weight", "bias")}
    for block in (0, 1, 10, 99_999):
        for ours in (name.replace("{i}", str(block)) for name in general):
            theirs = str(their_name(layout, ours))
            assert our_name(layout, theirs) == ours
            assert our_name(layout, f"{theirs}x") is our_name(layout, f"x{theirs}") is None
    for number in ("{i}", "01", "-1", "100000", "", "x", "٣"):
        theirs = str(their_name(layout, "blocks.7.token_norm.weight")).replace("7", number)
        assert our_name(layout, theirs) is None


def test_mmpretrains_names(tmp_path):
    arrays = published.linen(TINY)
    model = load(published.write(tmp_path / "file.npz", arrays), gelu="erf")
    names = {
        "stem.": "backbone.patch_embed.projection.",
        ".token_norm.": ".ln1.",
        ".channel_norm.": ".ln2.",
        ".token_mixing.fc1.": ".token_mix.layers.0.0.",
        ".token_mixing.fc2.": ".token_mix.layers.1.",
        ".channel_mixing.fc1.": ".channel_mix.layers.0.0.",
        ".channel_mixing.fc2.": ".channel_mix.layers.1.",
        "blocks.": "backbone.layers.",
        "head.": "head.fc.",
    }
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith("norm."):
            key = f"backbone.ln1.{key.removeprefix('norm.')}"
        for ours, theirs in names.items():
            key = key.replace(ours, theirs, 1) if ours in key and "backbone.ln1" not in key else key
        state[key] = value
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "mm.pth")
    other = load(tmp_path / "mm.pth")
    assert other.about["layout"] == "mmpretrain" and other.config.norm_eps == 1e-5
    images = images_for(TINY, 2)
    weights = published.oracle_weights(arrays)
    wanted = oracle.mixer(images, weights, patch=(4, 4), depth=2, gelu="erf", eps=1e-5)
    assert oracle.difference(logits(other.double(), images), wanted) < 1e-10


# -- what is assumed is said; what cannot be told is asked ------------------------------------


def test_what_is_assumed_is_said(tmp_path):
    model = load(published.write(tmp_path / "file.npz", published.linen(TINY)))
    said = " ".join(model.notes)
    assert "GELU is tanh" in said and "[-1, 1]" in said and "1e-06" in said
    assert model.preprocess.mean == (0.5,) and model.preprocess.image_size == 12


def test_tokens_that_form_no_square_need_the_native_size(tmp_path):
    shape = published.Shape(P=4, C=12, L=1, T=5, D=20, S=6, K=3)
    path = published.write(tmp_path / "file.npz", published.linen(shape))
    with pytest.raises(UserError, match=r"6 tokens.*native_size"):
        load(path)
    assert load(path, native_size=(8, 12)).config.grid == (2, 3)


def test_one_error_lists_everything_that_differs(tmp_path):
    arrays = published.linen(TINY)
    del arrays["MixerBlock_1/LayerNorm_0/bias"]
    arrays["MixerBlock_0/channel_mixing/Dense_1/kernel"] = np.zeros((20, 11), np.float32)
    arrays["MixerBlock_1/extra/kernel"] = np.zeros(3, np.float32)
    arrays["head/bias"] = arrays["head/bias"].astype(np.float64)
    with pytest.raises(UserError) as caught:
        load(published.write(tmp_path / "file.npz", arrays))
    message = str(caught.value)
    for part in (
        "missing: blocks.1.token_norm.bias",
        "blocks.0.channel_mixing.fc2.weight: expected [12, 20], found [11, 20]",
        "unexpected: MixerBlock_1/extra/kernel",
        "head/bias: expected numbers of F32, F16, BF16, found F64",
    ):
        assert part in message


def test_a_missing_block_is_noticed(tmp_path):
    arrays = published.linen(published.named("S/32", blocks=4))
    gone = {name: a for name, a in arrays.items() if not name.startswith("MixerBlock_2/")}
    with pytest.raises(UserError, match=r"missing: blocks\.2\.token_norm\.weight"):
        load(published.write(tmp_path / "file.npz", gone))
    del arrays["MixerBlock_1/LayerNorm_0/scale"], arrays["MixerBlock_1/LayerNorm_0/bias"]
    with pytest.raises(UserError, match=r"missing: blocks\.1\.token_norm\.weight"):
        load(published.write(tmp_path / "file.npz", arrays))


@pytest.mark.parametrize("prefix", ["params/", "opt/target/"])
def test_a_training_checkpoint_has_more_than_weights(prefix, tmp_path):
    arrays = published.linen(TINY)
    state = published.prefixed(arrays, prefix) | published.prefixed(arrays, "opt/state/momentum/")
    model = load(published.write(tmp_path / "file.npz", state | {"extra/step": np.zeros(1)}))
    assert any(f"{len(arrays) + 1} tensors beside the weights" in note for note in model.notes)
    images = images_for(TINY, 2)
    wanted = expected(arrays, TINY, images)
    assert oracle.difference(logits(model.double(), images), wanted) < 1e-10


def test_a_native_size_that_does_not_fit_is_said(tmp_path):
    path = published.write(tmp_path / "file.npz", published.linen(TINY))
    with pytest.raises(UserError, match=r"9 tokens of 4 × 4 px.*have 6"):
        load(path, native_size=(8, 12))
    with pytest.raises(UserError, match="leave native_size out"):
        load("zoo:fashion-demo", native_size=28)
    with pytest.raises(UserError, match="not native_size"):
        load("N/7", native_size=28)


def test_a_file_of_another_model_says_what_is_in_it(tmp_path):
    np.savez(tmp_path / "vit.npz", **{"Transformer/encoderblock_0/kernel": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"holds no Mixer.*Transformer/encoderblock_0"):
        load(tmp_path / "vit.npz")


def test_narrow_numbers_become_float32_exactly(tmp_path):
    arrays = {k: v.astype(np.float16) for k, v in published.linen(TINY).items()}
    model = load(published.write(tmp_path / "half.npz", arrays))
    stem = arrays["stem/kernel"].transpose(3, 2, 0, 1).astype(np.float32)
    assert np.array_equal(model.state_dict()["stem.weight"].numpy(), stem)


@pytest.mark.parametrize("change", [{"tiles": True}, {"linear": True}])
def test_what_a_layout_cannot_hold_is_refused(change, tmp_path):
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.mixer import variant

    label, settings = ("article", {}) if "linear" in change else ("N/7", {"tiles": 2})
    model = MlpMixer(variant(label, **settings))
    with pytest.raises(UserError):
        write_layout(tmp_path / "x.npz", model, "google")


def test_weights_of_an_openvino_graph_are_told_as_such(tmp_path):
    """Not what merely lies beside one: `mixer export model.pth --to openvino` makes such a pair."""
    for name in ("model.bin", "model.pth"):
        (tmp_path / name).write_bytes(b"no zip file")
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(UserError, match=r"model\.bin has the weights of .*model\.xml: give that"):
        load(tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"model\.pth is no whole \.pth file"):
        load(tmp_path / "model.pth")

import json

import pytest

# Published or computed (facts of the architecture): label → parameters with 1000 classes,
# without head, with 21843 classes (None where not published), GMACs.
PUBLISHED = {
    "S/32": (19_104_624, 18_591_624, 29_797_083, 1.002),
    "S/16": (18_528_264, 18_015_264, 29_220_723, 3.777),
    "S/8": (20_646_504, 20_133_504, None, 14.875),
    "B/32": (60_293_428, 59_524_428, 76_321_695, 3.238),
    "B/16": (59_880_472, 59_111_472, 75_908_739, 12.602),
    "L/32": (206_939_264, 205_914_264, 228_303_339, 11.253),
    "L/16": (208_196_168, 207_171_168, 229_560_243, 44.548),
    "H/14": (432_350_952, 431_069_952, 459_050_835, 120.990),
}


def info(mixer, *words):
    code, out, err = mixer("info", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("label", PUBLISHED)
def test_published_figures(mixer, label):
    parameters, headless, many_classes, gmacs = PUBLISHED[label]
    found = info(mixer, label)
    assert found["parameters"] == parameters == sum(p["parameters"] for p in found["parts"])
    assert found["macs"] == pytest.approx(gmacs * 1e9, rel=1e-3)
    assert info(mixer, label, "--num-classes", "0")["parameters"] == headless
    if many_classes:
        assert info(mixer, label, "--num-classes", "21843")["parameters"] == many_classes


def test_article(mixer):
    found = info(mixer, "article")
    assert found["parameters"] == 1_207_996
    assert found["config"]["token_mixer"] == "linear" and not found["config"]["norm"]


def test_walk_folds_the_blocks_and_shows_the_article_s_shapes(mixer):
    code, out, _ = mixer("info", "B/16")
    assert code == 0
    for shape in ("[B, 3, 224, 224]", "[B, 196, 768]", "[B, 768]", "[B, 1000]"):
        assert shape in out
    assert out.count("token mixing 196 → 384 → 196") == 1 and "12 × block" in out
    assert "59,880,472 parameters" in out and "12.60 G MACs" in out
    assert "norm" not in mixer("info", "article")[1]


def test_settings_of_a_variant_can_be_changed(mixer):
    found = info(mixer, "S/16", "--image-size", "32", "48", "--in-channels", "1", "--depth", "2")
    assert found["config"]["image_size"] == [32, 48] and found["parts"][0]["output"] == [6, 512]
    once, twice = (info(mixer, "S/32", "--batch-size", n)["activation_bytes"] for n in "12")
    assert twice == 2 * once > 0


def test_stored_model_shows_where_it_comes_from(mixer, trained):
    code, out, _ = mixer("info", str(trained))
    assert code == 0 and "trained by tiny on" in out and "validation accuracy" in out
    assert info(mixer, str(trained))["about"]["step"] == 6
    code, _, err = mixer("info", str(trained), "--depth", "3")
    assert code == 2 and "cannot be changed" in err

"""Cost by the number of patches: closed forms, and exponents of laws that are known."""

import pytest

from mixerkit.benchmark.architectures import priced
from mixerkit.benchmark.patches import SIZES, contenders, exponents

KEPT, DENSE, SHARED = "Mixer, token width kept", "Mixer, dense", "Mixer, shared tiles"


def test_an_exponent_is_that_of_the_law_behind_the_figures():
    law = {"a": 1.0, "b": 1.7}
    rows = [
        {"family": name, "patches": n, "seconds": 3e-3 * n**power, "gmacs": 0.1 * n**2}
        for n in (256, 1024, 4096)
        for name, power in law.items()
    ]
    for found in exponents(rows):
        assert found["part"] == "exponents"
        for key in ("seconds", "seconds_of_largest_two"):
            assert found[key] == pytest.approx(law[found["family"]])
        assert found["macs"] == pytest.approx(2)


def test_the_end_of_a_sum_of_powers_is_nearer_to_the_larger_one():
    rows = [
        {"family": "a", "patches": n, "seconds": n + n * n / 1000, "gmacs": n}
        for n in (256, 1024, 4096)
    ]
    (found,) = exponents(rows)
    assert 1 < found["seconds"] < found["seconds_of_largest_two"] < 2


def test_mixers_are_linear_in_patches_unless_the_token_width_grows_with_them():
    macs = {}
    for size, _ in SIZES:
        for family, one in contenders(size, SIZES[0][0]).items():
            if family != "ViT":
                macs.setdefault(family, []).append(priced(one)[1])
    C, T, D = 768, 384, 3072
    for index, (size, _) in enumerate(SIZES):
        S, factor = (size // 16) ** 2, (size // 256) ** 2
        linear = S * 3 * 256 * C + 12 * 2 * S * C * D + C * 1000
        tokens = 12 * 2 * S * T * C
        assert macs[KEPT][index] == macs[SHARED][index] == linear + tokens
        assert macs[DENSE][index] == linear + factor * tokens

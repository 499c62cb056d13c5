"""Every protocol of `mixer evaluate` knows which options are another's."""

import pytest

from mixerkit.cli.protocols import ARGUMENTS, options

CASES = {
    "top1": ("--shots 5", "--shots belongs to --protocol fewshot, and this is top1"),
    "top1, =": ("--kinds=blur", "--kinds belongs to --protocol robustness"),
    "top1, _": ("--dry_run", "--dry-run belongs to --protocol avg5"),
    "a part of the images": ("--data.resize squash", "--protocol fewshot --help`"),
    "called otherwise": ("--root /data", "give --data.root instead"),
    "avg5": ("--protocol avg5 --data.root /data", "give --root instead"),
    "of three": ("--protocol avg5 --on x", "belongs to --protocol top1, fewshot and robustness"),
    "fewshot": ("--protocol fewshot --crop own", "and this is fewshot: leave --crop out"),
    "robustness": ("--protocol robustness --tasks pets", "belongs to --protocol avg5"),
    "nobody's": ("--shotz 5", "Unrecognized options: --shotz"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_option_of_another_protocol_is_said_to_be_one(case, mixer):
    words, says = CASES[case]
    code, out, err = mixer("evaluate", "zoo:fashion-demo", *words.split())
    assert (code, out) == (2, "") and says in err


@pytest.mark.parametrize("protocol", ARGUMENTS)
def test_the_options_are_those_of_the_help(protocol, mixer):
    code, out, _ = mixer("evaluate", "--protocol", protocol, "--help")
    assert code == 0
    for option in options(protocol) - {"--model"}:
        assert f"{option} " in out or f"{option}\n" in out, option

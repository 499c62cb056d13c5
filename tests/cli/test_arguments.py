"""Several numbers or choices may have commas between them; texts keep theirs."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from mixerkit.cli.arguments import WITHOUT_PREFIX, Flag, Word, parse
from mixerkit.errors import UserError


@dataclass(frozen=True)
class Inner:
    betas: tuple[float, float] = (0.9, 0.999)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    """What is done."""

    file: Word
    settings: Annotated[Inner, WITHOUT_PREFIX] = field(default_factory=Inner)
    inner: Inner = field(default_factory=Inner)
    shots: tuple[int, ...] = ()
    image_size: int | tuple[int, int] = 8
    kinds: tuple[Literal["blur", "jpeg"], ...] = ()
    text: str = ""
    quick: Flag = False


def parsed(*words: str) -> Outer:
    return parse(Outer, ["file", *words], command="do", examples="", options="--this way")


@pytest.mark.parametrize(
    "words",
    [("--shots", "1,5,10"), ("--shots=1,5,10",), ("--shots", "1,", "5", ",10"),
     ("--shots", "1, 5,10"), ("--shots", "1", "5", "10")],
)  # fmt: skip
def test_numbers_may_have_commas(words):
    assert parsed(*words).shots == (1, 5, 10)
    assert parsed(*words, "--quick") == parsed("--quick", *words)


def test_so_may_numbers_of_nested_ones_and_choices():
    assert parsed("--betas", "0.5,1e-3").settings.betas == (0.5, 1e-3)
    assert parsed("--inner.betas=-0.5,.9").inner.betas == (-0.5, 0.9)
    assert parsed("--image-size", "8,16").image_size == (8, 16)
    assert parsed("--image_size=8,16").image_size == (8, 16)
    assert parsed("--kinds", "blur,jpeg").kinds == ("blur", "jpeg")


def test_texts_keep_theirs():
    assert parsed("--text", "1,2").text == parsed("--text=1,2").text == "1,2"
    assert parsed("--names", "shark, white", "1,2").settings.names == ("shark, white", "1,2")
    found = parse(Outer, ["--shots", "1,5", "--text", "x", "1,5"], command="do", examples="")
    assert (found.file, found.shots) == ("1,5", (1, 5))


def test_choices_are_listed_as_people_do():
    with pytest.raises(UserError, match=r"'--kinds'\. Expected one of blur, jpeg\.\n"):
        parsed("--kinds", "fog")


def test_an_error_names_the_help_that_shows_the_options():
    for words, says in ((("--shots", "1,many"), "1,many"), (("--kinds", "blur,fog"), "blur,fog")):
        with pytest.raises(UserError, match=says) as caught:
            parsed(*words)
        assert "`mixer do --this way --help` shows every option" in str(caught.value)

"""What the processes of a run tell each other; one that is alone talks to nobody."""

import errno
import pickle
from pathlib import Path

import pytest

from mixerkit.checkpoint.checkpoints import NoneUsable
from mixerkit.checkpoint.lock import Taken
from mixerkit.errors import SAID_ELSEWHERE, RunFailed, UserError, is_marked, marked
from mixerkit.training.state import FiguresNotFinite
from mixerkit.training.world import LostProcess, World, _sent

ERRORS = [
    (UserError("text"), UserError),
    (Taken("text"), Taken),
    (NoneUsable(Path("folder"), []), UserError),
    (RunFailed("text"), RunFailed),
    (FiguresNotFinite("text", 7), FiguresNotFinite),
    (OSError(errno.ENOSPC, "full", "file"), OSError),
    (KeyError("text"), RunFailed),
    (IndexError("text"), IndexError),
    (OSError("text"), OSError),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda value: type(value).__name__)
def test_errors_arrive_as_what_they_are(error: Exception, kind: type) -> None:
    arrived = pickle.loads(pickle.dumps(_sent(error)))
    assert type(arrived) is kind and str(error) in str(arrived)
    assert getattr(arrived, "step", None) == getattr(error, "step", None)
    assert getattr(arrived, "errno", None) == getattr(error, "errno", None)


def test_what_another_process_says_is_known_through_what_is_made_of_it() -> None:
    try:
        try:
            raise marked(UserError("inner"), SAID_ELSEWHERE)
        except UserError as error:
            raise RunFailed("outer") from error
    except RunFailed as error:
        assert is_marked(error, SAID_ELSEWHERE)
    own = UserError("own")
    assert not is_marked(own, SAID_ELSEWHERE)
    own.__cause__ = own
    assert not is_marked(own, SAID_ELSEWHERE)


def test_alone_everything_is_done_at_once() -> None:
    alone = World()
    assert alone.sum(2.5) == 2.5 and alone.numbers_of_all([1, 2]) == [[1, 2]]
    assert alone.all_say("a") == alone.first_hears("a") == ["a"]
    assert alone.first_says(lambda: 3) == alone.after_first(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError), alone.agreed():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="Connection closed"), alone.noticing_loss():
        raise RuntimeError("Connection closed by peer")


def test_a_lost_process_is_told_from_other_failures() -> None:
    one_of_two = World(1, 2)
    with pytest.raises(LostProcess, match="Process 1 of 2"), one_of_two.noticing_loss():
        raise RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:5")
    with pytest.raises(RuntimeError, match="out of memory"), one_of_two.noticing_loss():
        raise RuntimeError("out of memory")

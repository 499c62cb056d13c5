"""The limit on what threads have in work together."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixerkit.data.budget import Budget


def test_never_more_than_the_total_and_everything_is_given_back():
    budget, draw = Budget(10), random.Random(0)
    in_work, most = [], []

    def take(amount):
        with budget.taken(amount):
            in_work.append(amount)
            most.append(sum(in_work))
            time.sleep(0)  # lets others in
            in_work.remove(amount)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [draw.randint(0, 10) for _ in range(2000)]))
    assert max(most) <= 10 and budget.free == 10


def test_an_error_gives_back_and_more_than_there_is_takes_all():
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), budget.taken(99):
        assert budget.free == 0
        _ = 1 / 0
    assert budget.free == 10


def test_who_comes_first_is_served_first():
    budget, order = Budget(10), []

    def take(amount):
        with budget.taken(amount):
            order.append(amount)

    with budget.taken(5):
        large = threading.Thread(target=take, args=(10,))
        large.start()
        while not budget.turn.locked():  # until it is waiting
            time.sleep(0)
        small = threading.Thread(target=take, args=(1,))
        small.start()
    large.join()
    small.join()
    assert order == [10, 1]

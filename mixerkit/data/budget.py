"""A limit on what all threads together may have in work, such as pixels being decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """`total` units, which threads take and give back; who comes first is served first."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self.turn = threading.Lock()
        self.given_back = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until `amount` units (at most `total`) are free, and has them meanwhile."""
        amount = min(amount, self.total)
        with self.turn, self.given_back:  # those behind wait too, so that small does not beat large
            self.given_back.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self.given_back:
                self.free += amount
                self.given_back.notify()

"""The garbage collector of a process that serves."""

import gc
from typing import Final

# Containers that a process makes beyond those that it lets go before the collector looks at the young ones; a page of
# messages makes ten thousand, and nearly all go by themselves.
_YOUNG: Final = 20_000


def spare_calls() -> None:
    """Lets the collector look at what calls leave behind, and no more at what was there before the first of them.

    By default it looks after each 700 containers, now and then at all that the process holds, some hundred thousand
    objects of libraries that stay for ever: half the time of reading a thousand rows went there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)

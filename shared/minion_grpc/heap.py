"""The C library's heap of a process that serves."""

import ctypes
import sys
from typing import Final

# What glibc's `mallopt` sets, by the numbers of its `malloc.h`.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
# A page of a thousand messages takes three MiB on its way: as rows, as a reply, as bytes, in gRPC's hands.
_KEPT_BYTES: Final = 16 * 1024 * 1024
_FROM_THE_SYSTEM_BYTES: Final = 4 * 1024 * 1024


def keep_freed() -> None:
    """Keeps what a large reply took for the next one: up to 16 MiB at the end of each heap, where glibc is there.

    By default glibc gives it back to the system at once and asks for it again at the next reply, which the kernel then
    hands out page by page: an eighth of the CPU of listing a thousand messages went there.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has none.
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _FROM_THE_SYSTEM_BYTES)

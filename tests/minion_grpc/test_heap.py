"""The C library's heap of a process that serves."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource
from minion_grpc.heap import keep_freed


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        [bytearray(100_000) for _ in range(30)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


keep_freed()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of another C library is left as it is")
def test_what_a_reply_took_is_there_for_the_next() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 1_000

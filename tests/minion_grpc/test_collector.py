"""The garbage collector of a process that serves."""

import subprocess
import sys

_PROGRAM = """
import gc
from minion_grpc.collector import spare_calls
before = len(gc.get_objects())
spare_calls()
print(gc.get_threshold()[0] >= 10_000, gc.get_freeze_count() >= before * 0.9, gc.isenabled())
"""


def test_what_was_there_at_the_start_is_looked_at_no_more() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "True", "True"]

"""Runs the gateway, and kills or pauses it where it is told to.

`python -m tests.faults.crashing ORDERS`: the file ORDERS holds `{"point": …, "pass": n, "signal": "SIGKILL"}`, or
nothing. It is read at every point, so that one process takes several orders; when an order is carried out, the file is
emptied first, so that a restarted or continued process doesn't meet it again.
"""

import json
import os
import signal
import sys
from pathlib import Path

import minion_gateway.__main__ as gateway
from minion_gateway.runs import points
from minion_grpc import verification

from tests.faults.large import with_large


class Executioner:
    """Counts how often the ordered point was passed, and does what was ordered."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders
        self._text = ""
        self._passed = 0

    def __call__(self, name: str) -> None:
        """Looks whether this is the place and the time."""
        text = self._orders.read_text()
        if text != self._text:
            self._text, self._passed = text, 0
        if not text:
            return
        order = json.loads(text)
        if order["point"] != name:
            return
        self._passed += 1
        if self._passed == order["pass"]:
            self._orders.write_text("")
            self._text = ""
            os.kill(os.getpid(), getattr(signal, order["signal"]))


if __name__ == "__main__":
    # As the tests' own services do: a machine that stops for two seconds is no fault that is looked for here.
    verification._TIMEOUT_SECONDS = 30.0
    points.observe(Executioner(Path(sys.argv.pop())))
    gateway.builtins = with_large(gateway.builtins)
    gateway.main()

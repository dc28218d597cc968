"""Loaded into a Python server before its own code: what it writes is disturbed as files beside this one say.

`noise`: a line that is no message before each. `garbage`: nothing but such lines. `slow`: each write late.
"""

import io
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def on(name):
    """Whether this is asked for now."""
    return os.path.exists(os.path.join(HERE, name))


class Disturbed(io.BufferedWriter):
    """Standard output with a fault."""

    def fileno(self):
        """It has none of its own, so that nobody writes around it."""
        raise OSError("disturbed")

    def write(self, data):
        if on("slow"):
            time.sleep(1.2)
        if on("noise"):
            super().write(b"Downloading: this is no message\n")
        super().write(b"\xff not JSON {\n" if on("garbage") else data)
        return len(data)


sys.stdout = io.TextIOWrapper(Disturbed(io.FileIO(1, "wb", closefd=False)), encoding="utf-8")

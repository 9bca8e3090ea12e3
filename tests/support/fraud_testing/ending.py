"""How tests end a server that they started."""

from __future__ import annotations

import signal
import subprocess


def end(process: subprocess.Popen[bytes], how: signal.Signals, seconds: float) -> None:
    """Signals a process that still runs, and kills it where it hasn't ended after so long."""
    if process.poll() is not None:
        return
    process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

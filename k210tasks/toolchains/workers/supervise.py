"""Runs one program and ends it when our own stdin ends: ``supervise.py PROGRAM ARGUMENT…``.

Between us and a vendor's program, which itself would go on when we are killed. Ends the
way the program did: same exit code, or by the same signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2)
    except OSError as error:
        sys.stderr.write("cannot start %s: %s\n" % (sys.argv[1], error.strerror))
        return 126

    # Ctrl-C reaches the whole group; whether the program then ends is for the other end to see.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        program.kill()  # and then end as it did

    threading.Thread(target=watch, daemon=True).start()
    code = program.wait()
    if code < 0:
        os.kill(os.getpid(), -code)
        return 128 - code  # where the signal is one that can be survived
    return code


if __name__ == "__main__":
    sys.exit(main())

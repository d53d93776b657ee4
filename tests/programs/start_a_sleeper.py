"""Starts a process in a session of its own, which starts another; both wait, as vLLM's workers do."""

import subprocess
import sys

if sys.argv[1:] == ["sleep"]:
    subprocess.run(["sleep", "60"])
else:
    subprocess.run([sys.executable, __file__, "sleep"], start_new_session=True)

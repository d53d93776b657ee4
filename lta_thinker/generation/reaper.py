"""When a process is gone, kill its descendants: vLLM's outlive a killed evaluation and keep the GPUs' memory.

python reaper.py PID    # started by VllmSampler; looks once a second
"""

import os
import sys
import time

import psutil


def watch(parent: psutil.Process) -> None:
    """Return when the parent is gone and its descendants are killed."""
    seen, own = set(), psutil.Process(os.getpid())
    try:
        while parent.status() != psutil.STATUS_ZOMBIE:
            seen |= {*parent.children(recursive=True)} - {own}
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    for process in seen:
        try:
            process.kill()  # never another process that got the number of one that ended
        except psutil.NoSuchProcess:
            pass


if __name__ == "__main__":
    try:
        watch(psutil.Process(int(sys.argv[1])))
    except psutil.NoSuchProcess:
        pass

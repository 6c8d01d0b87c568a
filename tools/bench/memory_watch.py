"""What a process holds of memory at its most."""

import os
import threading
import time
from pathlib import Path


class MemoryWatch(threading.Thread):
    """Highest anonymous memory (resident minus shared of /proc/self/statm), looked at about every 5 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self.start()

    def run(self):
        while True:
            self.look()
            time.sleep(0.005)

    def look(self):
        _, resident, shared = map(int, Path("/proc/self/statm").read_text().split()[:3])
        self.peak = max(self.peak, (resident - shared) * os.sysconf("SC_PAGE_SIZE"))

    def take_peak(self):
        """The peak since the last time, after a last look."""
        self.look()
        peak, self.peak = self.peak, 0
        return peak

#!/usr/bin/env python3
"""Sends jobs to nodes, one of which has a clock that is minutes ahead: it runs them here, at once.

Jobs of the rule SKEWED_RULE are on that node: what they wrote gets the date that it would have had.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

AHEAD = 300  # seconds
script = Path(sys.argv[-1])
about = json.loads(script.read_text().partition("# properties = ")[2].partition("\n")[0])
started = time.time() - 0.05
done = subprocess.run(["sh", script])
if about.get("rule") == os.environ["SKEWED_RULE"]:
    for path in Path("results").rglob("*"):
        if started <= path.stat().st_mtime < time.time() + 1:
            os.utime(path, (time.time() + AHEAD,) * 2)
sys.exit(done.returncode)

"""A strict stand-in for Huawei's mindietorch, for tests only. See fake_ascend."""

import sys

if "torch" not in sys.modules:
    raise ImportError("torch must be imported before mindietorch")
if "torch_aie" in sys.modules:
    raise ImportError("mindietorch and torch_aie cannot be in one process")

import fake_ascend

fake_ascend.install(__name__)
del fake_ascend, sys

"""A strict stand-in for Huawei's torch_aie, for tests only. See fake_ascend."""

import sys

if "torch" not in sys.modules:
    raise ImportError("torch must be imported before torch_aie")
if "mindietorch" in sys.modules:
    raise ImportError("torch_aie and mindietorch cannot be in one process")

import fake_ascend

fake_ascend.install(__name__)
del fake_ascend, sys

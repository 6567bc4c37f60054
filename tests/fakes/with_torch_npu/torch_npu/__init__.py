"""A strict stand-in for Huawei's torch_npu, for tests only. See fake_npu."""

import fake_npu

fake_npu.install(__name__)
__fake__ = True
npu = fake_npu.RUNTIME
del fake_npu

"""A strict stand-in for Huawei's aclruntime, for tests only. See fake_acl."""

from fake_acl import Tensor, dtype

__all__ = ["Tensor", "dtype"]

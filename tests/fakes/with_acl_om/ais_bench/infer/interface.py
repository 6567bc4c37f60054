"""Where InferSession is."""

from fake_acl import InferSession

__all__ = ["InferSession"]

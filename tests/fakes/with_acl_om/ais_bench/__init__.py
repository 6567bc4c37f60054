"""A strict stand-in for Huawei's ais_bench, for tests only. See fake_acl."""

__fake__ = True

"""The command line."""

import sys

import fake_acl

fake_acl.ais_bench(sys.argv[1:])

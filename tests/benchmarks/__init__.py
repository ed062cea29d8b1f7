"""Measurements that a user can run; they are no part of the test suite."""

"""Fakes made on the fly from genuine clips."""

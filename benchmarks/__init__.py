"""Ratios measured in one run; each module prints its own."""

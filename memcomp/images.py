"""The name under which images are loaded everywhere: :func:`memcomp.data.load` and what belongs to it."""

from memcomp.data import POOLS, Pool, absolute, check_drawings, find, load, named, provenance, screened

__all__ = ["POOLS", "Pool", "absolute", "check_drawings", "find", "load", "named", "provenance", "screened"]

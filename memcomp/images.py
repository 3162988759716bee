"""The name under which images are loaded everywhere: :func:`memcomp.data.load` and what belongs to it."""

from memcomp.data import POOLS, Pool, load, provenance

__all__ = ["POOLS", "Pool", "load", "provenance"]

"""The name under which notebooks load images; everything is made in :mod:`memcomp.data`."""

from memcomp.data import POOLS, Pool, load, provenance

__all__ = ["POOLS", "Pool", "load", "provenance"]

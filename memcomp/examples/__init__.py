"""Networks that are written as a reader would write them, each a file with ``build(width, seed)``.

They are named like ``memcomp.examples.flat_mlp:build`` wherever an architecture is named.
"""

"""The paper's definitions, claims, lemmas, corollaries and theorems, as numbers.

`memcomp.theory.predictions` holds what each statement says, `memcomp.theory.structure` what a data matrix
shows, `memcomp.theory.checks` compares the two in the form of `memcomp.theory.base`, and
`memcomp.theory.statements` is the table of all of them.
The statements themselves, with sketches of their proofs, are on the book's theory pages.
"""

from memcomp.theory import base, checks, costs, predictions, statements, structure
from memcomp.theory.base import Check
from memcomp.theory.statements import PAPER_N, STATEMENTS, paper_law, verify

__all__ = [
    "PAPER_N",
    "STATEMENTS",
    "Check",
    "base",
    "checks",
    "costs",
    "paper_law",
    "predictions",
    "statements",
    "structure",
    "verify",
]

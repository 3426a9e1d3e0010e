"""Which programs load an export: what was seen of each, and what follows for the export at hand."""

from studio.core.runtimes.claims import Claim, claim_sentences, claims
from studio.core.runtimes.table import RUNTIMES, Runtime

__all__ = ["RUNTIMES", "Claim", "Runtime", "claim_sentences", "claims"]

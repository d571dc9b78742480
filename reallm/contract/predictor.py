"""The contract of predictors: that of decoders, whose outputs are logits."""

from reallm.contract.decoder import CHECKS

__all__ = ["CHECKS"]

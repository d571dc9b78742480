"""Configuration in HyperPyYAML: checked before anything is built, resolved, written down."""

from reallm.config.check import TRAINING_KEYS, check
from reallm.config.document import Problem
from reallm.config.resolved import Config, load, override_key

__all__ = ["TRAINING_KEYS", "Config", "Problem", "check", "load", "override_key"]

"""A trained system as a folder that is safe to share and to load (layout.py says what lies in it)."""

from reallm.bundle.layout import DESCRIPTION, WEIGHTS
from reallm.bundle.places import load_shared, load_system, load_teacher, published
from reallm.bundle.reader import load, read_description, refuse_pickles
from reallm.bundle.writer import export, model_card

__all__ = [
    "DESCRIPTION",
    "WEIGHTS",
    "export",
    "load",
    "load_shared",
    "load_system",
    "load_teacher",
    "model_card",
    "published",
    "read_description",
    "refuse_pickles",
]

"""What tests of recipes share."""

from pathlib import Path

import pytest

from tests.dummies.recipe import RECIPES, copy_recipe


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The run.sh of a recipe, copied; every recipe in turn, or those that a test names."""
    return copy_recipe(request.param, tmp_path)

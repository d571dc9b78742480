"""What lies where in a bundle's folder: known to the writer and the reader.

::

    bundle.json          {"format": 1, "metadata": {…}, "system": {"kind", "name", "kwargs"}}, components nested in kwargs
    model.safetensors    the weights, half precision
    README.md            the model card
    <component>.<argument>…   files that components were built from, such as the tokenizer's

Values that JSON does not have are written as objects of one key: ``{"asset": file}``, ``{"tuple": […]}``,
``{"mapping": {…}}``, ``{"chunk": {…}}``, ``{"same_as": "encoder"}`` for a component that stands in two places.
"""

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"


def join(place: str, name: str) -> str:
    """The place of a component's argument; the system itself is at ""."""
    return f"{place}.{name}" if place else name

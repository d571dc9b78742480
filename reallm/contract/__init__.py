"""The contract tests of every plugin kind, importable so that `reallm check NAME` runs them for outside plugins."""

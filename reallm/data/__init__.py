"""Corpora, cuts, datasets: audio and text in, `Batch` out. Everything that touches lhotse lives here."""

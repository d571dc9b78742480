"""One file a corpus: recordings on disk in, lhotse manifests out."""

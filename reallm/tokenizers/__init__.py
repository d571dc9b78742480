"""Text to token ids and back. One file, one tokenizer."""

"""Tokenizers of published language models: both families against the library's own decoding, words that stand anywhere, bad files."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from reallm.aligners.retokenize import retokenize, token_pieces
from reallm.errors import InputError
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.huggingface import HuggingFaceTokenizer
from reallm.types import Alignment

TEXT = "the quick brown fox jumps over the lazy dog while the other dogs watch the foxes"


def llama(folder: Path) -> Path:
    """Pieces with U+2581 and byte pieces, as Llama 2 has them: normalizer, no pre-tokenizer, decoder of four steps."""
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=90, special_tokens=special, show_progress=False))
    content = json.loads(trained.to_str())
    vocab, merges = content["model"]["vocab"], [tuple(pair) for pair in content["model"]["merges"]]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    model = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    model.add_special_tokens(special)
    model.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence(steps)
    path = folder / "tokenizer.json"
    model.save(str(path))
    return path


@pytest.fixture(params=["llama", "gpt2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(llama(tmp_path)) if request.param == "llama" else HuggingFaceTokenizer.tiny(tmp_path)


@pytest.mark.parametrize("text", [TEXT, "a fox", "naïve façade – 東京 🦊", "the </s> <|end|> <s> dog", "1 + 1 = 2"])
def test_decodes_as_the_library_does(tokenizer: HuggingFaceTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert Tokenizer.from_file(str(tokenizer.path)).decode(ids, skip_special_tokens=True).strip() == text
    assert not set(ids) & set(tokenizer.special_ids.values())


def test_a_word_has_the_same_tokens_everywhere(tokenizer: HuggingFaceTokenizer) -> None:
    assert tokenizer.encode("fox fox") == 2 * tokenizer.encode("fox")
    assert token_pieces(tokenizer, tokenizer.encode("dogs dogs"))[0].startswith("d")


def test_alignments_are_carried_over(tokenizer: HuggingFaceTokenizer, tmp_path: Path) -> None:
    characters = CharacterTokenizer.train([TEXT], tmp_path / "characters.json")
    ids = characters.encode("the fox jumps")
    edges = torch.arange(len(ids) + 1) * 800
    alignment = Alignment(torch.tensor(ids), edges[:-1], edges[1:], torch.zeros(len(ids)).double(), 8000)
    carried = retokenize(alignment, token_pieces(characters, ids), tokenizer)
    assert tokenizer.decode(carried.token_ids.tolist()) == "the fox jumps"
    assert carried.start_samples[0] == 0 and carried.end_samples[-1] == 800 * len(ids)
    assert carried.end_samples[len(tokenizer.encode("the")) - 1] == 3 * 800


def test_a_tokenizer_of_a_size_is_made_of_transcripts(tmp_path: Path) -> None:
    for size, made, length in ((260, 260, 8), (32000, 268, 4)):
        tokenizer = HuggingFaceTokenizer.train(["die Katze saß", "die Katzen saßen"], tmp_path / "tokenizer.json", size)
        assert tokenizer.vocab_size == made and tokenizer.decode(tokenizer.encode("der Saß")) == "der Saß"
        assert len(tokenizer.encode("die Katze")) == length, "of pairs that occur twice"
    with pytest.raises(InputError, match="vocab_size is 256: at least 257"):
        HuggingFaceTokenizer.train(["a"], tmp_path / "tokenizer.json", 256)


def test_the_fingerprint_is_that_of_the_vocabulary(tmp_path: Path) -> None:
    first = HuggingFaceTokenizer.tiny(tmp_path)
    content = json.loads(first.path.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    first.path.write_text(json.dumps(content))
    again = HuggingFaceTokenizer(first.path)
    assert again.fingerprint == first.fingerprint and len(again.encode(TEXT)) > 2
    content["model"]["merges"] = content["model"]["merges"][:-1]
    first.path.write_text(json.dumps(content))
    assert HuggingFaceTokenizer(first.path).fingerprint != first.fingerprint


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match=r"tokenizer.json does not exist: the LLM's folder has no tokenizer.json"):
        HuggingFaceTokenizer(path)
    with pytest.raises(InputError, match=r"is a folder: name the tokenizer.json in it"):
        HuggingFaceTokenizer(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="not a readable JSON file"):
        HuggingFaceTokenizer(path)
    path.write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="it has no model"):
        HuggingFaceTokenizer(path)
    path.write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(InputError, match="is no tokenizer"):
        HuggingFaceTokenizer(path)
    HuggingFaceTokenizer.tiny(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}))
    with pytest.raises(InputError, match="has the decoder WordPiece"):
        HuggingFaceTokenizer(path)


def test_a_text_that_it_cannot_spell_or_changes_is_named(tmp_path: Path) -> None:
    path = llama(tmp_path)
    content = json.loads(path.read_text())
    content["model"]["byte_fallback"] = False
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"U\+00E4.*not known"):
        HuggingFaceTokenizer(path).encode("the däg")
    lower = HuggingFaceTokenizer.tiny(tmp_path)
    content = json.loads(lower.path.read_text())
    lower.path.write_text(json.dumps({**content, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(InputError, match=r"makes 'the dog' of 'The dog' \('T' \(U\+0054"):
        HuggingFaceTokenizer(lower.path).encode("The dog")

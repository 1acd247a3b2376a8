"""Byte-level BPE over all languages of the report: single digits, words with their combining marks kept whole."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .store import absent

END_OF_TEXT = "<|endoftext|>"
SPECIAL = ("<pad>", "<eos>", "<unk>")  # of a `word_tokenizer`
# GPT-2's pattern lets a word end at a combining mark, which cuts Devanagari and Khmer words into pieces.
_PATTERN = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 12_288) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        texts: a language-balanced sample.
        vocab_size: 8-16 k; includes the 256 bytes and the end-of-text token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer saved in a folder.

    Raises:
        FileNotFoundError: no `tokenizer.json` there.
    """
    if not (Path(folder) / "tokenizer.json").exists():
        raise FileNotFoundError(absent(f"tokenizer.json in {folder}"))
    return PreTrainedTokenizerFast.from_pretrained(folder)


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """Words between spaces are tokens, behind those of `SPECIAL`."""
    every = [*SPECIAL, *vocabulary]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(every)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")

"""A word-level tokenizer for small closed vocabularies, with digits one by one.

Spaces belong to the pieces, so joining the tokens gives back the text exactly: `12 - 3` is
`1` `2` ` - ` `3`. A chat is the user's text, a separator, the solution and the end token.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, SEPARATOR, UNKNOWN = "<pad>", "<eos>", "<sep>", "<unk>"

# A word with the space before it, a digit, signs with the spaces around them, or white space.
PIECE = r" ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+ ?|\s"

ALWAYS = (*"0123456789", " ", "\n")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{%- if message['role'] == 'assistant' -%}}{SEPARATOR}{{{{ message['content'] }}}}{EOS}"
    "{%- else -%}{{ message['content'] }}{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{SEPARATOR}{{%- endif -%}}"
)


def split_pieces(texts: Iterable[str]) -> list[str]:
    """Lists the distinct pieces of some texts, sorted."""
    splitter = _splitter()
    return sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})


def build_tokenizer(texts: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """Builds a tokenizer whose vocabulary is the pieces of the given texts.

    Args:
        texts: Everything that must be representable; digits, the space and the newline always are.
        max_length: Most tokens the model takes.

    Returns:
        The tokenizer; ids 0 to 3 are padding, end, separator and unknown.
    """
    specials = [PAD, EOS, SEPARATOR, UNKNOWN]
    pieces = [piece for piece in split_pieces(texts) if piece not in ALWAYS]
    vocabulary = {token: index for index, token in enumerate([*specials, *ALWAYS, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[SEPARATOR],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _splitter() -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(PIECE), behavior="isolated")

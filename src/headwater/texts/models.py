"""Language models that are directories in Hugging Face's form, with their tokenizers."""

import dataclasses
import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, Prompts
from headwater.networks.decoders.architecture import Precision
from headwater.networks.decoders.changes import (
    with_gradient_accumulation,
    with_gradient_checkpointing,
)
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.structured import Structure, StructuredDecoder
from headwater.networks.hugging_face import (
    family_named,
    read_decoder,
    write_decoder,
    write_reward_model,
)
from headwater.networks.pretrained.adapters import base_of, holds_adapters, read_adapters
from headwater.networks.pretrained.families import FAMILIES, family_of
from headwater.networks.pretrained.files import read_json, write_json
from headwater.networks.reward_head import WithReward
from headwater.texts.tokenizers import AbstractTokenizer, ByteTokenizer, read_tokenizer

_CONTENT = (".json", ".safetensors", ".jinja")
"""Files of a model that say what it is: weights, settings, tokens and a template for chats."""

_STRUCTURE = "structured_attention.json"
"""Says how demonstrations are read, where a model reads them apart from each other."""


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model with what turns text into its tokens.

    **Arguments:** `decoder`; `tokenizer`; `directory`: where both are, if they are in one;
    `structure`: how it reads demonstrations, if apart from each other.
    """

    decoder: Decoder
    tokenizer: AbstractTokenizer
    directory: Path | None = None
    structure: Structure | None = None

    @property
    def network(self) -> AbstractTokenNetwork:
        """What reads and writes: the decoder, with its structure if there is one."""
        if self.structure is None:
            return self.decoder
        return StructuredDecoder(self.decoder, *self.structure)  # pyright: ignore[reportArgumentType]

    def text(self, tokens: np.ndarray) -> str:
        """What these tokens say, without those that only mark beginning, end and padding."""
        return self.tokenizer.decode(tokens)

    def write(self, decoder: Decoder, directory: Path) -> None:
        """Writes `decoder`, trained from this model, into a directory that transformers loads.

        A structure is written beside it, which transformers does not know of.
        """
        write_decoder(
            decoder,
            directory,
            tokenizer=self.directory,
            end=self.tokenizer.ends,
            overwrite=True,
        )
        (directory / _STRUCTURE).unlink(missing_ok=True)
        if self.structure is not None:
            write_json(directory / _STRUCTURE, self.structure._asdict())
        if isinstance(self.tokenizer, ByteTokenizer):
            self.tokenizer.write(directory)

    def unwritten(self, decoder: Decoder) -> str | None:
        """Why `decoder`, trained from this model, cannot be written, or `None` if it can be."""
        try:
            family_of(decoder.architecture)
        except SpecificationError as error:
            return str(error)
        return None

    def has_scorer(self, network: WithReward) -> bool:
        """Whether transformers has reward models of this kind; `network`: without adapters."""
        decoder = network.network
        assert isinstance(decoder, Decoder)
        kind = None if self.directory is None else family_named(self.directory)
        return FAMILIES[family_of(decoder.architecture, kind)].scorer is not None

    def write_scorer(self, network: WithReward, directory: Path) -> None:
        """Writes a reward model that began as this model, where transformers loads it."""
        write_reward_model(
            network,
            directory,
            tokenizer=self.directory,
            end=self.tokenizer.ends,
            padding=self.tokenizer.padding,
            overwrite=True,
        )
        if isinstance(self.tokenizer, ByteTokenizer):
            self.tokenizer.write(directory)


def load_language_model(
    directory: str | Path,
    *,
    adapters: str | Path | None = None,
    dtype: Precision | None = None,
    stored: Precision | None = None,
    gradient_checkpointing: bool = False,
    gradient_accumulation: int = 1,
) -> LanguageModel:
    """The model and the tokenizer in a directory; bytes, if there is no `tokenizer.json`.

    A directory of adapters in PEFT's form stands for the model that they name with them merged in.

    **Arguments:** `adapters`: a directory of such, to be merged into the model; `dtype`, `stored`:
    as of `read_decoder`; `gradient_checkpointing`, `gradient_accumulation`: see `Architecture`.

    Raises `DataError` for what is missing, damaged, or does not fit together.
    """
    directory, adapters = model_and_adapters(directory, adapters)
    decoder = read_decoder(directory, dtype=dtype, stored=stored)
    if adapters is not None:
        decoder = read_adapters(adapters, decoder, family=family_named(directory)).merged()
    if gradient_checkpointing:
        decoder = with_gradient_checkpointing(decoder)
    if gradient_accumulation != 1:
        decoder = with_gradient_accumulation(decoder, gradient_accumulation)
    tokenizer: AbstractTokenizer = ByteTokenizer()
    has_tokenizer = (directory / "tokenizer.json").is_file()
    if has_tokenizer:
        tokenizer = read_tokenizer(directory)
    try:
        tokenizer.fits(decoder.vocabulary)
    except DataError as error:
        bytes_alone = "there is no tokenizer.json, so that bytes are tokens, and "
        missing = "" if has_tokenizer else bytes_alone
        raise DataError(f"{directory}: {missing}{error}") from None
    model = LanguageModel(decoder, tokenizer, directory)
    if not (directory / _STRUCTURE).is_file():
        return model
    try:
        model = dataclasses.replace(model, structure=Structure(**read_json(directory / _STRUCTURE)))
        # Refuses what does not fit the decoder.
        _ = model.network
    except (TypeError, SpecificationError) as error:
        raise DataError(f"{directory / _STRUCTURE}: {error}") from None
    return model


def model_and_adapters(
    directory: str | Path, adapters: str | Path | None = None
) -> tuple[Path, Path | None]:
    """The directory of a model and that of the adapters on it, if there are any.

    **Arguments:** `directory`: of a model, or of adapters that name their model; `adapters`: where
    the model's directory does not say it. Raises `DataError` where the named model is not found.
    """
    directory = Path(directory)
    if adapters is None and holds_adapters(directory):
        return base_of(directory), directory
    return directory, None if adapters is None else Path(adapters)


def model_fingerprint(directory: str | Path, adapters: str | Path | None = None) -> str:
    """What tells the content of a model's directory from others: of weights, settings and tokens.

    **Arguments:** `adapters`: a directory whose content belongs to it.

    Raises `DataError` for a file that cannot be read.
    """
    digest = hashlib.sha256()
    paths = sorted(Path(directory).iterdir())
    paths += [] if adapters is None else sorted(Path(adapters).iterdir())
    for path in paths:
        if path.suffix in _CONTENT and path.is_file():
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"{path}: {error.strerror or error}") from None
            digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def prompt_starts(data: Completions) -> np.ndarray:
    """Tokens before each response."""
    return np.argmax(np.asarray(data.response), axis=-1)


def prompts_within(
    data: Completions, model: LanguageModel, where: str | Path, new_tokens: int
) -> Prompts:
    """The prompts of texts, of one width. Raises `DataError` if answers do not fit behind them.

    **Arguments:** `where`: what the texts came from, for messages.
    """
    longest = int(prompt_starts(data).max())
    context, least = model.decoder.context, len(model.tokenizer.begin)
    if longest <= least or longest + new_tokens > context:
        raise DataError(
            f"{where}: prompts of up to {longest} tokens and {new_tokens} new ones must "
            f"fit into a context of {context}, and no prompt may be empty: take fewer new tokens, "
            "or a file with the columns prompt and completion"
        )
    start = prompt_starts(data).astype(np.int32)
    kept = np.arange(longest) < start[..., None]
    # What follows a prompt is the answer, which is nobody's to see.
    tokens = np.where(kept, np.asarray(data.tokens)[..., :longest], 0)
    return Prompts(jnp.asarray(tokens), jnp.asarray(start))

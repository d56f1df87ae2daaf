"""How good the exact engine's answers are: beside the same file's model in float64, and beside llama.cpp.

Each of the three says what comes next after every token of a text; what is kept of that is two numbers a token, so a
long text and a large vocabulary take no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks._float_model import FloatModel
from benchmarks._voices import begin, exact_voice, float_rows, llama_voice, log_probability

from assay.apps.figures import Figure, Say
from assay.core.errors import InvalidRequest
from assay.engines.llama_model import LlamaModel

TEXTS: Final = Path(__file__).with_name("texts")
"""Texts that come with the repository, written for it."""
MOST_TOKENS: Final = 2_000
"""Of a text; what comes after them is not read."""
FEW_TOKENS: Final = 250
"""Of shorter texts the figures are rough: one token is more than 0.4 % of them."""
MOST_BYTES: Final = 1 << 16
"""Of a file: more than `MOST_TOKENS` tokens of any language."""
DIFFERENCE: Final = 0.5
"""Bar, in percent: how far the perplexity may be from that of float64."""
AGREEMENT: Final = 97.0
"""Bar, in percent: how often the most probable token must be that of float64."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as one model's tokenizer reads it."""

    name: str
    tokens: tuple[int, ...]
    """With the model's beginning-of-text token, where it wants one."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a model made of a text of n tokens: n - 1 predictions, each of the token that follows."""

    losses: np.ndarray
    """float64 [n - 1]: minus the logarithm of the probability of the token that follows, in nats."""
    choices: np.ndarray
    """int64 [n - 1]: the most probable token."""

    @property
    def perplexity(self) -> float:
        """exp of the mean loss; at most 10^304."""
        return float(np.exp(min(self.losses.mean(), 700.0)))

    def difference(self, other: Reading) -> float:
        """Percent by which the perplexity is over that of `other`."""
        return 100 * float(np.expm1(min(self.losses.mean() - other.losses.mean(), 700.0)))

    def agreement(self, other: Reading) -> float:
        """Percent of predictions whose most probable token is that of `other`."""
        return 100 * float((self.choices == other.choices).mean())


def read(rows: Iterable[np.ndarray], tokens: Sequence[int]) -> Reading:
    """Compare the logits after each token with the token that follows."""
    losses, choices = [], []
    for row, following in zip(rows, [*tokens[1:], None], strict=True):
        if following is not None:
            losses.append(-log_probability(row, following))
            choices.append(int(row.argmax()))
    return Reading(np.array(losses), np.array(choices))


def shipped() -> list[Path]:
    """The texts that come with the repository."""
    return sorted(TEXTS.glob("*.txt"))


def read_file(path: Path, say: Say) -> str:
    """A file's text, at most the first `MOST_BYTES` of it.

    Raises:
        InvalidRequest: it is not a file, cannot be read, or is not text in UTF-8.
    """
    try:
        if not path.is_file():  # nor a pipe or device, which may never end
            raise InvalidRequest(f"{path} is not a file", remedy="name text files, or none for those that are shipped")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidRequest(
            f"{str(path)[:200]} cannot be read ({error})", remedy="check the path and its permissions"
        ) from error
    cut = len(data) > MOST_BYTES
    if cut:
        say(f"{path.name}: only its first {MOST_BYTES >> 10} KiB are read")
        data = data[:MOST_BYTES]
        while data and data[-1] & 0xC0 == 0x80:  # the cut may go through a character: drop its bytes
            data = data[:-1]
        data = data[:-1]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not text in UTF-8 (byte {error.start})", remedy="convert it first") from error
    if "\0" in text:
        raise InvalidRequest(f"{path} is not text: it has NUL bytes", remedy="name text files")
    return text


def tokens_of(name: str, text: str, model: LlamaModel, say: Say) -> Text:
    """The text as the model reads it, at most `MOST_TOKENS` tokens of it and no more than the model was trained on.

    Raises:
        InvalidRequest: there is nothing to predict in it.
    """
    most = max(2, min(MOST_TOKENS, model.n_ctx_train))
    tokens = begin(model) + model.tokenizer.encode(text, special=False)
    if len(tokens) < 2:
        raise InvalidRequest(f"{name} has no text to predict", remedy=f"give it {FEW_TOKENS} tokens or more")
    if len(tokens) > most:
        say(f"{name}: only the first {most} of its {len(tokens)} tokens count")
    elif len(tokens) < FEW_TOKENS:
        say(f"{name}: {len(tokens)} tokens are few, its figures are rough")
    return Text(name, tokens[:most])


def text_figures(say: Say, path: Path, files: Sequence[Path] = ()) -> Iterator[Figure]:
    """Perplexities and agreements of the GGUF at `path` on each of the files (none: those that are shipped).

    Raises:
        InvalidRequest: a file is not a text.
        ModelFileError: the exact engine does not know the model's architecture or format.
    """
    paths = files or shipped()
    stems = [file.stem for file in paths]
    names = [file.stem if stems.count(file.stem) == 1 else str(file) for file in paths]
    chosen = [read_file(file, say) for file in paths]
    with LlamaModel(path) as model:
        texts = [tokens_of(name, text, model, say) for name, text in zip(names, chosen, strict=True)]
        positions = max(len(text.tokens) for text in texts)
        exact: list[Reading] = []
        with exact_voice(path, positions) as voice:
            for text in texts:
                say(f"{text.name}: exact, {len(text.tokens)} tokens")
                exact.append(read(voice.after(text.tokens), text.tokens))
        with llama_voice(model, positions) as voice:
            theirs = [read(voice.after(text.tokens), text.tokens) for text in texts]
    floats = FloatModel(path)
    for text, ours, other in zip(texts, exact, theirs, strict=True):
        say(f"{text.name}: float64")
        yield from compared(text.name, ours, other, read(float_rows(floats, text.tokens), text.tokens))


def compared(name: str, exact: Reading, llama_cpp: Reading, float64: Reading) -> Iterator[Figure]:
    """The figures of one text."""
    n = len(float64.losses)
    for engine, reading in (("exact", exact), ("float64", float64), ("llama_cpp", llama_cpp)):
        yield Figure(f"{name}.perplexity_{engine}", reading.perplexity, "", None, None, n)
    off, theirs_off = exact.difference(float64), llama_cpp.difference(float64)
    yield Figure(f"{name}.difference_exact", off, "%", DIFFERENCE, abs(off) <= DIFFERENCE, n)
    yield Figure(f"{name}.difference_llama_cpp", theirs_off, "%", None, None, n)
    ours, theirs = exact.agreement(float64), llama_cpp.agreement(float64)
    yield Figure(f"{name}.agreement_exact", ours, "%", AGREEMENT, ours >= AGREEMENT, n)
    yield Figure(f"{name}.agreement_llama_cpp", theirs, "%", None, None, n)
    yield Figure(f"{name}.agreement_exact_over_llama_cpp", ours - theirs, "points", 0, ours >= theirs, n)

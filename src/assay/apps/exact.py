"""The exact engine put together: converted models in ASSAY_HOME, engines, auditors.

Import this only where the exact engine is wanted: its kernels take a moment to load, and half a minute to compile when
they are used for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from assay.apps.config import home
from assay.apps.disputes.workbench import Workbench
from assay.apps.progress import waiting
from assay.core.errors import ModelFileError, ModelNotFound
from assay.core.hashing import Digest
from assay.engines.exact.auditor import ExactAuditor
from assay.engines.exact.cache import is_kept, kept, open_program
from assay.engines.exact.engine import ExactEngine
from assay.engines.exact.program import Program
from assay.engines.exact.tracing import HONEST, Alteration
from assay.engines.exact.warm import is_compiled, warm
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.models import ModelFile, list_models

if TYPE_CHECKING:
    from assay.apps.wiring import Capacity


def folder() -> Path:
    """Where converted models are kept."""
    return home() / "exact"


def program_for(model: ModelFile) -> Program:
    """The integer model of a GGUF file, ready to compute; says so where the first time takes a while.

    Raises:
        ModelFileError: the file is damaged, or of a kind that the exact engine does not have.
        StoreError: the converted model cannot be kept.
    """
    if is_kept(model.sha256, folder()):
        program = open_program(model.path, model.sha256, folder())
    else:
        with waiting(f"Converting {model.name} to whole numbers (once)…"):
            program = open_program(model.path, model.sha256, folder())
    if is_compiled():
        warm(program)
    else:
        with waiting("Compiling the exact engine for this machine (once, about half a minute)…"):
            warm(program)
    return program


def kept_program(model: Digest) -> Program | None:
    """The integer model of a file by its digest, if this machine has converted it; nothing is compiled."""
    return kept(model, folder())


@contextmanager
def open_bench(model: Digest, *, stopped: Callable[[], bool]) -> Iterator[Workbench]:
    """Where answers of a model are computed again, one thread at a time, until `stopped`.

    Raises:
        ModelNotFound: this machine does not have the model.
        ModelFileError, StoreError: see `program_for`.
    """
    found = next((each for each in list_models(home()) if each.sha256 == model), None)
    if found is None:
        raise ModelNotFound(f"the model {model.hex()[:16]}… is not on this machine", "add it: `assay models --help`")
    with LlamaModel(found.path, vocab_only=True) as loaded:
        yield Workbench(found.path, model, program_for(found), LlamaReader(loaded), stopped=stopped)


@contextmanager
def open_exact(model: ModelFile, capacity: Capacity, *, alter: Alteration = HONEST) -> Iterator[ExactEngine]:
    """An exact engine; of the model file itself only the vocabulary stays open. `alter`: see `ExactDecoder`.

    Raises:
        ModelFileError, StoreError: see `program_for`.
    """
    program = program_for(model)
    with LlamaModel(model.path, vocab_only=True) as loaded:
        engine = ExactEngine(
            program,
            LlamaReader(loaded, limit=capacity.context),
            name=model.name,
            digest=model.sha256,
            parallel=capacity.parallel,
            context=capacity.context,
            threads=capacity.threads or 1,
            alter=alter,
        )
        try:
            yield engine
        finally:
            engine.close()


def open_auditor(
    model: ModelFile, reader: LlamaReader, *, context: int, threads: int, stopped: Callable[[], bool]
) -> ExactAuditor:
    """What checks answers at level `exact` of a model, whose `reader` is at hand.

    Raises:
        ModelFileError: the exact engine cannot have this model.
        StoreError: the converted model cannot be kept.
    """
    try:
        program = program_for(model)
    except ModelFileError as error:
        raise ModelFileError(f"the exact engine cannot have this model ({error.message})", error.remedy) from error
    return ExactAuditor(program, reader, digest=model.sha256, context=context, threads=threads or 1, stopped=stopped)

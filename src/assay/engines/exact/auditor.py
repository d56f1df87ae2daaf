"""The auditor of answers at level `exact`: a model file's integer model behind the `Auditor` port."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from assay.core.bundle import Bundle
from assay.core.completion import Prompt
from assay.core.errors import EncodingError, EngineError
from assay.core.hashing import Digest
from assay.core.ports import Constraint
from assay.core.profile import EXACT_REGIME, Profile
from assay.engines.exact.audit import Examiner, Response
from assay.engines.exact.program import Program
from assay.engines.grammar import grammar_version
from assay.engines.llama_reader import LlamaReader
from assay.engines.llama_regime import TEMPLATE_VERSION


def profile_of(program: Program, context: int) -> Profile:
    """The profile of an exact engine: nothing of the machine matters."""
    return Profile(
        engine="assay",
        build=program.root.hex(),
        regime=EXACT_REGIME,
        isa="any",
        kv_type="int16",
        flash_attention=False,
        micro_batch=0,
        threads=0,
        context=context,
        sampler="gumbel/2",
        template=TEMPLATE_VERSION,
        grammar=grammar_version(),
    )


def response_of(bundle: Bundle, prompt: Prompt, constraint: Constraint | None) -> Response:
    """What an audit of a receipt is of."""
    tokens = (*prompt.tokens, *bundle.tokens)
    request = bundle.request
    evidence = bundle.receipt.evidence
    return Response(tokens, len(prompt.tokens), evidence, request.nonce, request.sampler, request.seed, constraint)


class ExactAuditor:
    """Implements `Auditor`. One call at a time."""

    def __init__(
        self,
        program: Program,
        reader: LlamaReader,
        *,
        digest: Digest,
        context: int,
        threads: int = 1,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`digest`: SHA-256 of the model file. `context`: positions of the longest answer that is checked.

        `stopped` is asked now and then; True ends the audit with an EngineError.
        """
        self.model_digest: Final = digest
        self.profile: Final[Profile] = profile_of(program, context)
        self.reader: Final = reader
        self._examiner: Final = Examiner(program, threads=threads, stopped=stopped)
        self._stopped: Final = stopped

    def audit(
        self,
        bundle: Bundle,
        prompt: Prompt,
        trace: Iterable[bytes] | None = None,
        *,
        positions: Collection[int] | None = None,
        whole: bool = False,
    ) -> int:
        """See `Auditor.audit`."""
        response = response_of(bundle, prompt, self.reader.constraint(bundle.request))
        try:
            if trace is None:
                checked = self._examiner.replay(response)
            else:
                checked = self._examiner.audit(response, trace, positions=positions, whole=whole)
        except EncodingError:
            self._go_on()
            raise
        self._go_on()
        return checked

    def _go_on(self) -> None:
        if self._stopped():
            raise EngineError("the check was stopped", "start it again")

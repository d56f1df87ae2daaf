"""Programs that benchmarks run beside Assay: a bare decode loop, and llama.cpp's own server. Run as a module."""

from __future__ import annotations

import sys
import time
from pathlib import Path

PROMPT = "Write a long story about a lighthouse keeper and the sea."


def bare_loop(path: str, tokens: int) -> None:
    """Decode greedily with nothing around it, each time a line arrives; print the seconds that it took."""
    from assay.engines.llama_context import LlamaContext
    from assay.engines.llama_model import LlamaModel

    model = LlamaModel(Path(path))
    prompt = model.tokenizer.encode(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n", special=True)
    with LlamaContext(model, n_ctx=1024, n_ubatch=32, n_threads=1, n_outputs=1) as context:
        print("ready", flush=True)
        for _ in sys.stdin:
            context.clear()
            context.decode(prompt, range(len(prompt)), 0, [False] * (len(prompt) - 1) + [True])
            started = time.perf_counter()
            for index in range(tokens):
                token = int(context.logits(0 if index else len(prompt) - 1).argmax())
                context.decode([token], [len(prompt) + index], 0, True)
            print(time.perf_counter() - started, flush=True)


def server(path: str) -> None:
    """llama.cpp's server with four slots and one thread; prints its address and waits."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = 4
    params.n_ctx = 4096
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.port = 0
    params.warmup = False
    running = xllamacpp.Server(params)
    print(running.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        bare_loop(sys.argv[2], int(sys.argv[3]))
    else:
        server(sys.argv[2])

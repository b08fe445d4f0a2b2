"""A steady load on one GPU until standard input ends: matrix products, one after the other.

Run by an interpreter that has PyTorch, with CUDA_VISIBLE_DEVICES naming the GPU.
"""

from __future__ import annotations

import sys
import threading

import torch  # type: ignore[import-not-found,unused-ignore]

ENOUGH = 32


def main() -> None:
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    left = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    right = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    out = torch.empty_like(left)
    torch.matmul(left, right, out=out)
    torch.cuda.synchronize()
    print("ready", flush=True)  # noqa: T201 - the one who started it waits for this
    while not ended.is_set():
        for _ in range(ENOUGH):  # kept short: the queue never runs empty, the end is soon seen
            torch.matmul(left, right, out=out)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

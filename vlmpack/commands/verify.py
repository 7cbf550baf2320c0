"""`vlmpack verify`: is packing exact on this model?"""

import argparse
import time
from collections.abc import Callable


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    verify = add_command(
        "verify",
        help="is packing exact on this model?",
        description="Hold the packed computation of a model against the unpacked one: log-probabilities, every "
        "parameter's gradient, siblings, images. Builds a small model of the same architecture with random weights, in "
        "float64, and needs no knowledge of the family. Exits 0 if packing is exact, 1 if not.",
        epilog="example: vlmpack verify llava-hf/llava-1.5-7b-hf",
    )
    verify.add_argument("model", metavar="MODEL", help="hub id, folder, or config.json; weights are not needed")
    verify.add_argument("--full", action="store_true", help="take the real weights instead of a miniature (float64)")
    verify.add_argument("--seed", type=int, default=0, help="of random weights and made-up rows")


def run(args: argparse.Namespace) -> int:
    """Verify and print the report.

    Args:
        args: as parsed.

    Returns:
        The exit status: 0 if packing is exact, else 1.
    """
    what = "the real weights" if args.full else "a small model of the same architecture"
    print(f"vlmpack: verifying {args.model} on {what}, packed against unpacked", flush=True)
    start = time.perf_counter()
    from vlmpack.proof.verify import verify  # after the first line is printed: transformers takes a while to import

    report = verify(args.model, full=args.full, seed=args.seed)
    print(report)
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0 if report.exact else 1

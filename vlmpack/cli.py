"""The `vlmpack` command."""

import argparse
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if all is well, 1 if not."""
    parser = argparse.ArgumentParser(prog="vlmpack", description="Preference training with shared prompts and images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
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
    return _verify(parser.parse_args(arguments))


def _verify(args: argparse.Namespace) -> int:
    what = "the real weights" if args.full else "a small model of the same architecture"
    print(f"vlmpack: verifying {args.model} on {what}, packed against unpacked", flush=True)
    start = time.perf_counter()
    from vlmpack.proof.verify import verify  # after the first line is printed: transformers takes a while to import

    report = verify(args.model, full=args.full, seed=args.seed)
    print(report)
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0 if report.exact else 1


if __name__ == "__main__":
    sys.exit(main())

"""How results are told: what they were measured on, amounts in words, and the files they are written to."""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_MEASURED = "not measured"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")  # Okabe and Ito: told apart by the colour-blind


def conditions(device: torch.device | str = "cpu") -> dict[str, str]:
    """What was measured on, and when."""
    device = torch.device(device)
    cpu = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({cpu})",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return (names[0] if names else "") or platform.machine()


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def amount(size: int | None) -> str:
    """Bytes for a table.

    Example:
        >>> amount(3 * 2**20), amount(5 * 2**29)
        ('3.0 MiB', '2.5 GiB')
    """
    if size is None:
        return NOT_MEASURED
    value, unit = (size / 2**30, "GiB") if size >= 2**30 else (size / 2**20, "MiB")
    return f"{value:.3g} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def on_gpu(folder: str | Path, name: str) -> str:
    """A line about the same table on a GPU: where it is, or that it was not measured.

    Args:
        folder: of the tables.
        name: of the GPU's, without an ending.
    """
    known = (Path(folder) / f"{name}.md").exists()
    return f"\nOn a GPU: [{name}.md]({name}.md)." if known else f"\nOn a GPU: {NOT_MEASURED}."


def write(
    folder: str | Path, name: str, result: Mapping[str, Any], text: str, picture: Callable[[], "Figure"] | None = None
) -> Path:
    """Write a result as JSON, as Markdown and, if there is one and matplotlib is installed, as a picture.

    Args:
        folder: made if it is not there.
        name: of the files, without an ending.
        result: all figures.
        text: the table.
        picture: makes it.

    Returns:
        The path of the Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text.rstrip("\n") + "\n")
    if picture is not None:
        save(picture, folder / f"{name}.png")
    return folder / f"{name}.md"


def save(picture: Callable[[], "Figure"], path: Path) -> None:
    """Draw and save; a machine without matplotlib keeps the figures all the same."""
    try:
        picture().savefig(path, dpi=150)
    except ImportError as error:
        print(f"no picture {path}: {error.name} is not installed")


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say what is being measured, and how long it took."""
    print(f"{what} ...", flush=True)
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.0f} s", flush=True)

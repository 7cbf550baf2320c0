"""README and the pages of docs/: their blocks and links, and a folder with the files that they speak of."""

import json
import re
from pathlib import Path

from transformers import LlavaForConditionalGeneration

import scenes

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks whose first line says exactly that: "python" runs, "python fragment" does not."""
    return [text for info, text in FENCED.findall(PAGES[page]) if info == kind]


def commands() -> list[tuple[str, str]]:
    """Every line of every shell block, with its page; without what is said behind it."""
    lines = [
        (page, line.split("#")[0].strip())
        for page in PAGES
        for text in blocks(page, "bash")
        for line in text.splitlines()
    ]
    return [(page, line) for page, line in lines if line]


def links(page: str) -> list[str]:
    """Where a page's links and pictures lead, outside its fenced blocks."""
    text = FENCED.sub("", PAGES[page])
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)


def anchors(text: str) -> set[str]:
    """What may follow the # of a link: headings in lower case, words joined by hyphens."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def run(page: str) -> dict:
    """Run a page's Python in order, in the folder we are in; returns its names."""
    scope: dict = {}
    for text in blocks(page, "python"):
        exec(compile(text, page, "exec"), scope)
    return scope


def furnish(folder: Path) -> Path:
    """Put a tiny model where its hub name points as a relative path, four rows, and their picture into a folder."""
    processor = scenes.processor()
    model = folder / "llava-hf" / "llava-1.5-7b-hf"
    LlavaForConditionalGeneration(scenes.llava_config(processor)).save_pretrained(model)
    processor.save_pretrained(model)
    scenes.rows(1, seed=0)[0]["images"][0].save(folder / "cat.png")
    scored = json.loads(blocks("README.md", "json")[0].splitlines()[0])
    (folder / "preferences.jsonl").write_text("\n".join([json.dumps(scored)] * 4))
    return folder

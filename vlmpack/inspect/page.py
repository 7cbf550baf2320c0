"""A pack as one piece of HTML that asks for nothing from outside: for a notebook, and as a page of its own.

It is shown among other people's markup, by programs that change it on the way. Each measure has its reason:

- Plain text first. GitHub, nbviewer and notebooks that are not trusted take scripts and styles away; what is left is
  an escaped `<pre>`, the same text that `print` shows. The script replaces it only after all else was built.
- A shadow root. A notebook has one document for all outputs: its CSS does not reach in, ours does not leak out, and
  what the surroundings hand down (fonts, colours) ends at `all: initial`.
- No id. One pack may be shown twice, and JupyterLab shows one output in two views: two elements with one id. The script
  takes the element just before itself, which holds also where JupyterLab replaces scripts by copies that run, and
  otherwise the first of its own that is still empty. What it is known by follows from its content: run again, a
  notebook does not change.
- Data in the script itself, as JSON in which `<`, `>`, `&` and everything beyond ASCII (U+2028 too) are escaped: no
  text in it can end the script or open a comment. It becomes text by `textContent` alone, never markup.
- `data-lm-suppress-shortcuts`. JupyterLab reads keys before the page does; where it says so, Enter and arrows are ours.
- A page of its own forbids itself the network: its policy allows this one script by its hash, inline styles, and
  pictures that are part of the page.
"""

import json
from base64 import b64encode
from functools import cache
from hashlib import blake2b, sha256
from html import escape
from importlib.resources import files
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.inspect import palette
from vlmpack.inspect.exhibit import exhibit
from vlmpack.inspect.page_data import data
from vlmpack.inspect.text import rendered
from vlmpack.pack import Pack
from vlmpack.sample import Sample

SCRIPTS = (
    "page_model.js",
    "page_tokens.js",
    "page_lights.js",
    "page_plot.js",
    "page_axes.js",
    "page_asked.js",
    "page_mask.js",
    "page_card.js",
    "page.js",
)
POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
UNSAFE = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&"}


def html(shown: Pack | Sample | Forest, processor: Any = None, *, weights: Float[Tensor, "T T"] | None = None) -> str:
    """What there is to see of a pack, a sample or a forest, as a fragment for notebooks.

    Args:
        shown: what to look at.
        processor: as for `vlmpack.inspect.draw`.
        weights: [T, T] attention weights of one layer and head, from 0 to 1, of a pack of at most 512 tokens: shown as
            shading; those outside the mask are marked and counted.

    Returns:
        A `<div>` and a `<script>`; the text that `print` shows stands in it where scripts do not run.

    Raises:
        InspectError: `shown` is none of the three, or weights do not fit it.
    """
    fragment, _ = _fragment(shown, processor, weights)
    return fragment


def page(shown: Pack | Sample | Forest, processor: Any = None, *, weights: Float[Tensor, "T T"] | None = None) -> str:
    """The same as a whole HTML document, to be saved and sent.

    Args:
        shown: what to look at.
        processor: as for `html`.
        weights: as for `html`, of at most 512 tokens.

    Returns:
        The document, for a file in UTF-8; it forbids itself the network.
    """
    fragment, script = _fragment(shown, processor, weights)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(digest=digest)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n<title>vlmpack: what the tokens see</title>\n'
        "<style>:root{color-scheme:light dark}body{margin:0}</style>\n"
        f'</head>\n<body data-vlmpack-page="">\n{fragment}\n</body>\n</html>\n'
    )


def _fragment(shown: Pack | Sample | Forest, processor: Any, weights: Tensor | None) -> tuple[str, str]:
    """The fragment, and the script in it."""
    seen = exhibit(shown, processor)
    literal = _literal(data(seen, weights))
    name = blake2b(literal.encode(), digest_size=6).hexdigest()
    styles, code = _assets()
    script = f'(() => {{\n"use strict";\nconst STYLES = {styles};\n{code}\nstart("{name}", {literal});\n}})();'
    text = escape(rendered(seen))
    fragment = (
        f'<div data-vlmpack="{name}" data-lm-suppress-shortcuts="true">'
        f'<pre style="overflow:auto;max-height:40em;white-space:pre">{text}</pre></div>\n<script>{script}</script>'
    )
    return fragment, script


def _literal(value: Any) -> str:
    """JSON that is a JavaScript literal and may stand in a `<script>`."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).translate(UNSAFE)


@cache
def _assets() -> tuple[str, str]:
    """The style sheet as a literal, and the scripts one after the other."""
    folder = files("vlmpack.inspect")
    return (
        _literal(_colours() + (folder / "page.css").read_text("utf-8")),
        "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS),
    )


def _colours() -> str:
    """The palette as CSS knows it: a page shows a segment in the colour that a picture does."""
    named = {**palette.KINDS, "image": palette.IMAGE}
    named |= {f"response-{hue}": colour for hue, colour in enumerate(palette.RESPONSES)}
    return f".inspector {{{' '.join(f'--{name}: {colour};' for name, colour in named.items())}}}\n"

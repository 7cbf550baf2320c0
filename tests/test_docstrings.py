"""What `help` says of every public name: each argument, what comes back, what is raised, each field, each source."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

import pytest

import vlmpack
import vlmpack.inspect
from vlmpack import evaluation, losses, processors, quality, unpacked

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
ABSTRACT = "NotImplementedError"  # of methods that subclasses write


def public() -> Iterator[tuple[str, object]]:
    """The names of the package's doors, and the functions of the modules that stand among them."""
    for module in (vlmpack, processors, losses, vlmpack.inspect, quality, evaluation):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)
    for name, value in vars(unpacked).items():
        if inspect.isfunction(value) and value.__module__ == unpacked.__name__ and not name.startswith("_"):
            yield f"{unpacked.__name__}.{name}", value


NAMES = {name: value for name, value in public() if inspect.isclass(value) or inspect.isfunction(value)}
CLASSES = {name: value for name, value in NAMES.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in NAMES.items() if inspect.isfunction(value)}


def ours(kind: type) -> list[type]:
    """A class and those that it stands on, as far as they are our own."""
    return [each for each in kind.__mro__ if each.__module__.split(".")[0] == "vlmpack"]


def methods() -> dict[str, tuple[type, Callable]]:
    """Public methods that our own classes define, also those that public classes inherit."""
    found = {}
    for kind in {each for value in CLASSES.values() for each in ours(value)}:
        for name, value in vars(kind).items():
            value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if inspect.isfunction(value) and (name == "__call__" or not name.startswith("_")):
                found[f"{kind.__module__}.{kind.__qualname__}.{name}"] = (kind, value)
    return dict(sorted(found.items()))


METHODS = methods()
CALLABLES = {**FUNCTIONS, **{name: value for name, (_, value) in METHODS.items()}}


def section(text: str, title: str) -> str:
    """What a docstring says under a title; empty if it has none."""
    found = re.search(
        rf"^{title}:\n(.*?)(?=^(?:{'|'.join(SECTIONS)}):\n|\Z)", inspect.cleandoc(text) + "\n", re.M | re.S
    )
    return "" if found is None else textwrap.dedent(found[1])


def entries(text: str, title: str) -> dict[str, str]:
    """What a section says of each name; several names may share a line: `height, width: ...`."""
    lines = re.findall(r"^(\S[^:\n]*):(.*(?:\n .*)*)", section(text, title), re.MULTILINE)
    return {name.strip(): said.strip() for names, said in lines for name in names.split(",")}


def raised(function: Callable) -> set[str]:
    """The exceptions that a function's own body raises by name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    names = {(call.func if isinstance(call, ast.Call) else call) for call in calls}
    return {ast.unparse(name).rpartition(".")[2] for name in names} - {ABSTRACT}


def hands_on(kind: type, name: str, text: str) -> bool:
    """Whether a method is explained by a class of ours that it inherits from, or says whose it is: "As in `Trainer`"."""
    if any(name in vars(each) for each in ours(kind)[1:]):
        return True
    named = re.match(r"(?:As in|See) `(\w+)`", text)
    return named is not None and any(each.__name__ == named[1] and hasattr(each, name) for each in kind.__mro__[1:])


def parameters(function: Callable) -> set[str]:
    return set(inspect.signature(inspect.unwrap(function)).parameters) - {"self", "cls"}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented_itself_and_not_by_what_it_inherits_from(name):
    value = NAMES[name]
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text and not text.startswith(f"{value.__name__}(")  # as dataclasses make one


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_explained(name):
    function, text = CALLABLES[name], CALLABLES[name].__doc__ or ""
    if name in METHODS and hands_on(METHODS[name][0], function.__name__, text):
        return
    said = entries(text, "Args")
    assert set(said) == parameters(function)
    assert all(said.values())


@pytest.mark.parametrize("name", CALLABLES)
def test_every_exception_of_its_own_is_named(name):
    assert raised(CALLABLES[name]) <= set(entries(CALLABLES[name].__doc__ or "", "Raises"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_returns_is_said(name):
    if inspect.signature(FUNCTIONS[name]).return_annotation not in (None, "None"):
        assert section(FUNCTIONS[name].__doc__, "Returns")


@pytest.mark.parametrize("name", [name for name, value in CLASSES.items() if is_dataclass(value)])
def test_every_field_is_explained_by_the_class_that_has_it(name):
    for kind in ours(CLASSES[name]):
        own = set(vars(kind).get("__annotations__", {})) & {each.name for each in fields(CLASSES[name])}
        said = entries(kind.__doc__, "Attributes")
        assert own - UNTOUCHED <= set(said)
        assert all(said[field] for field in own - UNTOUCHED)


UNTOUCHED = {"remove_unused_columns"}  # transformers' own field, which may not be changed


@pytest.mark.parametrize(
    "name", [n for n, value in CLASSES.items() if not is_dataclass(value) and not issubclass(value, Exception)]
)
def test_what_a_class_is_made_of_is_explained(name):
    kind = CLASSES[name]
    if "__init__" in vars(kind):
        said = entries(kind.__doc__, "Args") | entries(kind.__doc__, "Attributes")
        assert parameters(kind.__init__) <= set(said)
        assert raised(kind.__init__) <= set(entries(kind.__doc__, "Raises"))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("vlmpack.losses.")])
def test_every_loss_has_a_formula_and_its_source(name):
    text = FUNCTIONS[name].__doc__
    assert re.search(r"^ {8}\w+(_i)? = ", text, re.MULTILINE)
    assert re.search(
        r"\d{4},[^(]* \((?:\w[^)]*; )?https://(arxiv\.org/abs/\d{4}\.\d{5}|ericmitchell)", " ".join(text.split())
    )
    assert re.search(
        r"equations? [\d.A-Z]+|section [\d.]+|appendix [A-Z\d.]+|the [\w -]+(?:loss|entropy)", " ".join(text.split())
    )

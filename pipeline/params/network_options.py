"""Options of a network, read from the source of models/<arch>.py: names, types, defaults, rules.

The file is not imported: stage params runs without torch.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, Field, create_model

from models import options as models_options
from pipeline.core.errors import ParamsError, hint
from pipeline.params.schema import TASKS, Part

MODELS = Path("models")

# Annotations of a constructor's keywords whose values are checked; those of models/options.py, too.
TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "None": None,
    "Count": Annotated[int, Field(ge=0)],
    "Positive": Annotated[int, Field(ge=1)],
    "Fraction": Annotated[float, Field(ge=0, lt=1)],
}
# The type of an option without an annotation, by that of its default.
OF_DEFAULT: dict[type, Any] = {
    bool: bool,
    int: int | float,
    float: float,
    str: str,
    list: list[Any],
    tuple: list[Any],
}
NOT_LITERAL = object()  # stands for a default that only Python can compute


def architectures() -> list[str]:
    """Return the names of the architectures: the files of models/ that bind `Model`."""
    return sorted(path.stem for path in MODELS.glob("*.py") if is_architecture(path.stem))


def is_architecture(name: Any) -> bool:
    """Return whether a name, as it stands in a recipe, is of an architecture."""
    path = MODELS / f"{name}.py"
    return isinstance(name, str) and path.exists() and bool(bound_class(path.read_text()))


def takes_start_weights(name: Any) -> bool:
    """Return whether an architecture has `start_weights`: it begins with another one's weights."""
    path = MODELS / f"{name}.py"
    return is_architecture(name) and "\ndef start_weights(" in path.read_text()


def explain_unknown(arch: str) -> str:
    """Return the sentence for an `arch:` that is no architecture, with the cure."""
    file = MODELS / f"{arch}.py"
    if file.exists():
        classes = re.findall(r"^class (\w+)", file.read_text(), re.M)
        line = f"Model = {classes[-1] if classes else 'MyNetwork'}"
        return f"expected a last line `{line}` in models/{arch}.py, got none; add it"
    if arch in torchvision_names():
        cure = f"write arch: zoo and net: {{name: {arch}}}"
        return f"{arch!r} is a network of torchvision; {cure}"
    return f"unknown architecture {arch!r}; {hint(arch, architectures())}"


def torchvision_names() -> list[str]:
    """Return the networks of torchvision, which arch: zoo builds."""
    if not (MODELS / "zoo.py").exists():
        return []
    return list(get_args(constructor("zoo").model_fields["name"].annotation))


def bound_class(source: str) -> str | None:
    """Return the name of the class that a file binds to `Model`, or None."""
    bound = re.findall(r"^Model = (\w+)", source, re.M)
    return bound[-1] if bound else None


def constructor(arch: str, without: frozenset[str] = frozenset()) -> type[Part]:
    """Return the keywords of `Model.__init__` in models/<arch>.py as a model, less `without`."""
    return options_of((MODELS / f"{arch}.py").read_text(), arch, without)


def task_of(arch: str) -> str | None:
    """Return the task of models/<arch>.py: its constant TASK, else that of a keyword of its
    constructor; None without any.
    """
    for node in parse((MODELS / f"{arch}.py").read_text(), arch).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TASK")], value=ast.Constant(value=task)):
                if task not in TASKS:
                    raise ParamsError(
                        f"models/{arch}.py TASK: unknown task {task!r}; {hint(str(task), TASKS)}"
                    )
                return str(task)
    takes = constructor(arch).model_fields
    keywords = {"classes": "classification", "horizon": "forecasting"}
    return next((task for keyword, task in keywords.items() if keyword in takes), None)


def options_in_effect(options: Part) -> dict[str, Any]:
    """Return checked options with the constructor's defaults, where these are literals."""
    return {key: value for key, value in options if value is not NOT_LITERAL}


@functools.cache
def options_of(source: str, arch: str, without: frozenset[str]) -> type[Part]:
    module, bound = parse(source, arch), bound_class(source)
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == bound:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    fields = {
                        argument.arg: field_of(argument, default, module)
                        for argument, default in keywords(method.args)
                        if argument.arg not in without
                    }
                    return cast(type[Part], create_model(arch, __base__=Part, **fields))  # type: ignore[call-overload]
    classes = ", ".join(node.name for node in module.body if isinstance(node, ast.ClassDef))
    raise ParamsError(
        f"models/{arch}.py: expected a class {bound} with an __init__ whose arguments are options,"
        f" as its line `Model = {bound}` says, got {classes or 'no class'}; correct the line"
    )


@functools.cache
def parse(source: str, arch: str) -> ast.Module:
    """Return the syntax tree of models/<arch>.py, which callers do not change; raise ParamsError
    where it is not Python.
    """
    try:
        return ast.parse(source)
    except SyntaxError as error:
        where = f"models/{arch}.py line {error.lineno}"
        raise ParamsError(f"{where}: expected Python, got {error.msg}; correct it") from None


def keywords(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    """Return the arguments that can be given by name, each with its default, without `self`."""
    plain = arguments.args[1:]
    without_default = len(plain) - len(arguments.defaults)
    defaults = [*[None] * without_default, *arguments.defaults]
    return [
        *zip(plain, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]


def field_of(argument: ast.arg, default: ast.expr | None, module: ast.Module) -> tuple[Any, Any]:
    """Return the type and the default of one keyword, as pydantic's `create_model` takes them."""
    kind = type_of(argument.annotation, module)
    if default is None:
        return kind, ...
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return kind | None if kind is not Any else Any, NOT_LITERAL
    if argument.annotation is None:
        kind = OF_DEFAULT.get(type(value), Any)
    return kind, list(value) if isinstance(value, tuple) else value


def type_of(annotation: ast.expr | None, module: ast.Module) -> Any:
    """Return an annotation as a type; Any for one that is not checked."""
    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            return TYPES.get(name) or alias(name, module)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            values = ast.literal_eval(choices)
            values = values if isinstance(values, tuple) else (values,)
            return Annotated[
                Literal[values], BeforeValidator(functools.partial(require_type, values))
            ]
        case ast.Subscript(value=ast.Name(id="Sequence" | "list"), slice=item):
            return list[type_of(item, module)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict")):
            return dict[str, Any]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = type_of(left, module), type_of(right, module)
            return Any if Any in sides else sides[0] | sides[1]
    return Any


def require_type(choices: tuple[Any, ...], value: Any) -> Any:
    """Return the value; raise ValueError for true and 1.0 where 1 is a choice, which equal it."""
    if value in choices and type(value) not in map(type, choices):
        raise ValueError(f"expected {' or '.join(map(str, choices))}, got {value!r}")
    return value


def alias(name: str, module: ast.Module) -> Any:
    """Return the type that a line `Name = Literal[...]` of the file binds, or Any."""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=bound)], value=ast.Subscript() as value):
                if bound == name:
                    return type_of(value, module)
    return Any


def check_rules(arch: str, known: dict[str, Any]) -> None:
    """Call `check_options` of models/<arch>.py with options and facts of the data, if it has one.

    Raises ParamsError where options do not fit each other or the data.
    """
    rule = rule_of((MODELS / f"{arch}.py").read_text(), arch)
    if rule is None or not set(names := inspect.signature(rule).parameters) <= set(known):
        return
    try:
        rule(**{name: known[name] for name in names})
    except ValueError as error:
        raise ParamsError(str(error)) from None
    except NameError:
        return  # it needs torch or an import: the constructor calls it in stage train


@functools.cache
def rule_of(source: str, arch: str) -> Callable[..., None] | None:
    """Return the function `check_options` of a file, compiled alone, or None.

    It sees models.options, and of its own file the functions that it needs and the constants that
    are literals.
    """
    module = parse(source, arch)
    named = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    if "check_options" not in named:
        return None
    functions = ["check_options"]
    for name in functions:  # grows while it is read
        functions += [used for used in names_in(named[name]) & named.keys() - set(functions)]
    body: list[ast.stmt] = [named[name] for name in functions]
    used = set[str]().union(*map(names_in, body))
    body += [node for node in module.body if is_literal(node, used)]
    scope: dict[str, Any] = {"options": models_options}
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.Module(body, []), f"models/{arch}.py", "exec", flags), scope)
    return cast(Callable[..., None], scope["check_options"])


def is_literal(node: ast.stmt, used: set[str]) -> bool:
    """Return whether a statement binds a literal to one of the names."""
    if not isinstance(node, ast.Assign):
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return bool(names_in(node) & used)


def names_in(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}

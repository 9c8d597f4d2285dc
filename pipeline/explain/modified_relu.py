"""Every ReLU a module of its own: what guided backpropagation and deconvolution change is a module's gradient.

Captum hooks `nn.ReLU` and takes a functional ReLU, one module called twice, or a ReLU6 for no ReLU at all, in silence:
on such a network both methods answer the plain gradient. A forward that has one is traced by `torch.fx`, its children
whole, and gets new modules in their place, so that the network keeps its parts and their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from pipeline.core.errors import StageError

FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
LIMIT = 1e-6  # of the rewritten network's answers from the network's own


class Cap(nn.Module):
    """Return min(x, 6): with a ReLU before it, a ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=6)


class Watch(TorchFunctionMode):
    """Notes in `owners` the modules whose forward calls a ReLU as a function, or a module that was called before."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[nn.Module] = []
        self.seen: set[nn.Module] = set()
        self.owners: dict[nn.Module, None] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in FUNCTIONS and not isinstance(self.inside[-1], nn.ReLU):
            self.owners[self.inside[-1]] = None
        return function(*args, **(kwargs or {}))

    def enter(self, module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.ReLU):
            if module in self.seen:
                self.owners[self.inside[-1]] = None
            self.seen.add(module)
        self.inside.append(module)

    def leave(self, *_: Any) -> None:
        self.inside.pop()


class Shallow(fx.Tracer):
    """Traces a module's own forward alone."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


@contextmanager
def watching() -> Iterator[Watch]:
    watch = Watch()
    handles = (
        hooks.register_module_forward_pre_hook(watch.enter),
        hooks.register_module_forward_hook(watch.leave),
    )
    try:
        with watch, torch.no_grad():
            yield watch
    finally:
        for handle in handles:
            handle.remove()


def as_modules(net: nn.Module, example: Tensor) -> nn.Module:
    """Return the network, changed in place: each of its ReLUs is an `nn.ReLU`, called once and not inplace.

    example: what its forward takes; answers before and after must agree. StageError where that cannot be had.
    """
    net.eval()
    with watching() as watch:
        before = net(example)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.Sequential(nn.ReLU(), Cap()))
    for owner in watch.owners:
        replace(net, owner, rewritten(owner))
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with watching() as watch:
        after = net(example)
    if watch.owners:
        names = ", ".join(sorted({type(owner).__name__ for owner in watch.owners}))
        raise StageError(
            f"explain: a ReLU of {names} is called more than once; give each call an nn.ReLU of its own"
        )
    both = zip(*(o if isinstance(o, tuple) else (o,) for o in (before, after)), strict=True)
    if not all(torch.allclose(a, b, rtol=LIMIT, atol=LIMIT) for a, b in both):
        raise StageError(
            "explain: with its ReLUs as modules the network answers otherwise; write them as nn.ReLU"
        )
    return net


def rewritten(owner: nn.Module) -> fx.GraphModule:
    """Return the module with the same parts and a new nn.ReLU for each ReLU that its forward calls."""
    try:
        graph = Shallow().trace(owner)
    except (
        fx.proxy.TraceError,
        TypeError,
        RuntimeError,
        AttributeError,
    ) as error:  # a forward that asks for values
        what = f"the ReLUs of {type(owner).__name__} are functions, and torch.fx cannot trace it"
        raise StageError(
            f"explain: {what} ({' '.join(str(error).split())}); write them as nn.ReLU"
        ) from None
    made = fx.GraphModule(owner, graph)
    calls = [node for node in graph.nodes if calls_relu(node, owner)]
    for k, node in enumerate(calls):
        made.add_submodule(name := f"explained_relu{k}", nn.ReLU())
        with graph.inserting_after(node):
            node.replace_all_uses_with(
                graph.call_module(name, node.args[:1] or (node.kwargs["input"],))
            )
        graph.erase_node(node)
    made.delete_all_unused_submodules()
    made.recompile()
    return made.eval()


def calls_relu(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(owner.get_submodule(str(node.target)), nn.ReLU)
    return node.target in FUNCTIONS or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )


def replace(net: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(net.modules()):
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)

"""Make every ReLU a module: guided backpropagation and deconvolution change its gradient.

Captum hooks `nn.ReLU`. It ignores, without a warning, a functional ReLU, a second call of one
module, and a ReLU6: on such a network both methods return the plain gradient. A forward that has
one of these is traced by `torch.fx`, without its children, and gets new modules, so that the
network keeps its parts and their names.
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
TOLERANCE = 1e-6  # between the outputs of the rewritten and the original network


class ClampAtSix(nn.Module):
    """Return min(x, 6): after a ReLU, this is a ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=6)


class ReluWatch(TorchFunctionMode):
    """Collect in `owners` the modules that call a ReLU function, or a ReLU module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[nn.Module] = []
        self.called: set[nn.Module] = set()
        self.owners: dict[nn.Module, None] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in FUNCTIONS and not isinstance(self.stack[-1], nn.ReLU):
            self.owners[self.stack[-1]] = None
        return function(*args, **(kwargs or {}))

    def enter(self, module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.ReLU):
            if module in self.called:
                self.owners[self.stack[-1]] = None
            self.called.add(module)
        self.stack.append(module)

    def leave(self, *_: Any) -> None:
        self.stack.pop()


class ShallowTracer(fx.Tracer):
    """Trace a module's forward without its children's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


@contextmanager
def watch_relus() -> Iterator[ReluWatch]:
    watch = ReluWatch()
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


def replace_relus(net: nn.Module, example: Tensor) -> nn.Module:
    """Return the network, changed: each ReLU is an `nn.ReLU`, called once, not in place.

    example: an input of the network. StageError where its output changes, or a ReLU is still
    shared.
    """
    net.eval()
    with watch_relus() as watch:
        before = net(example)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.Sequential(nn.ReLU(), ClampAtSix()))
    for owner in watch.owners:
        replace_module(net, owner, trace_with_relu_modules(owner))
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with watch_relus() as watch:
        after = net(example)
    if watch.owners:
        names = ", ".join(sorted({type(owner).__name__ for owner in watch.owners}))
        cure = "give each call an nn.ReLU of its own"
        raise StageError(f"explain: a ReLU of {names} is called more than once; {cure}")
    pairs = zip(*(o if isinstance(o, tuple) else (o,) for o in (before, after)), strict=True)
    if not all(torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in pairs):
        what = "the network's output changes when its ReLUs become modules"
        raise StageError(f"explain: {what}; write them as nn.ReLU")
    return net


def trace_with_relu_modules(owner: nn.Module) -> fx.GraphModule:
    """Return the module with the same parts, and an nn.ReLU for each ReLU that it calls."""
    try:
        graph = ShallowTracer().trace(owner)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError) as error:
        # a forward that looks at values, for example
        what = f"the ReLUs of {type(owner).__name__} are functions, and torch.fx cannot trace it"
        reason = " ".join(str(error).split())
        raise StageError(f"explain: {what} ({reason}); write them as nn.ReLU") from None
    traced = fx.GraphModule(owner, graph)
    calls = [node for node in graph.nodes if calls_relu(node, owner)]
    for k, node in enumerate(calls):
        traced.add_submodule(name := f"explained_relu{k}", nn.ReLU())
        with graph.inserting_after(node):
            source = node.args[:1] or (node.kwargs["input"],)
            node.replace_all_uses_with(graph.call_module(name, source))
        graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval()


def calls_relu(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(owner.get_submodule(str(node.target)), nn.ReLU)
    is_method = node.op == "call_method" and node.target in ("relu", "relu_")
    return node.target in FUNCTIONS or is_method


def replace_module(net: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(net.modules()):
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)

"""Cut a network at any depth, whatever its architecture.

The glue of a network (what its forward does between layers) is traced with torch.fx; layers themselves stay whole,
so dropout, BatchNorm and the like keep their train and eval behaviour. A cut after the first k layer groups is
possible where exactly one tensor crosses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from headstart.core.types import LayerGroup


class _LayersStayWhole(fx.Tracer):
    """Trace the glue only: every module that lies wholly in one layer group is one node."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = {id(layer) for layer in layers}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep layers, torch's own modules and modules without children whole."""
        if id(m) in self.layers or not any(True for _ in m.children()):
            return True
        return super().is_leaf_module(m, module_qualified_name)


class TracedNetwork:
    """The traced glue of a network and the places where it can be cut."""

    def __init__(self, network: nn.Module, groups: Sequence[LayerGroup]) -> None:
        """Trace `network`; raises torch.fx's TraceError (or what its forward raises) where its glue cannot be."""
        tracer = _LayersStayWhole(layer for group in groups for layer in group.modules)
        graph = tracer.trace(network)
        self.module = fx.GraphModule(network, graph)
        self.groups = groups
        depth_of_parameter = {
            id(tensor): depth for depth, group in enumerate(groups) for tensor in group.parameters.values()
        }
        self.own_depth = {node: _own_depth(node, network, depth_of_parameter) for node in graph.nodes}

    def crossing(self, depth: int) -> fx.Node | None:
        """Return the node of the one tensor that crosses from the first `depth` groups to the rest, or None."""
        later: set[fx.Node] = set()
        for node in self.module.graph.nodes:
            if (
                self.own_depth[node] >= depth
                or node.op == "output"
                or not later.isdisjoint(node.all_input_nodes)
            ):
                later.add(node)
        crossing = {item for node in later for item in node.all_input_nodes if item not in later}
        if len(crossing) != 1:
            return None
        (node,) = crossing
        return None if node.op == "placeholder" else node

    def shapes(self, inputs: Tensor, nodes: Iterable[fx.Node]) -> dict[fx.Node, tuple[int, ...]]:
        """Return the shapes that these nodes have for `inputs`, from one pass through the network."""
        wanted, found = set(nodes), dict[fx.Node, tuple[int, ...]]()

        class Watching(fx.Interpreter):
            """Runs node by node and notes shapes."""

            def run_node(self, n: fx.Node) -> object:
                """Run one node."""
                value = super().run_node(n)
                if n in wanted and isinstance(value, Tensor):
                    found[n] = tuple(value.shape)
                return value

        with torch.inference_mode():
            Watching(self.module).run(inputs)
        return found

    def cut(self, depth: int) -> tuple[nn.Module, nn.Module] | None:
        """Return (prefix, suffix) modules that share the network's layers, or None where no single tensor crosses."""
        node = self.crossing(depth)
        if node is None:
            return None
        return self._until(node), self._after(node)

    def tapped(self, depths: Sequence[int], channels_last: bool) -> nn.Module:
        """Return a module that gives the output [N, D] followed by average and maximum at each of `depths`."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        output = _copy(self.module.graph, graph, copies)
        parts = [output]
        for depth in depths:
            node = self.crossing(depth)
            if node is None:
                raise ValueError(f"no single tensor crosses depth {depth}")
            parts.append(graph.call_function(pool_both, (copies[node], channels_last)))
        graph.output(graph.call_function(torch.cat, (parts, 1)))
        return fx.GraphModule(self.module, graph)

    def _until(self, crossing: fx.Node) -> nn.Module:
        """Return the part of the network that computes the crossing tensor."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        ancestors = _ancestors(crossing)
        for node in self.module.graph.nodes:
            if node is crossing or node in ancestors or node.op == "placeholder":
                copies[node] = graph.node_copy(node, lambda item: copies[item])
        graph.output(copies[crossing])
        return fx.GraphModule(self.module, graph)

    def _after(self, crossing: fx.Node) -> nn.Module:
        """Return the part of the network that starts from the crossing tensor."""
        graph = fx.Graph()
        copies = {crossing: graph.placeholder("activations")}
        ancestors = _ancestors(crossing)
        for node in self.module.graph.nodes:
            if node is crossing or node in ancestors or node.op == "placeholder":
                continue
            copies[node] = graph.node_copy(node, lambda item: copies[item])
        return fx.GraphModule(self.module, graph)


def pool_both(features: Tensor, channels_last: bool) -> Tensor:
    """Average and maximum over positions: [N, C, H, W], [N, H, W, C] or [N, T, C] to [N, 2 C]."""
    if features.dim() == 2:
        return torch.cat([features, features], 1)
    positions = (2, 3) if features.dim() == 4 and not channels_last else tuple(range(1, features.dim() - 1))
    return torch.cat([features.mean(positions), features.amax(positions)], 1)


fx.wrap("pool_both")


def _copy(source: fx.Graph, target: fx.Graph, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    """Copy all nodes but the output; return the copy of what the output returns."""
    for node in source.nodes:
        if node.op == "output":
            return copies[node.args[0]]
        copies[node] = target.node_copy(node, lambda item: copies[item])
    raise ValueError("a traced network has an output")


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """Return every node that this one is computed from."""
    found: set[fx.Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        item = waiting.pop()
        if item not in found:
            found.add(item)
            waiting.extend(item.all_input_nodes)
    return found


def _own_depth(node: fx.Node, network: nn.Module, depth_of_parameter: dict[int, int]) -> int:
    """Return the deepest group whose parameters this node itself uses; -1 for none."""
    if node.op == "call_module":
        tensors = [id(tensor) for tensor in network.get_submodule(str(node.target)).parameters()]
    elif node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        tensors = [id(getattr(network.get_submodule(owner), name))]
    else:
        tensors = []
    return max((depth_of_parameter.get(tensor, -1) for tensor in tensors), default=-1)

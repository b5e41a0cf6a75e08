"""The supernet: a frozen backbone whose adapted layers carry entangled support tensors.

Puts support tensors into a backbone, switches subnet configs, owns the trainable state and merges configs into plain
weights. It does not train (`glora_core.training`) and does not score (`glora_core.evaluation`).
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from glora_core.backbones import Inputs, classifier, run
from glora_core.configs import SubnetConfig, config_hash
from glora_core.errors import ConfigInvalid
from glora_core.layers import GLoRALayer, adapt
from glora_core.layers.adapted import rounded
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.layers.storage import NormalisedStorage, check_form
from glora_core.space import LayerShape, SearchSpace


class Supernet(nn.Module):
    """A backbone with support tensors of the largest choice everywhere, and a trainable head.

    Args:
        backbone: a timm or transformers model; taken over and changed in place.
        space: the search space over its adapted layers.
        entanglement: `normalised` or `paper`.
        seed: of the initial values of support tensors and head.

    Raises:
        ConfigInvalid: the space names a layer that the backbone does not have, of another size, or that cannot be adapted; the
            entanglement is unknown; or the backbone is adapted already. It is unchanged then.
        BackboneUnsupported: see `classifier`.
    """

    def __init__(self, backbone: nn.Module, space: SearchSpace, entanglement: str = "normalised", seed: int = 0) -> None:
        super().__init__()
        modules, head = _adaptable(backbone, space, entanglement), classifier(backbone)
        self.space, self.backbone, self.entanglement = space, backbone, entanglement
        generator, device = torch.Generator().manual_seed(seed), next(backbone.parameters()).device
        for parameter in backbone.parameters():
            parameter.requires_grad_(False)
        self._layers: list[GLoRALayer] = []
        for module, shape, allowed in zip(modules, space.layers, space.choices, strict=True):
            layer = adapt(module, allowed, entanglement, generator)
            parent, _, attribute = shape.name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, layer)
            self._layers.append(layer)
        if head is not None:
            _start(head, generator)
        self.to(device)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits under the current config: (n, classes), or (n, tokens, vocabulary) of a language model.

        inputs: images (n, channels, height, width), or the named tensors that a transformers model takes.
        """
        return run(self.backbone, inputs)

    def set_config(self, config: SubnetConfig) -> None:
        """Switch every adapted layer to a subnet config. Raises ConfigInvalid where the space does not allow it."""
        self.check(config)
        for layer, choice in zip(self._layers, config, strict=True):
            layer.config = choice

    def check(self, config: SubnetConfig) -> None:
        """Raise ConfigInvalid if the config is not one of this supernet's space."""
        if not self.space.contains(config):
            raise ConfigInvalid(f"subnet {config_hash(config)[:12]} is not in this supernet's space")

    def layers(self) -> Iterator[tuple[LayerShape, GLoRALayer]]:
        """The adapted layers with their names and sizes, in the space's order."""
        return zip(self.space.layers, self._layers, strict=True)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the support tensors and the head."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def trainable_state(self) -> dict[str, Tensor]:
        """Copies of the support tensors, the scales they act at, and the head, on the CPU: all that training changed."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.trainable()} | {
            f"{name}.scales": module.scales for name, module in self._scaled()
        }

    @torch.no_grad()
    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state made by `trainable_state`; scales keep what they are where it has none.

        Raises ConfigInvalid if names or shapes differ.
        """
        own, scaled = dict(self.trainable()), {f"{name}.scales": module for name, module in self._scaled()}
        numbers = {name: value for name, value in state.items() if name not in scaled}
        scales = [value.numel() == module.scales.numel() for name, module in scaled.items() if (value := state.get(name)) is not None]
        if set(own) != set(numbers) or any(own[name].shape != numbers[name].shape for name in own) or not all(scales):
            raise ConfigInvalid("this state belongs to another supernet: names or shapes of its tensors differ")
        for name, parameter in own.items():
            parameter.copy_(numbers[name])
        for name in scaled.keys() & state.keys():
            scaled[name].scales = state[name]

    def _scaled(self) -> Iterator[tuple[str, NormalisedStorage]]:
        """Names and storages of the layers whose numbers act at scales of their own."""
        return ((name, module) for name, module in self.named_modules() if isinstance(module, NormalisedStorage))

    def bare(self) -> nn.Module:
        """A copy of the backbone as it was before it was adapted, in eval mode, with this supernet's head."""
        copy = deepcopy(self.backbone)
        for shape, layer in self.layers():
            parent, _, attribute = shape.name.rpartition(".")
            setattr(copy.get_submodule(parent), attribute, layer.bare())
        return copy.eval()

    def cut(self, config: SubnetConfig) -> "Supernet":
        """A supernet whose only subnet is `config`, with this one's numbers for it and this one's head, over a copy of the backbone."""
        self.check(config)
        small = Supernet(self.bare(), self.space.covering(config), self.entanglement)
        for (_, own), (_, new), choice in zip(self.layers(), small.layers(), config, strict=True):
            new.support.copy_slice(own.support, choice)
        head, new_head = classifier(self.backbone), classifier(small.backbone)
        if head is not None and new_head is not None:
            new_head.load_state_dict(deepcopy(head.state_dict()))
        small.set_config(config)
        return small

    def merged_layer(self, index: int, config: SubnetConfig, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """What merging changes for one adapted layer under a config, by the names in the backbone.

        That is its weight, and its bias if it has or gains one. Where a batch norm takes up the gained bias b, its running mean
        minus b stands here instead: it subtracts that mean from what the layer, without the bias, puts out.
        """
        shape, layer = self.space.layers[index], self._layers[index]
        if not shape.absorber:
            weight, bias = layer.merged(config[index], dtype)
            return {f"{shape.name}.weight": weight} | ({} if bias is None else {f"{shape.name}.bias": bias})
        mean = self.backbone.get_submodule(shape.absorber).get_buffer("running_mean")
        weight, gained = layer.merged(config[index], torch.float64)
        shifted = mean.double() if gained is None else mean.double() - gained
        return {
            f"{shape.name}.weight": rounded(weight, dtype or layer.weight.dtype),
            f"{shape.absorber}.running_mean": rounded(shifted, dtype or mean.dtype),
        }

    def merged_state(self, config: SubnetConfig, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """A plain state dict of the backbone's architecture with a config merged in and the trained head.

        Where a layer gains a bias that nothing takes up, a key `….bias` is there that the bare architecture lacks.

        Args:
            dtype: of all floating-point tensors, instead of each one's own; merged values are rounded once, to it.
        """
        self.check(config)
        adapted = {f"backbone.{shape.name}." for shape in self.space.layers}
        state = {
            key.removeprefix("backbone."): value.detach().to(dtype if dtype and value.is_floating_point() else value.dtype, copy=True)
            for key, value in self.state_dict().items()
            if not any(key.startswith(prefix) for prefix in adapted)
        }
        for index in range(len(config)):
            state |= self.merged_layer(index, config, dtype)
        return state


def _adaptable(backbone: nn.Module, space: SearchSpace, entanglement: str) -> list[nn.Module]:
    """The modules of a space's layers, once all is checked that could stop a backbone half way from being adapted."""
    check_form(entanglement)
    modules = dict(backbone.named_modules())
    if any(isinstance(module, GLoRALayer) for module in modules.values()):
        raise ConfigInvalid(f"this {type(backbone).__name__} is already adapted; accepted is a bare backbone, such as `supernet.bare()`")
    found = [layer_module(modules, shape) for shape in space.layers]
    if len({id(module) for module in found}) < len(found):
        raise ConfigInvalid("the layers given name a layer of this backbone twice; accepted is each once")
    return found


@torch.no_grad()
def _start(head: nn.Module, generator: torch.Generator) -> None:
    """Make a head trainable, from small random matrices; a bias starts at 0, a norm's weight at 1."""
    for name, parameter in head.named_parameters():
        parameter.requires_grad_(True)
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02, generator=generator)
        else:
            parameter.fill_(0.0 if name.rpartition(".")[2].endswith("bias") else 1.0)


def layer_module(modules: Mapping[str, nn.Module], shape: LayerShape) -> nn.Module:
    """The module of a layer, out of a backbone's. Raises ConfigInvalid if there is none that can be adapted and has the layer's size."""
    module = modules.get(shape.name)
    if module is None or kind_of(module) is None or matrix_size(module) != (shape.out_features, shape.in_features):
        raise ConfigInvalid(
            f"layer {shape.name!r} of the layers given is no adaptable layer of this backbone of {shape.in_features}→{shape.out_features}"
        )
    return module

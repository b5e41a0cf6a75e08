"""The supernet: a frozen backbone whose linear layers carry entangled support tensors.

Puts support tensors into a backbone, switches subnet configs, owns the trainable state and merges configs into plain
weights. It does not train (`glora_core.training`) and does not score (`glora_core.evaluation`).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from glora_core.backbones import classifier
from glora_core.configs import SubnetConfig, config_hash
from glora_core.errors import ConfigInvalid
from glora_core.layers import GLoRALinear
from glora_core.space import SearchSpace


class Supernet(nn.Module):
    """A backbone with support tensors of the largest choice everywhere, and a trainable head.

    Args:
        backbone: a timm model with its classifier; taken over and changed in place.
        space: the search space over its adapted layers.
        entanglement: `normalised` or `paper`.
        seed: of the support tensors' initial values.

    Raises:
        ConfigInvalid: the space names a layer that is no linear layer of that size in the backbone.
    """

    def __init__(self, backbone: nn.Module, space: SearchSpace, entanglement: str = "normalised", seed: int = 0) -> None:
        super().__init__()
        self.space, self.backbone = space, backbone
        generator = torch.Generator().manual_seed(seed)
        for parameter in backbone.parameters():
            parameter.requires_grad_(False)
        self._layers: list[GLoRALinear] = []
        for shape in space.layers:
            linear = dict(backbone.named_modules()).get(shape.name)
            if not isinstance(linear, nn.Linear) or linear.weight.shape != (shape.out_features, shape.in_features):
                raise ConfigInvalid(f"layer {shape.name!r} of the space is not a linear layer of {shape.in_features}→{shape.out_features}")
            layer = GLoRALinear(linear, space.max_rank, entanglement, generator)
            parent, _, attribute = shape.name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, layer)
            self._layers.append(layer)
        for parameter in classifier(backbone).parameters():
            parameter.requires_grad_(True)
            nn.init.normal_(parameter, std=0.02 if parameter.dim() > 1 else 0.0, generator=generator)
        self.to(next(backbone.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, height, width); returns logits (n, classes) under the current config."""
        logits: Tensor = self.backbone(images)
        return logits

    def set_config(self, config: SubnetConfig) -> None:
        """Switch every adapted layer to a subnet config. Raises ConfigInvalid where the space does not allow it."""
        self.check(config)
        for layer, choice in zip(self._layers, config, strict=True):
            layer.config = choice

    def check(self, config: SubnetConfig) -> None:
        """Raise ConfigInvalid if the config is not one of this supernet's space."""
        if not self.space.contains(config):
            raise ConfigInvalid(f"subnet {config_hash(config)[:12]} is not in this supernet's space")

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the support tensors and the head."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def trainable_state(self) -> dict[str, Tensor]:
        """Copies of the support tensors and the head on the CPU: all that training changed."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.trainable()}

    @torch.no_grad()
    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state made by `trainable_state`. Raises ConfigInvalid if names or shapes differ."""
        own = dict(self.trainable())
        if set(own) != set(state) or any(own[name].shape != state[name].shape for name in own):
            raise ConfigInvalid("this state belongs to another supernet: names or shapes of its tensors differ")
        for name, parameter in own.items():
            parameter.copy_(state[name])

    def merged_layer(self, index: int, config: SubnetConfig) -> dict[str, Tensor]:
        """Plain weight, and bias if any, of one adapted layer under a config, by their names in the backbone."""
        weight, bias = self._layers[index].merged(config[index])
        name = self.space.layers[index].name
        return {f"{name}.weight": weight} | ({} if bias is None else {f"{name}.bias": bias})

    def merged_state(self, config: SubnetConfig) -> dict[str, Tensor]:
        """A plain state dict of the backbone's architecture with a config merged in and the trained head.

        Where a layer without bias gains one (C, D or E ask for it), a key `….bias` is there that the bare architecture lacks.
        """
        self.check(config)
        adapted = {f"backbone.{shape.name}." for shape in self.space.layers}
        state = {
            key.removeprefix("backbone."): value.detach().clone()
            for key, value in self.state_dict().items()
            if not any(key.startswith(prefix) for prefix in adapted)
        }
        for index in range(len(config)):
            state |= self.merged_layer(index, config)
        return state

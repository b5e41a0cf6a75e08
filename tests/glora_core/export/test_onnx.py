"""The ONNX file: any batch size, the same function, and no file where it is another."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from glora_core.backbones import adapted_layers
from glora_core.errors import ExportMismatch
from glora_core.export import merged_network, onnx_format, write_onnx
from glora_core.presets import preset
from glora_core.supernet import Supernet

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")


def merged(model: nn.Module, randomise) -> nn.Module:
    supernet = randomise(Supernet(model, preset("paper", adapted_layers(model))))
    return merged_network(supernet, supernet.space.extreme(largest=True))


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1)).eval()


@pytest.mark.parametrize(("kind", "side"), [("vit", 8), ("convnext", 32)])
def test_file_computes_what_the_merged_network_computes_at_any_batch_size(make_vit, randomise, tmp_path, kind, side):
    plain = merged(make_vit() if kind == "vit" else convnet(), randomise)

    parity = write_onnx(tmp_path / "model.onnx", plain, torch.randn(2, 3, side, side))

    images = torch.randn(5, 3, side, side)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    assert parity.onnx < 32 * max(parity.torch, 2.0**-23)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, plain(images).numpy(), rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_language_models_take_any_number_of_tokens(randomise, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra text")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    plain = merged(transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3)).eval(), randomise)
    example = {"input_ids": torch.randint(1, 50, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}

    write_onnx(str(tmp_path / "model.onnx"), plain, example)

    longer = {"input_ids": torch.randint(1, 50, (3, 11)), "attention_mask": torch.ones(3, 11, dtype=torch.long)}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {name: value.numpy() for name, value in longer.items()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, plain(**longer).logits.numpy(), rtol=1e-4, atol=1e-5)


def test_a_file_that_computes_something_else_is_refused_and_not_left_behind(make_vit, randomise, tmp_path, monkeypatch):
    plain, export = merged(make_vit(), randomise), onnx_format._export

    def export_another(network, inputs, path):
        with torch.no_grad():
            network.head.bias.add_(0.01)
        export(network, inputs, path)
        with torch.no_grad():
            network.head.bias.sub_(0.01)

    monkeypatch.setattr(onnx_format, "_export", export_another)
    with pytest.raises(ExportMismatch, match="off by"):
        write_onnx(tmp_path / "model.onnx", plain, torch.randn(2, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []

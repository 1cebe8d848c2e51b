"""Write the weights files that ship with the package: half precision, loaded back to float32."""

import json
from pathlib import Path

from safetensors.torch import save
from torch import nn

from animaray.platform.json_text import json_text
from animaray.platform.storage import read_json, write_bytes_atomic, write_json_atomic


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's parameters and buffers as safetensors, floats in half precision."""
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
    write_bytes_atomic(path, save(tensors, metadata={"format": "pt"}))


def record_accuracy(path: Path, name: str, figures: dict[str, float]) -> None:
    """Add the measured figures of one network to a JSON file that the model cards are made from."""
    known = read_json(path) if path.is_file() else {}
    known[name] = json.loads(json_text(figures))
    write_json_atomic(path, known)

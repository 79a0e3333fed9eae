#!/usr/bin/env python3
"""Load an adapter folder with the peft package and compare the merged weights with a checkpoint that
`bandsaw merge` wrote.

    bandsaw merge --model base.safetensors --adapter FOLDER -o merged.safetensors
    check_peft.py FOLDER base.safetensors merged.safetensors

The model is a stand-in: modules of the base's names with its weights; no forward pass is needed.
"""
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file


def module_for(parts):
    """A module that holds these tensors of the checkpoint: part of the name -> tensor."""
    weight = parts.get("weight")
    if weight is not None and weight.dim() == 2:
        m = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in parts)
    elif weight is not None and weight.dim() == 4:
        m = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias="bias" in parts)
    elif weight is not None and weight.dim() == 3:
        m = torch.nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2], bias="bias" in parts)
    else:
        m = torch.nn.Module()
    for name, tensor in parts.items():
        setattr(m, name, torch.nn.Parameter(tensor.clone()))
    return m


def stand_in(tensors):
    modules = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor
    root = torch.nn.Module()
    for name, parts in modules.items():
        at = root
        *path, last = name.split(".")
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.add_module(last, module_for(parts))
    return root


def main():
    folder, base, merged = sys.argv[1:4]
    base, ours = load_file(base), load_file(merged)
    model = PeftModel.from_pretrained(stand_in(base), folder).merge_and_unload()
    theirs, worst, changed = model.state_dict(), 0.0, 0
    for name, tensor in ours.items():
        error = (theirs[name] - tensor).norm() / (tensor.norm() + 1e-30)
        changed += not torch.equal(base[name], tensor)
        worst = max(worst, float(error))
    print(f"{folder}: {changed} of {len(ours)} tensors changed, worst difference {worst:.1e}")
    sys.exit(worst > 1e-6 or not changed)


if __name__ == "__main__":
    main()

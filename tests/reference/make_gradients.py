# SPDX-License-Identifier: MIT
"""Makes data/gradients: gradients of a loss with energy, force and stress terms with respect to the tensors of committed models, by mace-torch's autograd.

    python make_gradients.py [NAME...]      needs mace-torch

Models are those of make_models.py, made again from their seeds; the script checks that they are the committed ones. The loss of STRUCTURES, one batch, is

    L = 1.5 sum_b (E_b / n_b - e_b)^2 + 0.7 mean over force components (F - f)^2 + 0.2 sum over fully periodic b, sum over 9 components (stress - s)^2

with labels e_b = sin(1 + b), f_k = sin(0.7 + k), s_k = 0.05 sin(0.3 + k), k running over the batch's force components and over 9 components of each b; all
structures with the last head. In float64, by torch's double backward.

mace-torch gives dL/dp for its parameters p. An entry of a tensor is factor * p for one p (make_architectures.py measures this), so dL/d(entry) =
dL/dp / factor. Tensors whose entries combine several parameters (none in these models, but those of use_reduced_cg) are left out.

A file is a model file (docs/model_file.md) whose tensors are the gradients; the architecture is the model's, the provenance has the loss and its value.
"""
import argparse
import importlib.metadata
import sys
import warnings

import numpy as np

import make_architectures
import make_models
from structures import all_structures

sys.path.insert(0, str(make_models.HERE.parents[1] / "python" / "adatom"))
warnings.filterwarnings("ignore", message="The TorchScript type system")

GRADIENTS = make_models.HERE / "data" / "gradients"
NAMES = ["mace_medium", "mace_density", "mace_edge_irreps", "mace_pair_01", "mace_pair_11", "mace_pair_14"]
STRUCTURES = ["molecule", "nacl", "triclinic"]


def rebuild(name):
    """The mace-torch module of a committed model, and the tensors of the latter."""
    from importers import read_model
    from importers.mace import import_mace

    options = {**make_models.SPECIAL, **make_models.pairwise()}
    model = make_models.build_mace(options[name], list(options).index(name))
    make_models.scale_forces(model)
    committed, _ = read_model(make_models.MODELS / f"{name}.safetensors")
    for tensor, value in import_mace(model)[0].items():
        deviation = np.abs(value - committed[tensor]).max()
        if not deviation < 1e-12 * max(1.0, np.abs(value).max()):
            raise SystemExit(f"{name}: tensor {tensor} made again deviates by {deviation:.1e} from the committed one")
    return model


def loss_of(model):
    import ase
    import torch
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    structures = [all_structures()[name] for name in STRUCTURES]
    heads = getattr(model, "heads", ["Default"])
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graphs = []
    for s in structures:
        config = data.config_from_atoms(ase.Atoms(s["numbers"], s["positions"], cell=s["cell"], pbc=s["pbc"]), head_name=heads[-1])
        config.head = heads[-1]
        graphs.append(data.AtomicData.from_config(config, z_table=table, cutoff=float(model.r_max), heads=heads))
    batch = next(iter(torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs), shuffle=False))).to_dict()
    out = model(batch, training=True, compute_force=True, compute_stress=True)

    atoms = torch.tensor([float(len(s["numbers"])) for s in structures])
    periodic = torch.tensor([float(all(s["pbc"])) for s in structures])
    forces = out["forces"].flatten()
    e = torch.sin(1.0 + torch.arange(len(structures)))
    f = torch.sin(0.7 + torch.arange(len(forces)))
    s = 0.05 * torch.sin(0.3 + torch.arange(9 * len(structures))).reshape(-1, 9)
    stress = torch.where(periodic[:, None] > 0, out["stress"].reshape(-1, 9), s)  # without a volume there is no number
    return 1.5 * ((out["energy"] / atoms - e) ** 2).sum() + 0.7 * ((forces - f) ** 2).mean() + 0.2 * ((stress - s) ** 2).sum()


def make(name):
    import torch
    from importers import write_model
    from importers.mace import import_mace

    model = rebuild(name)
    loss = loss_of(model)
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    flat = np.concatenate([(torch.zeros_like(p) if g is None else g).numpy().ravel() for p, g in zip(parameters.values(), gradients)])
    document = import_mace(model)[1]

    def set_parameters(values):
        with torch.no_grad():
            for key, p in parameters.items():
                p.copy_(torch.as_tensor(values[key]).reshape(p.shape))
        return import_mace(model)[0]

    found, _, _ = make_architectures.entries({key: tuple(p.shape) for key, p in parameters.items()}, set_parameters)
    tensors = {}
    for tensor, (scale, numbers) in found.items():
        if numbers is None:
            print(f"{name}: {tensor} left out, its entries combine parameters")
        elif numbers.size:
            tensors[tensor] = flat[np.abs(numbers) - 1] / (scale * np.sign(numbers))
    document["provenance"] = {"note": "gradients of a loss, made by tests/reference/make_gradients.py", "model": name, "licence": "MIT",
                              "structures": STRUCTURES, "loss": loss.item(),
                              "source": {p: importlib.metadata.version(p) for p in ("mace-torch", "e3nn", "torch")}}
    GRADIENTS.mkdir(exist_ok=True)
    path = GRADIENTS / f"{name}.safetensors"
    write_model(path, tensors, document)
    print(f"{name:18s} loss {loss.item():.6f}, {path.stat().st_size} bytes, largest entry {max(np.abs(t).max() for t in tensors.values()):.3g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    names = parser.parse_args().names

    import mace  # noqa: F401  (before e3nn: lets torch load e3nn 0.4's constants)
    import torch

    torch.set_default_dtype(torch.float64)
    make_models.differentiable_chebyshev()
    for name in names:
        make(name)


if __name__ == "__main__":
    main()

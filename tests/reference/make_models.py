# SPDX-License-Identifier: MIT
"""Makes the reference models and values in data/models, and large random models for benchmarks.

    python make_models.py mace                 random MACE models and mace-torch's values (needs mace-torch and cuequivariance, see README.md)
    python make_models.py sevennet             random SevenNet models, and sevenn's values for them and for its own checkpoints (needs sevenn)
    python make_models.py check                evaluates every model file with evaluate.py and compares with those values (needs mace-torch)
    python make_models.py mace_128 DIRECTORY   models of the shape of published MACE foundation models, with random weights; not committed

Values are computed in float64 by the packages themselves; a model file has the weights that they used.
"""
import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from structures import ELEMENTS, all_structures, neighbor_list

HERE = Path(__file__).parent
MODELS = HERE / "data" / "models"
sys.path.insert(0, str(HERE.parents[1] / "python" / "adatom"))  # the importers alone: they do not need the compiled package

# ---- values ----------------------------------------------------------------------------------------------------------------------------------


def save_values(name, source, options, heads):
    """Writes data/models/NAME.json. `heads`: {head: {structure: values}}."""
    text = json.dumps({"source": source, "options": options, "heads": heads}, separators=(",", ":"))
    for key in [*all_structures(), "heads"]:
        text = text.replace(f'"{key}":{{', f'\n"{key}":{{')  # one structure a line
    (MODELS / f"{name}.json").write_text(text + "\n")


def values(structure, energy, energies, forces, virial):
    """The record of one structure: eV, angstrom. virial W = -dE/d(strain), 3x3; stress = -W / volume for fully periodic structures, Voigt."""
    out = {"energy": float(energy), "energies": np.asarray(energies).tolist(), "forces": np.asarray(forces).tolist(),
           "virial": np.asarray(virial).tolist()}
    if all(structure["pbc"]):
        s = -np.asarray(virial) / abs(np.linalg.det(structure["cell"]))
        out["stress"] = [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]]
    return out


# ---- MACE ------------------------------------------------------------------------------------------------------------------------------------

BLOCK = {"agnostic": "RealAgnosticInteractionBlock", "residual": "RealAgnosticResidualInteractionBlock",
         "density": "RealAgnosticDensityInteractionBlock", "density_residual": "RealAgnosticDensityResidualInteractionBlock"}

FACTORS = {
    "first": list(BLOCK), "later": list(BLOCK), "L": [0, 1, 2], "max_ell": [1, 2, 3], "correlation": [1, 2, 3], "num_interactions": [1, 2, 3],
    "readout": ["NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"], "keep_last_layer_irreps": [False, True],
    "use_last_readout_only": [False, True],
    "heads": [1, 2, 3], "pair_repulsion": [False, True], "distance_transform": ["None", "Agnesi", "Soft"],
    "radial_type": ["bessel", "gaussian", "chebyshev"], "apply_cutoff": [True, False], "use_agnostic_product": [False, True],
    "use_so3": [False, True], "scale_shift": [True, False], "channels": [8, 5, 12],
}
DEFAULT = {name: options[0] for name, options in FACTORS.items()}
DEFAULT.update(first="residual", later="residual", L=1, max_ell=2, correlation=2, num_interactions=2)

SPECIAL = {  # options that are not factors, and the shapes of published models
    "mace_small": {"L": 0, "max_ell": 3, "correlation": 3, "channels": 16},
    "mace_medium": {"first": "agnostic", "max_ell": 3, "correlation": 3},
    "mace_large": {"L": 2, "max_ell": 3, "correlation": 3, "channels": 12},
    "mace_density": {"first": "density", "later": "density_residual", "max_ell": 3, "correlation": 3, "distance_transform": "Agnesi",
                     "pair_repulsion": True},
    "mace_reduced_cg": {"L": 2, "max_ell": 3, "correlation": 3, "use_reduced_cg": True, "channels": 5},
    "mace_edge_irreps": {"L": 1, "edge_irreps": "4x0e + 3x1o", "use_edge_irreps_first": True},
    "mace_pseudo": {"hidden_irreps": "5x0e + 5x0o + 5x1o + 5x1e", "channels": 5, "correlation": 3},
    "mace_deep_radial": {"radial_MLP": [7, 12, 16, 9]},
    "mace_linear_radial": {"radial_MLP": []},
    "mace_correlations": {"num_interactions": 3, "correlation": [3, 1, 2]},
    "mace_l2_of_l1": {"L": 2, "max_ell": 1, "correlation": 3},  # at order 1 nothing couples to 2e
    "mace_tanh": {"gate": "tanh", "readout": "NonLinearBiasReadoutBlock"},
    "mace_no_gate": {"gate": "None", "readout": "NonLinearBiasReadoutBlock", "heads": 2},
}


def allowed(options):
    """Combinations that mace-torch can build and that have an energy."""
    return not (options.get("num_interactions") == 1 and options.get("use_last_readout_only"))


def pairwise():
    """Option sets that together contain every pair of values of FACTORS (greedy, deterministic)."""
    names = list(FACTORS)
    open_pairs = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in FACTORS[a] for y in FACTORS[b] if allowed({a: x, b: y})}
    rng, rows = np.random.default_rng(0), []
    while open_pairs:
        best, most = None, -1
        for _ in range(300):
            seed = sorted(open_pairs, key=repr)[rng.integers(len(open_pairs))]
            row = dict(seed)
            for name in rng.permutation([n for n in names if n not in row]):
                options = [x for x in FACTORS[name] if allowed({**row, name: x})]
                gains = [sum(_ordered((name, x), item, names) in open_pairs for item in row.items()) for x in options]
                row[str(name)] = options[int(np.argmax(gains))]
            covered = sum(pair in open_pairs for pair in _pairs(row, names))
            if covered > most:
                best, most = row, covered
        rows.append({n: best[n] for n in names})
        open_pairs -= set(_pairs(best, names))
    return {f"mace_pair_{n:02d}": row for n, row in enumerate(rows)}


def _ordered(a, b, names):
    return (a, b) if names.index(a[0]) < names.index(b[0]) else (b, a)


def _pairs(row, names):
    return [((a, row[a]), (b, row[b])) for a, b in itertools.combinations(names, 2)]


def build_mace(options, seed):
    """A mace-torch model with random weights."""
    import torch
    from e3nn import o3
    from mace import modules

    o = {**DEFAULT, **options}
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    channels, heads = o["channels"], o["heads"]
    parity = (lambda l: "e") if o["use_so3"] else (lambda l: "eo"[l % 2])
    hidden = o.get("hidden_irreps") or " + ".join(f"{channels}x{l}{parity(l)}" for l in range(o["L"] + 1))
    kwargs = dict(
        r_max=4.5, num_bessel=4 if o["radial_type"] == "chebyshev" else 6, num_polynomial_cutoff=5, max_ell=o["max_ell"],
        interaction_cls=modules.interaction_classes[BLOCK[o["later"]]], interaction_cls_first=modules.interaction_classes[BLOCK[o["first"]]],
        num_interactions=o["num_interactions"], num_elements=len(ELEMENTS), hidden_irreps=o3.Irreps(hidden), MLP_irreps=o3.Irreps("6x0e"),
        atomic_energies=rng.normal(scale=2.0, size=(heads, len(ELEMENTS)) if heads > 1 else len(ELEMENTS)), avg_num_neighbors=14.25,
        atomic_numbers=ELEMENTS, correlation=o["correlation"], radial_type=o["radial_type"], radial_MLP=o.get("radial_MLP", [16, 16]),
        gate={"silu": torch.nn.functional.silu, "tanh": torch.tanh, "None": None}[o.get("gate", "silu")], pair_repulsion=o["pair_repulsion"],
        distance_transform=o["distance_transform"], apply_cutoff=o["apply_cutoff"], use_reduced_cg=o.get("use_reduced_cg", False),
        use_so3=o["use_so3"], use_agnostic_product=o["use_agnostic_product"], use_last_readout_only=o["use_last_readout_only"],
        keep_last_layer_irreps=o["keep_last_layer_irreps"], readout_cls=getattr(modules.blocks, o["readout"]),
        heads=None if heads == 1 else [f"level{h}" for h in range(heads)],
        edge_irreps=o3.Irreps(o["edge_irreps"]) if "edge_irreps" in o else None, use_edge_irreps_first=o.get("use_edge_irreps_first", False))
    if o["scale_shift"]:
        scale, shift = (0.8, 0.1) if heads == 1 else (0.8 + 0.3 * np.arange(heads), 0.1 - 0.4 * np.arange(heads))
        model = modules.ScaleShiftMACE(atomic_inter_scale=scale, atomic_inter_shift=shift, **kwargs)
    else:
        model = modules.MACE(**kwargs)
    with torch.no_grad():
        for name, p in model.named_parameters():  # biases start as zero, and mace-torch's contraction weights as 1 / number of paths
            if name.endswith("bias"):
                p.normal_(std=0.3)
            if "symmetric_contractions" in name and p.requires_grad:
                p.mul_(p.shape[1] ** 0.5)
    return model


def scale_forces(model):
    """Scales the last maps of the readouts so that forces are of the order of 1 eV/A."""
    import torch

    heads = getattr(model, "heads", ["Default"])
    pair = model.__dict__.pop("pair_repulsion", None)  # mace-torch asks hasattr: measured without the repulsion
    rms = max(np.std(evaluate_mace(model, all_structures()[name], heads[0])["forces"]) for name in ("cu_fcc", "water", "nacl"))
    if pair is not None:
        model.pair_repulsion = pair
    with torch.no_grad():
        for readout in model.readouts:
            last = readout.linear_2 if hasattr(readout, "linear_2") else readout.linear
            last.weight.mul_(1.0 / rms)
            if last.bias.numel():
                last.bias.mul_(1.0 / rms)


def evaluate_mace(model, structure, head, atom_virials=False):
    """mace-torch's values, with its own neighbour list."""
    import ase
    import torch
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    atoms = ase.Atoms(structure["numbers"], structure["positions"], cell=structure["cell"], pbc=structure["pbc"])
    heads = getattr(model, "heads", ["Default"])
    config = data.config_from_atoms(atoms, head_name=head)
    config.head = head
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graph = data.AtomicData.from_config(config, z_table=table, cutoff=float(model.r_max), heads=heads)
    batch = next(iter(torch_geometric.dataloader.DataLoader([graph], batch_size=1))).to_dict()
    assert batch["positions"].dtype == torch.float64
    out = model(batch, compute_virials=True, compute_stress=False, compute_atomic_stresses=atom_virials)
    result = values(structure, out["energy"].item(), out["node_energy"].detach(), out["forces"].detach(), out["virials"][0].detach())
    if atom_virials:
        result["atom_virials"] = out["atomic_virials"].detach().tolist()  # mace-torch symmetrises them
    return result


def differentiable_chebyshev():
    """torch has no derivative of chebyshev_polynomial_t, so mace-torch has no forces with this basis: the same function by recurrence."""
    import torch

    original = torch.special.chebyshev_polynomial_t

    def recurrence(x, n):
        """T_n of the columns of x, n = 1, 2, ..."""
        t = [torch.ones_like(x[:, 0]), x[:, 0]]
        while len(t) <= x.shape[1]:
            t.append(2 * x[:, 0] * t[-1] - t[-2])
        return torch.stack(t[1:x.shape[1] + 1], dim=1)

    x = torch.linspace(0.01, 6.0, 50).reshape(-1, 1).repeat(1, 4)
    assert torch.allclose(recurrence(x, None), original(x, torch.arange(1.0, 5.0).repeat(50, 1)), rtol=1e-12, atol=1e-12)
    torch.special.chebyshev_polynomial_t = recurrence


def make_mace(only=None):
    import importlib.metadata

    import mace  # noqa: F401
    import torch
    from mace.tools.cg import CUET_AVAILABLE

    from importers import write_model
    from importers.mace import import_mace

    if not CUET_AVAILABLE:
        raise SystemExit("cuequivariance is missing: without it mace-torch ignores use_reduced_cg")
    torch.set_default_dtype(torch.float64)
    differentiable_chebyshev()
    source = {p: importlib.metadata.version(p) for p in ("mace-torch", "e3nn", "torch", "cuequivariance")}
    for seed, (name, options) in enumerate({**SPECIAL, **pairwise()}.items()):
        if only and name not in only:
            continue
        model = build_mace(options, seed)
        scale_forces(model)
        tensors, document = import_mace(model)
        document["provenance"].update(name=name, licence="MIT", note="random weights, made by tests/reference/make_models.py")
        write_model(MODELS / f"{name}.safetensors", tensors, document)
        virials = ("slab", "nacl") if name in ("mace_medium", "mace_density") else ()
        heads = {head: {s: evaluate_mace(model, structure, head, atom_virials=s in virials) for s, structure in all_structures().items()}
                 for head in document["heads"]}
        save_values(name, source, options, heads)
        forces = max(np.abs(v["forces"]).max() for s, v in heads[document["heads"][0]].items())
        print(f"{name:22s} {(MODELS / (name + '.safetensors')).stat().st_size:8d} bytes, largest force {forces:.3g} eV/A", flush=True)


def mace_128(L, directory):
    """A random ScaleShiftMACE of the shape of published foundation models, float32: 128x0e (L = 0) or 128x0e + 128x1o (L = 1), l_max 3,
    correlation 3, 2 layers, r_max 6 A, 10 Bessel functions, 89 elements, readout 16x0e, radial MLP [64, 64, 64].

    Writes DIRECTORY/mace_128_L{L}.model for mace-torch and .safetensors with some of the elements. Forces are of the order of 1 eV/A.
    """
    import mace  # noqa: F401  (lets torch load e3nn 0.4's constants)
    import torch
    from e3nn import o3
    from mace import modules

    from importers import write_model
    from importers.mace import import_mace

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(torch.float64)  # to measure the forces; saved as float32
    torch.manual_seed(128 + L)
    residual = modules.interaction_classes[BLOCK["residual"]]
    numbers = [*range(1, 84), *range(89, 95)]
    model = modules.ScaleShiftMACE(
        r_max=6.0, num_bessel=10, num_polynomial_cutoff=5, max_ell=3, interaction_cls=residual, interaction_cls_first=residual, num_interactions=2,
        num_elements=len(numbers), hidden_irreps=o3.Irreps(" + ".join(f"128x{l}{'eo'[l % 2]}" for l in range(L + 1))), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=-3 * np.random.default_rng(1).random(len(numbers)), avg_num_neighbors=60.0, atomic_numbers=numbers, correlation=3,
        gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64], radial_type="bessel", use_reduced_cg=False, atomic_inter_scale=0.8,
        atomic_inter_shift=0.1)
    scale_forces(model)
    model = model.float()
    torch.save(model, directory / f"mace_128_L{L}.model")
    tensors, document = import_mace(directory / f"mace_128_L{L}.model", elements=[29, 8, 1, 14, 13, 11, 12, 17, 6])
    write_model(directory / f"mace_128_L{L}.safetensors", tensors, document)


# ---- SevenNet --------------------------------------------------------------------------------------------------------------------------------

SEVENNET = {
    "sevennet_linear": {"irreps_manual": ["8x0e", "8x0e+4x1e+3x2e", "8x0e+4x1e+3x2e", "8x0e"], "is_parity": False, "self_connection_type": "linear",
                        "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.8}},
    "sevennet_l3": {"irreps_manual": ["8x0e", "8x0e+4x1e+3x2e+2x3e", "8x0e+4x1e+3x2e+2x3e", "8x0e"], "lmax": 3, "is_parity": False,
                    "self_connection_type": "linear"},
    "sevennet_parity": {"channel": 5, "is_parity": True, "lmax": 2, "act_scalar": {"e": "ssp", "o": "tanh"}, "act_gate": {"e": "ssp", "o": "tanh"}},
    "sevennet_parity_l1": {"channel": 12, "is_parity": True, "lmax": 1, "self_connection_type": ["nequip", "linear", "nequip"]},
    "sevennet_l3_node1": {"channel": 6, "lmax": 1, "lmax_edge": 3, "is_parity": True},
    "sevennet_bias": {"use_bias_in_linear": True, "channel": 6, "is_parity": False, "lmax": 2, "self_connection_type": "linear"},
    "sevennet_fcn": {"readout_as_fcn": True, "readout_fcn_hidden_neurons": [9, 7], "readout_fcn_activation": "sigmoid", "is_parity": False,
                     "act_radial": "tanh", "weight_nn_hidden_neurons": [12]},
    "sevennet_solid": {"_normalize_sph": False, "channel": 6, "is_parity": False, "lmax": 2, "self_connection_type": "linear"},
    "sevennet_modal": {"use_modal_node_embedding": True, "use_modal_self_inter_intro": True, "use_modal_self_inter_outro": True,
                       "use_modal_output_block": True, "use_modality": True, "use_modal_wise_shift": True, "use_modal_wise_scale": True,
                       "is_parity": False, "lmax": 2, "channel": 6, "self_connection_type": "linear"},
    "sevennet_modal_bias": {"use_modal_self_inter_outro": True, "use_modality": True, "use_modal_wise_shift": True, "use_bias_in_linear": True,
                            "is_parity": True, "lmax": 1, "channel": 4},
    # four layers: 0o first comes out of the third
    "sevennet_pseudo": {"is_parity": True, "lmax": 1, "channel": 5, "num_convolution_layer": 4, "conv_denominator": [6.5, 5.5, 7.25, 6.0]},
}
CHECKPOINTS = ["7net-0", "7net-0_22May2024", "7net-l3i5", "7net-mf-0"]


def build_sevennet(options, seed, path, factor=1.0):
    """Saves a checkpoint of sevenn with random weights, its scale multiplied by `factor`."""
    import sevenn
    import torch
    from sevenn import _const
    from sevenn.model_build import build_E3_equivariant_model

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = {**_const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, **_const.DEFAULT_DATA_CONFIG, "version": sevenn.__version__, "lmax": 2, "channel": 8}
    config.update(cutoff=4.5, num_convolution_layer=3, conv_denominator=[6.5, 5.5, 7.25], weight_nn_hidden_neurons=[16, 16])
    config.update(radial_basis={"radial_basis_name": "bessel", "bessel_basis_num": 6}, cutoff_function={"cutoff_function_name": "poly_cut"})
    # sevenn sorts elements by symbol; its order is not that of the atomic numbers
    order = sorted(ELEMENTS, reverse=True)
    config.update(_type_map={z: i for i, z in enumerate(order)}, _number_of_species=len(order))
    config.update(shift=rng.normal(size=len(order)).astype(np.float32).tolist(), scale=(0.5 + rng.random(len(order))).astype(np.float32).tolist())
    config.update(options)
    if options.get("use_modality"):
        config.update(_modal_map={"A": 0, "B": 1}, _number_of_modalities=2)
        for key in ("shift", "scale"):
            if config.get(f"use_modal_wise_{key}"):
                config[key] = (0.5 + rng.random((2, len(order)))).astype(np.float32).tolist()
    model = build_E3_equivariant_model(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("linear.bias"):
                p.normal_(std=0.3)
        model._modules["rescale_atomic_energy"].scale.mul_(factor)
        model._modules["edge_embedding"].basis_function.coeffs.mul_(1.0 + 0.02 * torch.randn(6))  # trained, in sevenn
    torch.save({"config": config, "model_state_dict": model.state_dict(), "epoch": 0, "time": "", "hash": ""}, path)


def load_sevennet(path):
    """The model of a checkpoint in float64, with coupling coefficients in full precision (a checkpoint has them rounded to float32)."""
    import re

    import torch
    from e3nn import o3
    from sevenn.checkpoint import SevenNetCheckpoint

    model = SevenNetCheckpoint(path).build_model().double()
    for name, buffer in model.named_buffers():
        found = re.search(r"_w3j_(\d)_(\d)_(\d)$", name)
        if found:
            exact = o3.wigner_3j(*map(int, found.groups()), dtype=torch.float64)
            assert torch.allclose(buffer, exact, atol=1e-6)
            buffer.copy_(exact)
    for module in model.modules():
        if type(module).__name__ == "OnehotEmbedding":  # makes float32
            module.forward = lambda data, m=module, forward=module.forward: _onehot_double(m, forward(data))
    model.set_is_batch_data(False)
    model.eval()
    return model


def _onehot_double(module, data):
    for key in (module.key_output, module.key_additional_output):
        if key is not None:
            data[key] = data[key].double()
    return data


def evaluate_sevennet(model, structure, head):
    """sevenn's values in float64."""
    import sevenn._keys as KEY
    import torch

    positions, cell = np.array(structure["positions"]), np.array(structure["cell"])
    i, j, h = neighbor_list(positions, cell, structure["pbc"], model.cutoff)
    z = torch.tensor(structure["numbers"])
    data = {KEY.NODE_FEATURE: z, KEY.ATOMIC_NUMBERS: z, KEY.POS: torch.tensor(positions), KEY.EDGE_IDX: torch.tensor(np.stack([i, j])),
            KEY.EDGE_VEC: torch.tensor(positions[j] - positions[i] + h @ cell), KEY.CELL_VOLUME: torch.tensor(1.0, dtype=torch.float64),
            KEY.NUM_ATOMS: torch.tensor(len(z)), KEY.DATA_MODALITY: head}
    data = _Data(data)
    out = model(data)
    # with volume 1 sevenn's stress (xx yy zz xy yz zx, opposite in sign to ASE's) is the virial
    s = out[KEY.PRED_STRESS].detach().flatten()
    virial = np.array([[s[0], s[3], s[5]], [s[3], s[1], s[4]], [s[5], s[4], s[2]]])
    return values(structure, out[KEY.PRED_TOTAL_ENERGY].item(), out[KEY.ATOMIC_ENERGY].detach().flatten(), out[KEY.PRED_FORCE].detach(), virial)


class _Data(dict):
    """A dict whose entry x is an attribute too, as sevenn expects."""

    @property
    def x(self):
        return self["x"]


def make_sevennet(only=None):
    import importlib.metadata
    import tempfile

    from sevenn.util import pretrained_name_to_path

    from importers import write_model
    from importers.sevennet import import_sevennet

    source = {p: importlib.metadata.version(p) for p in ("sevenn", "e3nn", "torch")}
    structures = all_structures()
    for seed, name in enumerate([*SEVENNET, *CHECKPOINTS]):
        if only and name not in only:
            continue
        options, elements = SEVENNET.get(name), None
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "random.pth"
            if name in SEVENNET:
                build_sevennet(options, 1000 + seed, path)
                model = load_sevennet(path)
                head = "A" if options.get("use_modality") else None
                rms = max(np.std(evaluate_sevennet(model, structures[s], head)["forces"]) for s in ("cu_fcc", "water", "nacl"))
                build_sevennet(options, 1000 + seed, path, 1.0 / rms)  # forces of the order of 1 eV/A
            else:
                path, elements = pretrained_name_to_path(name), ELEMENTS
            tensors, document = import_sevennet(str(path), elements=elements)
            model = load_sevennet(str(path))
        heads = {head: {s: evaluate_sevennet(model, structure, head) for s, structure in structures.items()} for head in document["heads"]}
        if name in SEVENNET:
            document["provenance"].update(name=name, licence="MIT", note="random weights, made by tests/reference/make_models.py")
            write_model(MODELS / f"{name}.safetensors", tensors, document)
        else:  # too large to commit: the values, and how to make the file
            options = {"import_sevennet": {"name_or_path": name, "elements": elements}, "file_sha256": document["provenance"]["file_sha256"]}
        save_values(name, source, options, heads)
        forces = max(np.abs(v["forces"]).max() for v in heads[document["heads"][0]].values())
        print(f"{name:22s} largest force {forces:.3g} eV/A", flush=True)


# ---- check -----------------------------------------------------------------------------------------------------------------------------------


def check(directory=None, only=None):
    """Compares evaluate.py on the model files with the packages' values. Fails on the first deviation that rounding does not explain."""
    from evaluate import ModelFile

    structures = all_structures()
    for path in sorted(MODELS.glob("*.json")):
        if only and path.stem not in only:
            continue
        reference = json.loads(path.read_text())
        file = path.with_suffix(".safetensors")
        if not file.exists() and directory is not None:
            file = Path(directory) / file.name
        if not file.exists():
            print(f"{path.stem:22s} skipped: no model file")
            continue
        worst = 0.0
        for head, records in reference["heads"].items():
            model = ModelFile(file, head)
            for name, record in records.items():
                result = model.evaluate(structures[name])
                for key in ("energy", "energies", "forces", "virial"):
                    expected = np.array(record[key])
                    # rounding of sums of terms as large as the largest force (virial: times a length of 10 A) or energy
                    size = max(1.0, np.abs(record["forces"]).max(initial=0) * (10 if key == "virial" else 1), np.abs(expected).max(initial=0))
                    deviation = np.abs(np.array(result[key]) - expected).max(initial=0) / size
                    if not deviation < 1e-11:
                        raise SystemExit(f"{path.stem}, head {head}, {name}: {key} deviates by {deviation:.2e} (relative)")
                    worst = max(worst, deviation)
                if "atom_virials" in record:
                    symmetric = (result["atom_virials"] + result["atom_virials"].transpose(0, 2, 1)) / 2
                    if not np.abs(symmetric - record["atom_virials"]).max() < 1e-11 * max(1.0, np.abs(symmetric).max()):
                        raise SystemExit(f"{path.stem}, {name}: atom_virials deviate")
            model.check_all_used()
        print(f"{path.stem:22s} largest relative deviation {worst:.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mace", "sevennet", "check", "mace_128"])
    parser.add_argument("arguments", nargs="*", help="names of models to make or check; the directory for mace_128")
    parser.add_argument("--models", help="check: where model files that are not committed are")
    args = parser.parse_intermixed_args()
    MODELS.mkdir(parents=True, exist_ok=True)
    if args.what == "mace":
        make_mace(args.arguments)
    elif args.what == "sevennet":
        make_sevennet(args.arguments)
    elif args.what == "check":
        check(args.models, args.arguments)
    else:
        for L in (0, 1):
            mace_128(L, args.arguments[0])


if __name__ == "__main__":
    main()

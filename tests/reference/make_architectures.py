# SPDX-License-Identifier: MIT
"""Makes data/architectures: what the packages build for some options, as the importers write it, and how their parameters become tensors.

    python make_architectures.py mace        needs mace-torch
    python make_architectures.py sevennet    needs sevenn

Each file has `options` (of adatom::training::new_model), `data` (elements, heads, average_neighbors), the `architecture`, and for each tensor

    shape
    scale    tensor = scale * parameter of the package, up to sign and order; null where no parameter corresponds (several are combined)
    decays   whether the package's optimiser decays that parameter (mace-torch: get_params_options)
    values   of tensors that are not drawn at random

The scales are measured: with all parameters 1 each entry of a tensor must have the same size, its scale; with all parameters different whole numbers each
entry divided by the scale must be one of these, and none may be missing or occur twice.
"""
import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "python" / "adatom"))  # the importers alone

warnings.filterwarnings("ignore", message="The TorchScript type system")

FIXED = ("atomic_energies", "scale", "shift", "covalent_radii", "radial_basis.frequencies", "radial_basis.centers")

MACE = {
    "mace_default": {},
    "mace_channels": {"channels": 6, "max_L": 2},
    "mace_agnostic": {"channels": 5, "max_L": 0, "interaction_first": "RealAgnosticInteractionBlock", "layers": 3, "correlation": [3, 1, 2]},
    "mace_density": {"channels": 4, "interaction_first": "RealAgnosticDensityInteractionBlock", "interaction": "RealAgnosticDensityResidualInteractionBlock",
                     "distance_transform": "agnesi", "pair_repulsion": "zbl", "cutoff_p": 6, "r_max": 6.0, "radial_basis_size": 10},
    "mace_heads": {"channels": 4, "radial_basis": "gaussian", "distance_transform": "soft", "gate": "tanh", "MLP_irreps": "7x0e", "l_max": 2},
    "mace_so3": {"channels": 4, "use_so3": True, "radial_basis": "chebyshev", "apply_cutoff": False, "use_agnostic_product": True, "max_L": 2, "l_max": 2,
                 "readout": "NonLinearBiasReadoutBlock", "radial_mlp": []},
    "mace_pseudo": {"hidden_irreps": "3x0e + 3x0o + 3x1o + 3x1e", "l_max": 2, "correlation": 2, "keep_last_layer_irreps": True},
    "mace_one_layer": {"channels": 4, "layers": 1, "max_L": 1, "interaction_first": "RealAgnosticDensityResidualInteractionBlock", "gate": "abs"},
    "mace_edge_irreps": {"channels": 6, "max_L": 1, "l_max": 2, "edge_irreps": "4x0e + 3x1o", "use_edge_irreps_first": True, "radial_mlp": [7, 12]},
    "mace_nothing_couples": {"channels": 3, "max_L": 2, "l_max": 1, "layers": 3, "correlation": 2, "use_last_readout_only": True},
}
SEVENNET = {
    "nequip_default": {},
    "nequip_linear": {"hidden_irreps": ["8x0e", "8x0e+4x1e+3x2e", "8x0e+4x1e", "8x0e"], "parity": False, "self_connection": "linear",
                      "cutoff_function": "xplor", "cutoff_on": 3.8},
    "nequip_l3": {"channels": 4, "l_max": 3, "scalar_activation": "ssp", "radial_mlp": [16]},
    "nequip_so3": {"channels": 6, "l_max": 2, "parity": False, "normalization": "sqrt_neighbors", "layers": 4, "gate_activation": "ssp", "cutoff_p": 5,
                   "r_max": 5.0, "radial_basis_size": 6},
    "nequip_edge_l3": {"channels": 5, "l_max": 1, "l_max_edge": 3, "self_connection": ["nequip", "linear", "nequip"], "radial_activation": "tanh"},
    "nequip_readout_mlp": {"channels": 6, "readout_mlp": [9, 7], "readout_activation": "sigmoid", "radial_mlp": []},
    "nequip_bias": {"channels": 5, "l_max": 2, "bias": True, "solid_harmonics": True},
    "nequip_heads": {"channels": 5, "parity": False, "use_modal_node_embedding": True, "use_modal_self_inter_intro": True,
                     "use_modal_self_inter_outro": True, "use_modal_output_block": True},
}
DATA = {"elements": [1, 6, 8, 29], "heads": ["Default"], "average_neighbors": 12.25}  # its root is exact in float32, which sevenn uses


def data_of(name):
    return {**DATA, "heads": ["low", "high"]} if name.endswith("_heads") else DATA


# ---- MACE ------------------------------------------------------------------------------------------------------------------------------------


def build_mace(o, data):
    """What mace-torch 0.3.16 builds for these options; defaults are those of its command line (tools/arg_parser.py)."""
    from mace import modules  # before e3nn: lets torch load e3nn 0.4's constants

    from e3nn import o3
    from mace.tools import build_default_arg_parser

    args = build_default_arg_parser().parse_args(["--name", "x"])
    channels, max_L = o.get("channels", 128), o.get("max_L", 1)  # tools/arg_parser_tools.py
    hidden = o.get("hidden_irreps") or channels * o3.Irreps.spherical_harmonics(max_L, p=1 if o.get("use_so3") else -1)
    n, z = len(data["heads"]), len(data["elements"])
    return modules.ScaleShiftMACE(
        r_max=o.get("r_max", args.r_max), num_bessel=o.get("radial_basis_size", args.num_radial_basis),
        num_polynomial_cutoff=o.get("cutoff_p", args.num_cutoff_basis), max_ell=o.get("l_max", args.max_ell),
        interaction_cls=modules.interaction_classes[o.get("interaction", args.interaction)],
        interaction_cls_first=modules.interaction_classes[o.get("interaction_first", args.interaction_first)],
        num_interactions=o.get("layers", args.num_interactions), num_elements=z, hidden_irreps=o3.Irreps(hidden).sort()[0].simplify()
        if "hidden_irreps" not in o else o3.Irreps(hidden), MLP_irreps=o3.Irreps(o.get("MLP_irreps", args.MLP_irreps)),
        atomic_energies=np.ones((n, z) if n > 1 else z), avg_num_neighbors=data["average_neighbors"], atomic_numbers=data["elements"],
        correlation=o.get("correlation", args.correlation), gate=modules.gate_dict[o.get("gate", args.gate)],
        pair_repulsion=o.get("pair_repulsion") == "zbl", distance_transform=o.get("distance_transform", "none").capitalize(),
        radial_type=o.get("radial_basis", args.radial_type), radial_MLP=o.get("radial_mlp", json.loads(args.radial_MLP)),
        apply_cutoff=o.get("apply_cutoff", args.apply_cutoff), use_reduced_cg=args.use_reduced_cg, use_so3=o.get("use_so3", args.use_so3),
        use_agnostic_product=o.get("use_agnostic_product", args.use_agnostic_product),
        use_last_readout_only=o.get("use_last_readout_only", args.use_last_readout_only), keep_last_layer_irreps=o.get("keep_last_layer_irreps", False),
        readout_cls=getattr(modules.blocks, o.get("readout", "NonLinearReadoutBlock")), heads=data["heads"],
        edge_irreps=o3.Irreps(o["edge_irreps"]) if "edge_irreps" in o else None, use_edge_irreps_first=o.get("use_edge_irreps_first", False),
        atomic_inter_scale=np.ones(n) if n > 1 else 1.0, atomic_inter_shift=np.zeros(n) if n > 1 else 0.0)


def decayed_of_mace(model):
    """Names of parameters to which mace-torch's optimiser applies weight decay."""
    from mace.tools import build_default_arg_parser
    from mace.tools.scripts_utils import get_params_options

    groups = get_params_options(build_default_arg_parser().parse_args(["--name", "x", "--weight_decay", "0.5"]), model)["params"]
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in decayed}


def make_mace(only):
    import torch

    from importers.mace import import_mace

    torch.set_default_dtype(torch.float64)
    for name, options in MACE.items():
        if only and name not in only:
            continue
        data = data_of(name)
        model = build_mace(options, data)
        parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}

        def set_parameters(values):
            with torch.no_grad():
                for key, p in parameters.items():
                    p.copy_(torch.as_tensor(values[key]).reshape(p.shape))
            return import_mace(model)[0]

        shapes = {key: tuple(p.shape) for key, p in parameters.items()}
        _, document = import_mace(model)
        save(name, options, data, document, shapes, set_parameters, decayed_of_mace(model), ("mace-torch", "e3nn", "torch"))


# ---- SevenNet --------------------------------------------------------------------------------------------------------------------------------


def config_of_sevennet(o, data):
    """The configuration of sevenn 0.13 for these options; others are its defaults."""
    import sevenn
    from sevenn import _const

    keys = {"channels": "channel", "l_max": "lmax", "l_max_edge": "lmax_edge", "layers": "num_convolution_layer", "parity": "is_parity", "r_max": "cutoff",
            "hidden_irreps": "irreps_manual", "radial_mlp": "weight_nn_hidden_neurons", "radial_activation": "act_radial",
            "self_connection": "self_connection_type", "bias": "use_bias_in_linear", "readout_mlp": "readout_fcn_hidden_neurons",
            "readout_activation": "readout_fcn_activation"}
    config = {**_const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, **_const.DEFAULT_DATA_CONFIG, "version": sevenn.__version__}
    config.update({keys[k]: v for k, v in o.items() if k in keys}, **{k: v for k, v in o.items() if k.startswith("use_modal")})
    config["radial_basis"] = {"radial_basis_name": "bessel", **({"bessel_basis_num": o["radial_basis_size"]} if "radial_basis_size" in o else {})}
    config["cutoff_function"] = {"cutoff_function_name": "poly_cut", **({"poly_cut_p_value": o["cutoff_p"]} if "cutoff_p" in o else {})}
    if o.get("cutoff_function") == "xplor":
        config["cutoff_function"] = {"cutoff_function_name": "XPLOR", "cutoff_on": o["cutoff_on"]}
    for ours, theirs in (("scalar_activation", "act_scalar"), ("gate_activation", "act_gate")):
        config[theirs] = {"e": o.get(ours, "silu"), "o": "tanh"}
    if "hidden_irreps" in o:
        config["lmax"] = 2
    config["readout_as_fcn"] = "readout_mlp" in o
    config["_normalize_sph"] = not o.get("solid_harmonics", False)
    neighbors = data["average_neighbors"]
    config["conv_denominator"] = neighbors if o.get("normalization", "neighbors") == "neighbors" else neighbors ** 0.5
    n, z = len(data["heads"]), data["elements"]
    config.update(_type_map={x: i for i, x in enumerate(z)}, _number_of_species=len(z), shift=[0.0] * len(z), scale=[1.0] * len(z))
    if n > 1:
        config.update(use_modality=True, _modal_map={h: i for i, h in enumerate(data["heads"])}, _number_of_modalities=n)
    return config


def make_sevennet(only):
    import torch
    from sevenn.model_build import build_E3_equivariant_model

    from importers.sevennet import import_sevennet

    for name, options in SEVENNET.items():
        if only and name not in only:
            continue
        data = data_of(name)
        config = config_of_sevennet(options, data)
        state = build_E3_equivariant_model(config).state_dict()
        model = build_E3_equivariant_model(config)
        shapes = {k: tuple(p.shape) for k, p in model.named_parameters() if p.requires_grad and "coeffs" not in k and "rescale" not in k}

        def load(values):
            full = {**state, **{k: torch.as_tensor(v, dtype=torch.float32).reshape(shapes[k]) for k, v in values.items()}}
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "model.pth"
                torch.save({"config": config, "model_state_dict": full, "epoch": 0, "time": "", "hash": ""}, path)
                return import_sevennet(str(path))

        _, document = load({})
        save(name, options, data, document, shapes, lambda values: load(values)[0], set(), ("sevenn", "e3nn", "torch"))


# ---- what both share -------------------------------------------------------------------------------------------------------------------------


def entries(shapes, importer):
    """How tensors have the entries of parameters: ({tensor: (scale, numbers)}, [names], ones).

    Entry k of a tensor is scale * sign(numbers[k]) * parameter |numbers[k]|, where 1, 2, ... count the entries of all parameters of `shapes`, {name: shape},
    in order; [names] has the parameter's name for each. `numbers` is None where entries combine several parameters. `importer` maps {name: values} to
    tensors; `ones` are the tensors where all parameters are 1.
    """
    def import_copies(values):  # tensors may share the memory of parameters
        return {tensor: value.copy() for tensor, value in importer(values).items()}

    ones = import_copies({key: np.ones(shape) for key, shape in shapes.items()})
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    names = np.repeat(list(shapes), sizes)
    count = np.arange(1.0, len(names) + 1)
    counted = import_copies(dict(zip(shapes, np.split(count, np.cumsum(sizes)[:-1]))))
    found = {}
    for tensor, one in ones.items():
        if tensor in FIXED:
            continue
        scale = np.abs(one).max()
        if scale == 0 and not np.abs(counted[tensor]).any():
            found[tensor] = (1.0, np.zeros(0, dtype=int))  # nothing couples: a tensor that stays zero
            continue
        numbers = counted[tensor] / scale
        whole = np.rint(numbers).astype(int)
        combined = np.ptp(np.abs(one)) > 1e-12 * scale or np.abs(numbers - whole).max() > 1e-6 or len(set(np.abs(whole).flat)) != whole.size
        found[tensor] = (float(scale), None if combined else whole)
    return found, names, ones


def measure(shapes, importer):
    """{tensor: (scale, names of the parameters that it has the entries of)}; scale None where entries combine several parameters."""
    entry, names, ones = entries(shapes, importer)
    found, seen = {}, {}
    for tensor, (scale, numbers) in entry.items():
        if numbers is None:
            found[tensor] = (None, set())
            continue
        for k in np.abs(numbers).flat:
            assert k not in seen, f"{tensor} and {seen[k]} have the same parameter"
            seen[k] = tensor
        found[tensor] = (scale, {str(names[k - 1]) for k in np.abs(numbers).flat})
    missing = {str(names[k - 1]) for k in set(range(1, len(names) + 1)) - set(seen)}
    return found, missing, ones


def save(name, options, data, document, shapes, importer, decayed, packages):
    import importlib.metadata

    found, missing, ones = measure(shapes, importer)
    combined = [tensor for tensor, (scale, _) in found.items() if scale is None]
    if len(data["heads"]) > 1:  # mace-torch masks the blocks of linear_2 that lead from one head's hidden channels to another head
        missing = {p for p in missing if not (p.startswith("readouts") and "linear_2" in p)}
    assert combined or not missing, f"{name}: parameters that are in no tensor: {missing}"
    tensors = {}
    for tensor, value in ones.items():
        record = {"shape": list(value.shape)}
        if tensor in FIXED:
            if tensor not in ("atomic_energies", "scale", "shift"):
                record["values"] = value.tolist()
        else:
            scale, parameters = found[tensor]
            decays = {p in decayed for p in parameters}
            assert len(decays) <= 1
            record.update(scale=scale, decays=decays == {True})
        tensors[tensor] = record
    assert document["elements"] == data["elements"] and document["heads"] == data["heads"]
    out = {"source": {p: importlib.metadata.version(p) for p in packages}, "options": {"family": name.split("_")[0], **options}, "data": data,
           "architecture": document["architecture"], "tensors": tensors}
    text = json.dumps(out, separators=(",", ":"))
    for key in ["options", "data", "architecture", "features_in", *tensors]:
        text = text.replace(f'"{key}":', f'\n"{key}":', 1 if key != "features_in" else -1)
    (HERE / "data" / "architectures").mkdir(exist_ok=True)
    path = HERE / "data" / "architectures" / f"{name}.json"
    path.write_text(text + "\n")
    note = f", combined: {combined}, from {sorted(missing)}" if combined else ""
    print(f"{name:22s} {path.stat().st_size:6d} bytes, {len(tensors)} tensors{note}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mace", "sevennet"])
    parser.add_argument("names", nargs="*", help="those to make; all if none")
    args = parser.parse_args()
    (make_mace if args.what == "mace" else make_sevennet)(args.names)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Importer of SevenNet checkpoints (arXiv 2402.03789; NequIP, arXiv 2101.03164). Needs sevenn."""
import importlib.metadata
import os

import numpy as np

from . import _e3nn
from ._e3nn import array
from ._modelfile import UnsupportedModel, file_sha256, restrict

# Every layer that a model may have, {t} its number. Those without weights are known by their class alone, the others are converted (None here).
_LAYERS = {
    "edge_embedding": "EdgeEmbedding", "onehot_idx_to_onehot": "OnehotEmbedding", "one_hot_modality": "OnehotEmbedding", "onehot_to_feature_x": None,
    "{t}_self_connection_intro": None, "{t}_self_interaction_1": None, "{t}_convolution": None, "{t}_self_interaction_2": None,
    "{t}_self_connection_outro": "SelfConnectionOutro", "{t}_equivariant_gate": "EquivariantGate", "readout_FCN": "FCN_e3nn",
    "reduce_input_to_hidden": None, "reduce_hidden_to_energy": None, "rescale_atomic_energy": None, "reduce_total_enegy": "AtomReduce",
    "force_output": "ForceStressOutputFromEdge",
}
_OPTIONAL = ("one_hot_modality", "{t}_self_connection_intro", "{t}_self_connection_outro", "readout_FCN", "reduce_input_to_hidden",
             "reduce_hidden_to_energy")


def import_sevennet(name_or_path, elements=None, head=None):
    """Converts a checkpoint of sevenn.

    `name_or_path`: a name that sevenn knows ("7net-0", "7net-0_22May2024", "7net-l3i5", "7net-mf-0", ...) or a checkpoint file (a pickle: import only
    files that you trust). `elements`: atomic numbers to keep; `head`: name of the modality to keep; None keeps all.
    Returns (tensors, document) for `write_model`. Raises UnsupportedModel, naming the option, for what a model file cannot express.
    """
    from sevenn.checkpoint import SevenNetCheckpoint
    from sevenn.util import pretrained_name_to_path

    path = str(name_or_path) if os.path.isfile(name_or_path) else pretrained_name_to_path(str(name_or_path))
    checkpoint = SevenNetCheckpoint(path)
    config = checkpoint.config
    model = checkpoint.build_model()  # plain e3nn layers, whatever accelerator the checkpoint was trained with

    licence = (importlib.metadata.metadata("sevenn").get("License") or "licence in its package").split("\n")[0]
    provenance = {"package": "sevenn", "name": str(name_or_path) if not os.path.isfile(name_or_path) else os.path.basename(path),
                  "file": os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path)), "file_sha256": file_sha256(path),
                  "checkpoint version": str(config.get("version")), "weights": "torch.float32",
                  "licence": "not stated in the checkpoint: that of its publisher applies (sevenn, which ships some checkpoints, is under the "
                             f"{licence})"}
    for package in ("sevenn", "e3nn", "torch"):
        provenance[package + " version"] = importlib.metadata.version(package)

    modules = model._modules
    _check_layers(modules, config["num_convolution_layer"])
    numbers = [z for z, _ in sorted(model.type_map.items(), key=lambda item: item[1])]
    modal = config.get("use_modality", False)
    heads = [name for name, _ in sorted(model.modal_map.items(), key=lambda item: item[1])] if modal else ["Default"]
    tensors = {}
    architecture = {"r_max": float(config["cutoff"])}
    architecture.update(_edge_embedding(modules["edge_embedding"], architecture["r_max"], tensors))

    matrix, bias = _linear(modules, "onehot_to_feature_x", len(heads))
    tensors["embedding"] = matrix["0e"] if bias is None else (matrix["0e"][None] + bias[:, None, :])
    if len(heads) == 1 and tensors["embedding"].ndim == 3:
        tensors["embedding"] = tensors["embedding"][0]
    architecture["layers"] = [_layer(t, modules, len(heads), tensors) for t in range(config["num_convolution_layer"])]
    for before, after in zip(architecture["layers"], architecture["layers"][1:]):
        if before["features_out"] != after["features_in"]:
            raise UnsupportedModel(f"irreps_manual: a gate gives {before['features_out']}, the next layer takes {after['features_in']}; "
                                   "expected scalars first and each irrep once")
    architecture["layers"][-1]["readout"] = _readout(modules, len(architecture["layers"]) - 1, len(heads), tensors)
    _energies(modules["rescale_atomic_energy"], numbers, heads, tensors)
    document = {"architecture": architecture, "elements": numbers, "cutoff": architecture["r_max"],
                "units": {"energy": "eV", "length": "angstrom"}, "heads": heads, "provenance": provenance}
    return restrict(tensors, document, elements, head)


def _check_layers(modules, number):
    """Refuses a model with a layer that is not known: what is not converted would be left out. `number`: of convolutions."""
    known = {role.format(t=t): role for role in _LAYERS for t in range(number if "{t}" in role else 1)}
    for name, module in modules.items():
        if name not in known:
            raise UnsupportedModel(f"the model has a layer {name}, a {type(module).__name__}: it is not supported")
        expected = _LAYERS[known[name]]
        if expected is not None:
            _e3nn.check_class(module, (expected,), name)
    for name, role in known.items():
        if name not in modules and role not in _OPTIONAL:
            raise UnsupportedModel(f"the model has no layer {name}: expected {number} convolutions, each with its self-interactions and gate")
    for t in range(number):
        if (f"{t}_self_connection_intro" in modules) != (f"{t}_self_connection_outro" in modules):
            raise UnsupportedModel(f"layer {t}: self_connection needs both its intro and its outro")
    if float(getattr(modules["reduce_total_enegy"], "constant", 1.0)) != 1.0:
        raise UnsupportedModel(f"reduce_total_enegy.constant is {modules['reduce_total_enegy'].constant}: expected 1, a sum of atomic energies")


def _edge_embedding(block, r_max, tensors):
    basis, cutoff, harmonics = block.basis_function, block.cutoff_function, block.spherical
    _e3nn.check_class(basis, ("BesselBasis",), "radial_basis")
    tensors["radial_basis.frequencies"] = array(basis.coeffs)
    if _e3nn.check_class(cutoff, ("PolynomialCutoff", "XPLORCutoff"), "cutoff_function") == "PolynomialCutoff":
        if cutoff.p != int(cutoff.p):
            raise UnsupportedModel(f"poly_cut_p_value = {cutoff.p}: expected an integer")
        end, function = float(cutoff.cutoff_length), {"type": "polynomial", "p": int(cutoff.p)}
    else:
        end, function = float(cutoff.r_cut), {"type": "xplor", "r_on": float(cutoff.r_on)}
    if end != r_max:
        raise UnsupportedModel(f"the cutoff function ends at {end}: expected the cutoff, {r_max}")
    if harmonics.sph.normalization != "component":
        raise UnsupportedModel(f"edge harmonics have normalization {harmonics.sph.normalization}: expected component")
    if harmonics.lmax > 3:
        raise UnsupportedModel(f"lmax_edge = {harmonics.lmax}: degrees up to 3 are supported")
    out = {"edge_harmonics": _e3nn.harmonics_by_degree(harmonics.irreps_out), "radial_basis": {"type": "bessel", "prefactor": float(basis.prefactor)},
           "cutoff_function": function, "cutoff_applies_to": "basis", "distance_transform": None, "pair_repulsion": None}
    if not harmonics.sph.normalize:
        out["solid_harmonics"] = True
    return out


def _linear(modules, name, heads):
    """Matrices of an IrrepsLinear, and its bias [heads, out of 0e] (or None): its own one plus the rows of the modality's one-hot input."""
    block = modules[name]
    _e3nn.check_class(block, ("IrrepsLinear",), name)
    matrices, bias = _e3nn.linear(block.linear, name)
    if block.num_modalities > 1:
        rows = matrices["0e"][-heads:]  # the one-hot modality is appended to the scalars
        matrices["0e"] = matrices["0e"][:-heads]
        return matrices, rows + (0.0 if bias is None else bias)
    return matrices, None if bias is None else np.tile(bias, (heads, 1))


def _layer(t, modules, heads, tensors):
    """Description of layer t, without readout; its tensors go to `tensors`."""
    conv = modules[f"{t}_convolution"]
    _e3nn.check_class(conv, ("IrrepsConvolution",), f"{t}_convolution")
    paths, muls, signs = _e3nn.convolution_paths(conv.convolution, f"{t}_convolution")
    mlp, act = _e3nn.fully_connected(conv.weight_nn, f"{t}_convolution.weight_nn")
    mlp[-1] = mlp[-1] * np.repeat(signs, muls)  # sevenn's edges point from receiver to sender, as in the model file: no (-1)^l

    up, up_bias = _linear(modules, f"{t}_self_interaction_1", heads)
    linear, linear_bias = _linear(modules, f"{t}_self_interaction_2", heads)
    linear = {ir: m / float(conv.denominator) for ir, m in linear.items()}
    for n, matrix in enumerate(mlp):
        tensors[f"layers.{t}.radial_mlp.{n}"] = matrix
    for name, matrices, bias in (("up", up, up_bias), ("linear", linear, linear_bias)):
        tensors.update({f"layers.{t}.{name}.{ir}": m for ir, m in matrices.items()})
        if bias is not None:
            tensors[f"layers.{t}.{name}.bias"] = bias

    intro = modules.get(f"{t}_self_connection_intro")
    if intro is not None:
        if _e3nn.check_class(intro, ("SelfConnectionIntro", "SelfConnectionLinearIntro"), f"{t}_self_connection_intro") == "SelfConnectionIntro":
            skip = _e3nn.scalar_tensor_product(intro.fc_tensor_product, f"{t}_self_connection_intro")
        else:
            skip, bias = _e3nn.linear(intro.linear, f"{t}_self_connection_intro")
            if bias is not None:
                raise UnsupportedModel(f"{t}_self_connection_intro has a bias: expected none")
            skip = {ir: m[None] for ir, m in skip.items()}
        tensors.update({f"layers.{t}.skip.{ir}": m for ir, m in skip.items()})

    gate = modules[f"{t}_equivariant_gate"].gate
    message = gate.irreps_scalars + gate.irreps_gates + gate.irreps_gated
    features_in = conv.convolution.irreps_in1
    unreached = [str(ir) for _, ir in message if str(ir) not in linear]
    if unreached:
        raise UnsupportedModel(f"layer {t}: no path leads to {unreached[0]} of the gate's input {message}")
    return {"features_in": str(features_in), "irreps_conv": str(features_in), "irreps_message": str(message), "features_out": str(gate.irreps_out),
            "paths": paths, "radial_mlp": {"activation": act, "layers": len(mlp), "layer_norm": False}, "normalization": "constant",
            "normalization_constant": float(conv.denominator), "skip": "none" if intro is None else "features", "update": _gate(gate, t), "readout": None}


def _gate(gate, t):
    """The update of a Gate: activations normalised by e3nn, so each has a factor."""
    out = {"type": "gate", "scalar_activation": {}, "scalar_factor": {}}
    for (_, ir), act in zip(gate.act_scalars.irreps_in, gate.act_scalars.acts):
        out["scalar_activation"][str(ir)], out["scalar_factor"][str(ir)] = _e3nn.activation(act, f"{t}_equivariant_gate")
        if str(ir) == "0o" and out["scalar_activation"]["0o"] != "tanh":
            raise UnsupportedModel(f"{t}_equivariant_gate: act_scalar for odd scalars is {out['scalar_activation']['0o']}, expected tanh")
    gates = {(str(ir), *_e3nn.activation(act, f"{t}_equivariant_gate")) for (_, ir), act in zip(gate.act_gates.irreps_in, gate.act_gates.acts)}
    if len(gates) > 1:
        raise UnsupportedModel(f"{t}_equivariant_gate has gates {sorted(gates)}: expected one kind")
    if gates:
        out["gate_irrep"], out["gate_activation"], out["gate_factor"] = gates.pop()
    return out


def _readout(modules, t, heads, tensors):
    """The readout of the last layer, t. Two linear maps without an activation between them (reduce_*) become one."""
    if "readout_FCN" in modules:
        matrices, act = _e3nn.fully_connected(modules["readout_FCN"].fcn, "readout_FCN")
        for n, matrix in enumerate(matrices):
            tensors[f"layers.{t}.readout.{n}"] = np.tile(matrix, (heads, 1, 1))
        return {"layers": len(matrices), "activation": act}
    first, first_bias = _linear(modules, "reduce_input_to_hidden", heads)
    last, last_bias = _linear(modules, "reduce_hidden_to_energy", heads)
    tensors[f"layers.{t}.readout.0"] = np.tile(first["0e"] @ last["0e"], (heads, 1, 1))
    if first_bias is not None or last_bias is not None:
        bias = np.zeros((heads, 1))
        if first_bias is not None:
            bias += first_bias @ last["0e"]
        if last_bias is not None:
            bias += last_bias
        tensors[f"layers.{t}.readout.0.bias"] = bias
    return {"layers": 1, "activation": "silu"}


def _energies(block, numbers, heads, tensors):
    """scale and shift, [heads, elements]; sevenn's shift includes the atomic energies."""
    kind = _e3nn.check_class(block, ("Rescale", "SpeciesWiseRescale", "ModalWiseRescale"), "rescale_atomic_energy")
    shape = (len(heads), len(numbers))
    for name in ("scale", "shift"):
        value = array(getattr(block, name))
        if kind == "ModalWiseRescale" and getattr(block, f"use_modal_wise_{name}"):
            expected = shape
        else:
            expected = (1,) if kind == "Rescale" else (len(numbers),)
        if value.shape != expected:
            raise UnsupportedModel(f"rescale_atomic_energy.{name} has shape {value.shape}: expected {expected}")
        tensors[name] = np.ascontiguousarray(np.broadcast_to(value, shape))
    tensors["atomic_energies"] = np.zeros(shape)

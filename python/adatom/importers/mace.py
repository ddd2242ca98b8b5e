# SPDX-License-Identifier: MIT
"""Importer of mace-torch models (MACE and ScaleShiftMACE; arXiv 2206.07697). Needs mace-torch."""
import importlib.metadata
import itertools

import numpy as np

from . import _e3nn
from ._coupling import contraction_basis
from ._e3nn import array
from ._modelfile import UnsupportedModel, file_sha256, restrict

# Interaction blocks: where the element-dependent skip connection acts, and how messages are normalised.
_INTERACTIONS = {
    "RealAgnosticInteractionBlock": ("message", "constant"),
    "RealAgnosticResidualInteractionBlock": ("features", "constant"),
    "RealAgnosticDensityInteractionBlock": ("message", "density"),
    "RealAgnosticDensityResidualInteractionBlock": ("features", "density"),
}


def import_mace(path_or_model, elements=None, head=None):
    """Converts a model of mace-torch.

    `path_or_model`: a file saved by mace-torch (a pickled module: import only files that you trust) or the module itself.
    `elements`: atomic numbers to keep; `head`: name of the head to keep; None keeps all.
    Returns (tensors, document) for `write_model`. Raises UnsupportedModel, naming the option, for what a model file cannot express.
    """
    provenance = {"package": "mace-torch", "licence": "not stated in the source file: that of the model's publisher applies"}
    for package in ("mace-torch", "e3nn", "torch"):
        provenance[package + " version"] = importlib.metadata.version(package)
    model = path_or_model
    if not hasattr(model, "parameters"):
        import torch

        import mace  # noqa: F401  (defines the pickled classes)

        provenance.update(file=str(path_or_model).replace("\\", "/").rsplit("/", 1)[-1], file_sha256=file_sha256(path_or_model))
        model = torch.load(path_or_model, map_location="cpu", weights_only=False)
        if not hasattr(model, "parameters"):
            raise UnsupportedModel(f"{path_or_model} holds a {type(model).__name__}: expected a whole model (a `.model` file), not a checkpoint")
    provenance["weights"] = str(next(model.parameters()).dtype)
    _refuse(model)

    numbers = [int(z) for z in model.atomic_numbers]
    heads = list(getattr(model, "heads", None) or ["Default"])
    tensors = {}
    architecture = {"r_max": float(model.r_max), "edge_harmonics": _e3nn.harmonics_by_degree(model.spherical_harmonics.irreps_out)}
    architecture.update(_radial_embedding(model, numbers, tensors))
    matrices, _ = _e3nn.linear(model.node_embedding.linear, "node_embedding.linear")
    tensors["embedding"] = matrices["0e"]
    _energies(model, numbers, heads, tensors)

    readouts = list(model.readouts)
    if len(readouts) == 1:  # mace-torch applies a single readout to the last layer
        readouts = [None] * (len(model.interactions) - 1) + readouts
    readouts += [None] * (len(model.interactions) - len(readouts))
    architecture["layers"] = [_layer(t, *blocks, heads, tensors) for t, blocks in enumerate(zip(model.interactions, model.products, readouts))]
    document = {"architecture": architecture, "elements": numbers, "cutoff": float(model.r_max), "units": {"energy": "eV", "length": "angstrom"},
                "heads": heads, "provenance": provenance}
    return restrict(tensors, document, elements, head)


def _refuse(model):
    _e3nn.check_class(model, ("MACE", "ScaleShiftMACE"), "the model")
    for name in ("joint_embedding", "embedding_specs", "embedding_readout"):
        if getattr(model, name, None) is not None:
            raise UnsupportedModel(f"the model has {name}: embeddings of charge, spin or other inputs are not supported")
    if not getattr(model.spherical_harmonics, "normalize", True) or model.spherical_harmonics.normalization != "component":
        raise UnsupportedModel("spherical_harmonics: expected normalize=True and normalization='component'")
    if model.spherical_harmonics.irreps_out.lmax > 3:
        raise UnsupportedModel(f"max_ell = {model.spherical_harmonics.irreps_out.lmax}: degrees of the edge harmonics up to 3 are supported")
    for t, block in enumerate(model.interactions):
        what = f"interactions.{t}"
        name = type(block).__name__
        if name not in _INTERACTIONS:
            raise UnsupportedModel(f"{what} is a {name}: supported are {', '.join(_INTERACTIONS)}")
        for config in ("cueq_config", "oeq_config"):
            if getattr(getattr(block, config, None), "enabled", False):
                raise UnsupportedModel(f"{what}.{config} is enabled: convert the model to plain e3nn layers first (mace_cueq_to_e3nn)")


def _radial_embedding(model, numbers, tensors):
    """Architecture keys of RadialEmbeddingBlock and ZBLBasis; their tensors go to `tensors`."""
    block = model.radial_embedding
    basis = block.bessel_fn
    kind = _e3nn.check_class(basis, ("BesselBasis", "GaussianBasis", "ChebychevBasis"), "radial_embedding.bessel_fn")
    out = {"distance_transform": None, "pair_repulsion": None}
    if kind == "BesselBasis":
        out["radial_basis"] = {"type": "bessel", "prefactor": float(basis.prefactor)}
        tensors["radial_basis.frequencies"] = array(basis.bessel_weights)
    elif kind == "GaussianBasis":
        out["radial_basis"] = {"type": "gaussian", "coefficient": float(basis.coeff)}
        tensors["radial_basis.centers"] = array(basis.gaussian_weights)
    else:
        out["radial_basis"] = {"type": "chebyshev", "size": int(basis.num_basis)}
    _e3nn.check_class(block.cutoff_fn, ("PolynomialCutoff",), "radial_embedding.cutoff_fn")
    out["cutoff_function"] = {"type": "polynomial", "p": int(block.cutoff_fn.p)}
    if float(block.cutoff_fn.r_max) != float(model.r_max):
        raise UnsupportedModel(f"the cutoff function ends at {float(block.cutoff_fn.r_max)}: expected r_max = {float(model.r_max)}")
    out["cutoff_applies_to"] = "basis" if getattr(block, "apply_cutoff", True) else "weights"

    radii = None
    if hasattr(block, "distance_transform"):
        transform = block.distance_transform
        if _e3nn.check_class(transform, ("AgnesiTransform", "SoftTransform"), "radial_embedding.distance_transform") == "AgnesiTransform":
            out["distance_transform"] = {"type": "agnesi", **{k: float(getattr(transform, k)) for k in "qpa"}}
        else:
            out["distance_transform"] = {"type": "soft", "alpha": float(transform.alpha)}
        radii = array(transform.covalent_radii)[numbers]
    if hasattr(model, "pair_repulsion_fn"):
        zbl = model.pair_repulsion_fn
        _e3nn.check_class(zbl, ("ZBLBasis",), "pair_repulsion_fn")
        out["pair_repulsion"] = {"type": "zbl", "p": int(zbl.p), "a_exp": float(zbl.a_exp), "a_prefactor": float(zbl.a_prefactor),
                                 "c": array(zbl.c).tolist()}
        if radii is not None and not np.array_equal(radii, array(zbl.covalent_radii)[numbers]):
            raise UnsupportedModel("pair_repulsion_fn and distance_transform have different covalent radii: expected the same")
        radii = array(zbl.covalent_radii)[numbers]
    if radii is not None:
        tensors["covalent_radii"] = radii
    return out


def _energies(model, numbers, heads, tensors):
    shape = (len(heads), len(numbers))
    energies = np.atleast_2d(array(model.atomic_energies_fn.atomic_energies))
    if energies.shape != shape:
        raise UnsupportedModel(f"atomic_energies has shape {energies.shape}: expected (heads, elements) = {shape}")
    tensors["atomic_energies"] = energies
    scale, shift = 1.0, 0.0
    if hasattr(model, "scale_shift"):
        scale, shift = array(model.scale_shift.scale), array(model.scale_shift.shift)
    for name, value in (("scale", scale), ("shift", shift)):
        value = np.atleast_1d(value)
        if value.size not in (1, len(heads)):
            raise UnsupportedModel(f"scale_shift.{name} has {value.size} values: expected 1 or one for each of the heads {heads}")
        tensors[name] = np.ascontiguousarray(np.broadcast_to(value.reshape(-1, 1), shape))


def _layer(t, interaction, product, readout, heads, tensors):
    """Description of layer t; its tensors go to `tensors`."""
    what = f"interactions.{t}"
    skip, normalization = _INTERACTIONS[type(interaction).__name__]
    if skip == "features" and not product.use_sc:
        skip = "none"
    paths, muls, signs = _e3nn.convolution_paths(interaction.conv_tp, f"{what}.conv_tp")
    up, _ = _e3nn.linear(interaction.linear_up, f"{what}.linear_up")
    irreps_conv = interaction.conv_tp.irreps_in1
    absent = [str(ir) for _, ir in irreps_conv if str(ir) not in up]
    if absent:
        raise UnsupportedModel(f"{what}: edge_irreps {irreps_conv} has {absent[0]}, which the node features {interaction.linear_up.irreps_in} lack")

    mlp, act = _e3nn.fully_connected(interaction.conv_tp_weights, f"{what}.conv_tp_weights")
    # mace-torch takes the harmonics of r_i - r_j, the model file of r_j - r_i: Y_l(-r) = (-1)^l Y_l(r)
    mlp[-1] = mlp[-1] * np.repeat([s * (-1.0) ** l for s, (_, l, _) in zip(signs, paths)], muls)
    linear, _ = _e3nn.linear(interaction.linear, f"{what}.linear")
    if normalization == "constant":
        constant = {"normalization_constant": float(interaction.avg_num_neighbors)}
        linear = {ir: m / constant["normalization_constant"] for ir, m in linear.items()}
    else:
        constant = {}
        density, _ = _e3nn.fully_connected(interaction.density_fn, f"{what}.density_fn")
        if len(density) != 1:
            raise UnsupportedModel(f"{what}.density_fn has {len(density)} layers: expected one")
        tensors[f"layers.{t}.density"] = density[0]
    message = interaction.linear.irreps_out
    reached = {irrep for _, _, irrep in paths}
    if len({mul for mul, _ in message}) != 1 or any(str(ir) not in reached for _, ir in message):
        raise UnsupportedModel(f"{what}: messages {message}: expected the same number of channels for each irrep, and a path to each")

    for n, matrix in enumerate(mlp):
        tensors[f"layers.{t}.radial_mlp.{n}"] = matrix
    _store(tensors, f"layers.{t}.up", up)
    _store(tensors, f"layers.{t}.linear", linear)
    if skip != "none":
        _store(tensors, f"layers.{t}.skip", _e3nn.scalar_tensor_product(interaction.skip_tp, f"{what}.skip_tp"))
    correlation = _contraction(t, product, message, tensors)
    features_out = product.linear.irreps_out
    if features_out.lmax > 2:
        raise UnsupportedModel(f"hidden irreps {features_out}: degrees up to 2 are supported")
    return {
        "features_in": str(interaction.linear_up.irreps_in), "irreps_conv": str(irreps_conv), "irreps_message": str(message),
        "features_out": str(features_out), "paths": paths,
        "radial_mlp": {"activation": act, "layers": len(mlp), "layer_norm": False},
        "normalization": normalization, **constant, "skip": skip, "update": {"type": "contraction", "correlation": correlation},
        "readout": _readout(t, readout, heads, tensors),
    }


def _store(tensors, prefix, matrices):
    tensors.update({f"{prefix}.{ir}": m for ir, m in matrices.items()})


def _contraction(t, product, message, tensors):
    """Weights of the symmetric contraction and the linear map after it; returns the correlation order."""
    what = f"products.{t}.symmetric_contractions"
    block = product.symmetric_contractions
    _e3nn.check_class(block, ("SymmetricContraction",), what)
    if not hasattr(block, "contractions"):
        raise UnsupportedModel(f"{what} is an accelerated contraction: convert the model to e3nn first")
    irreps_in = tuple((ir.l, ir.p) for _, ir in message)
    orders = {c.correlation for c in block.contractions}
    if len(orders) != 1 or max(orders) > 3:
        raise UnsupportedModel(f"{what}: correlation {sorted(orders)}, expected one of 1, 2, 3")
    correlation = orders.pop()
    for irrep, contraction in zip(block.irreps_out, block.contractions):
        buffers = dict(contraction.named_buffers())
        for nu in range(1, correlation + 1):
            weight = array(contraction.weights_max if nu == correlation else contraction.weights[correlation - nu - 1])
            u = buffers[f"U_matrix_{nu}"]
            tensors[f"layers.{t}.contraction.{irrep.ir}.{nu}"] = _full_basis(array(u), u.element_size() == 8, weight, irreps_in,
                                                                             (irrep.ir.l, irrep.ir.p), nu, f"{what}, {irrep.ir}, order {nu}")
    matrices, _ = _e3nn.linear(product.linear, f"products.{t}.linear")
    _store(tensors, f"layers.{t}.product", matrices)
    return correlation


def _full_basis(u, is_double, weight, irreps_in, out, nu, what):
    """Weights [Z, paths, C] for the basis `contraction_basis`, given the model's own basis u, [2 l + 1] (unless l = 0) + nu * [dim] + [paths].

    The model's basis may be another one (use_reduced_cg, other signs of the 3j symbols); both are symmetric in their nu inputs up to parts that
    cancel, so that u_symmetric = basis . X has an exact solution X, found by least squares and checked.
    """
    if out[0] == 0:
        u = u[None]
    dim = u.shape[1]
    u = np.moveaxis(u, -1, 0)
    permutations = list(itertools.permutations(range(nu)))
    u = sum(u.transpose((0, 1) + tuple(2 + i for i in p)) for p in permutations) / len(permutations)
    basis = contraction_basis(irreps_in, out, nu)
    if basis.ndim != u.ndim or basis.shape[1:] != u.shape[1:]:
        raise UnsupportedModel(f"{what}: its basis has shape {u.shape[1:]}, expected {basis.shape[1:]} ({dim} message components)")
    if not basis.shape[0]:
        if np.abs(u).max() > 0:
            raise UnsupportedModel(f"{what}: expected no coupling between these irreps")
        return np.zeros((weight.shape[0], 1, weight.shape[2]))  # by convention one path, which does nothing
    # Buffers of a float32 model are rounded; the weights then belong to the exact basis that was rounded.
    tolerance = 1e-12 if is_double else 1e-6
    if u.shape == basis.shape and np.abs(u - basis).max() < tolerance:
        return weight
    a, b = basis.reshape(basis.shape[0], -1).T, u.reshape(u.shape[0], -1).T
    x = np.linalg.lstsq(a, b, rcond=1e-10)[0]
    residual = np.abs(a @ x - b).max()
    if not residual < tolerance:
        raise UnsupportedModel(f"{what}: its coupling basis is not a combination of the basis of docs/model_file.md (residual {residual:.1e})")
    return np.einsum("pq,zqc->zpc", x, weight)


def _readout(t, readout, heads, tensors):
    """Readout of layer t: every head becomes its own small network on the 0e channels."""
    if readout is None:
        return None
    what = f"readout of layer {t}"
    kind = _e3nn.check_class(readout, ("LinearReadoutBlock", "NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"), what)
    n = len(heads)

    def scalars(module, name):
        matrices, bias = _e3nn.linear(module, f"{what}.{name}")
        if "0e" not in matrices:
            raise UnsupportedModel(f"{what}.{name} maps {module.irreps_in} to {module.irreps_out}: expected even scalars, 0e, on both sides")
        return matrices["0e"], bias

    def store(layer, matrix, bias=None):
        tensors[f"layers.{t}.readout.{layer}"] = np.ascontiguousarray(matrix)
        if bias is not None:
            tensors[f"layers.{t}.readout.{layer}.bias"] = np.ascontiguousarray(bias)

    if kind == "LinearReadoutBlock":
        matrix, _ = scalars(readout.linear, "linear")
        _expect_heads(matrix, n, what)
        store(0, matrix.T[:, :, None])
        return {"layers": 1, "activation": "silu"}

    acts = list(readout.non_linearity.acts)
    if len(acts) != 1 or any(str(ir) != "0e" for _, ir in readout.hidden_irreps):
        raise UnsupportedModel(f"{what}: MLP_irreps {readout.hidden_irreps}, expected scalars of even parity in one entry")
    act, factor = _e3nn.activation(acts[0], what)
    # With several heads, head h uses block h of the hidden channels and the others are masked.
    blocks = n if n > 1 and getattr(readout, "num_heads", 1) > 1 else 1
    first, _ = scalars(readout.linear_1, "linear_1")
    last, last_bias = scalars(readout.linear_2, "linear_2")
    _expect_heads(last, n, what)
    width = first.shape[1] // blocks
    part = [slice(h * width, (h + 1) * width) if blocks > 1 else slice(None) for h in range(n)]
    layers = [(np.stack([first[:, part[h]] for h in range(n)]), None)]
    if kind == "NonLinearBiasReadoutBlock":
        mid, mid_bias = scalars(readout.linear_mid, "linear_mid")
        layers.append((factor * np.stack([mid[part[h], part[h]] for h in range(n)]), np.stack([mid_bias[part[h]] for h in range(n)])))
    layers.append((factor * np.stack([last[part[h], h:h + 1] for h in range(n)]), None if last_bias is None else last_bias.reshape(n, 1)))
    if act == "identity":  # a product of linear maps is one
        matrix, bias = layers[0]
        for m, b in layers[1:]:
            matrix = matrix @ m
            bias = None if bias is None and b is None else (0 if bias is None else np.einsum("hi,hio->ho", bias, m)) + (0 if b is None else b)
        layers, act = [(matrix, bias)], "silu"
    for i, (matrix, bias) in enumerate(layers):
        store(i, matrix, bias)
    return {"layers": len(layers), "activation": act}


def _expect_heads(matrix, heads, what):
    if matrix.shape[1] != heads:
        raise UnsupportedModel(f"{what} has {matrix.shape[1]} outputs: expected one for each of the {heads} heads")

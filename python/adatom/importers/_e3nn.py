# SPDX-License-Identifier: MIT
"""Effective weights of e3nn modules, float64. The layouts are the same in e3nn 0.4 and later.

e3nn multiplies stored weights with constants at every call; these functions return the products, one matrix per irrep as in docs/model_file.md.
"""
import re

import numpy as np

from ._coupling import wigner_3j
from ._modelfile import UnsupportedModel

# torch's name of a function -> the model file's
_ACTIVATIONS = {"silu": "silu", "tanh": "tanh", "abs": "abs", "sigmoid": "sigmoid", "relu": "relu", "shiftedsoftplus": "ssp"}


def array(tensor):
    """A torch tensor or a number as a float64 array."""
    return np.asarray(tensor.detach().cpu().double().numpy() if hasattr(tensor, "detach") else tensor, dtype=np.float64)


def check_class(module, names, what):
    """Refuses a module whose class is not one of `names`."""
    name = type(module).__name__
    if name == "RecursiveScriptModule":
        name = module.original_name
    if name not in names:
        raise UnsupportedModel(f"{what} is a {module.__class__.__module__}.{name}: expected {' or '.join(names)}. If the model was converted for an "
                               "accelerator (cuequivariance, openequivariance) or wraps its layers (LoRA), convert it back to plain e3nn layers")
    return name


def offsets(irreps):
    """For each entry of an e3nn Irreps: where its channels start among all channels of its irrep."""
    seen, out = {}, []
    for mul, ir in irreps:
        out.append(seen.get(ir, 0))
        seen[ir] = out[-1] + mul
    return out


def linear(module, what):
    """Matrices and bias of an o3.Linear: ({irrep: [in, out]}, bias [out of 0e] or None)."""
    check_class(module, ("Linear",), what)
    if "e3nn" not in type(module).__module__ or not module.internal_weights:
        raise UnsupportedModel(f"{what} is a {type(module).__module__}.Linear: expected e3nn.o3.Linear with its own weights")
    weight, bias = array(module.weight), array(module.bias)
    start_in, start_out = offsets(module.irreps_in), offsets(module.irreps_out)
    matrices, total_bias = {}, None
    at = at_bias = 0
    for ins in module.instructions:
        ir = module.irreps_out[ins.i_out].ir
        size = int(np.prod(ins.path_shape))
        if ins.i_in == -1:
            if total_bias is None:
                total_bias = np.zeros(module.irreps_out.count(ir))
            total_bias[start_out[ins.i_out]:start_out[ins.i_out] + size] += bias[at_bias:at_bias + size] * ins.path_weight
            at_bias += size
            continue
        block = weight[at:at + size].reshape(ins.path_shape) * ins.path_weight
        at += size
        matrix = matrices.setdefault(str(ir), np.zeros((module.irreps_in.count(ir), module.irreps_out.count(ir))))
        i, o = start_in[ins.i_in], start_out[ins.i_out]
        matrix[i:i + block.shape[0], o:o + block.shape[1]] += block
    if at != weight.size or at_bias != bias.size:
        raise UnsupportedModel(f"{what} has {weight.size} weights and {bias.size} biases: its instructions use {at} and {at_bias}")
    return {ir: m for ir, m in matrices.items() if m.size}, total_bias


def scalar_tensor_product(module, what):
    """Matrices of a FullyConnectedTensorProduct with one-hot elements Zx0e: {irrep: [Z, in, out]}."""
    check_class(module, ("FullyConnectedTensorProduct",), what)
    if len(module.irreps_in2) != 1 or str(module.irreps_in2[0].ir) != "0e":
        raise UnsupportedModel(f"{what} has second input {module.irreps_in2}: expected one-hot elements, Zx0e")
    elements = module.irreps_in2[0].mul
    weight = array(module.weight)
    start_in, start_out = offsets(module.irreps_in1), offsets(module.irreps_out)
    matrices, at = {}, 0
    for ins in module.instructions:
        ir = module.irreps_out[ins.i_out].ir
        block = weight[at:at + int(np.prod(ins.path_shape))].reshape(ins.path_shape)  # [in, Z, out]
        at += block.size
        # coupling with a scalar: w3j(l, 0, l) = identity / sqrt(2 l + 1)
        block = block.transpose(1, 0, 2) * (ins.path_weight / np.sqrt(ir.dim))
        total = (elements, module.irreps_in1.count(ir), module.irreps_out.count(ir))
        matrix = matrices.setdefault(str(ir), np.zeros(total))
        i, o = start_in[ins.i_in1], start_out[ins.i_out]
        matrix[:, i:i + block.shape[1], o:o + block.shape[2]] += block
    if at != weight.size:
        raise UnsupportedModel(f"{what} has {weight.size} weights: its instructions use {at}")
    return {ir: m for ir, m in matrices.items() if m.size}


def activation(module, what):
    """Name and factor of an activation that e3nn normalised (normalize2mom): phi(x) = factor * name(x). ("identity", 1) for None."""
    if module is None:
        return "identity", 1.0
    # e3nn leaves the function unscaled when its second moment is 1 within 1e-4
    factor = 1.0 if module._is_id else float(module.cst)
    name = getattr(module.f, "name", None) or getattr(module.f, "__name__", None) or type(module.f).__name__
    name = name.lower()
    if name not in _ACTIVATIONS:
        raise UnsupportedModel(f"{what} has activation {name}: supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name], factor


def fully_connected(net, what):
    """Matrices of a nn.FullyConnectedNet, [in, out] each, and the name of its activation ("silu" if it has none)."""
    check_class(net, ("FullyConnectedNet",), what)
    layers = list(net.children())
    matrices, name, factor = [], None, 1.0
    for n, layer in enumerate(layers):
        if (layer.act is None) != (n == len(layers) - 1):
            raise UnsupportedModel(f"{what}, layer {n}: expected an activation after every layer but the last")
        scale = factor / np.sqrt(float(layer.h_in) * float(layer.var_in))
        if layer.act is None:
            scale *= np.sqrt(float(layer.var_out))
        else:
            found, constant = activation(layer.act, what)
            if name not in (None, found):
                raise UnsupportedModel(f"{what} has activations {name} and {found}: expected one for all layers")
            name, factor = found, constant * np.sqrt(float(layer.var_out))
        matrices.append(array(layer.weight) * scale)
    return matrices, name or "silu"


def convolution_paths(module, what):
    """Paths of a "uvu" TensorProduct: (paths [[i, l, irrep]], multiplicities, signs).

    `signs` are those by which the module's coupling coefficients differ from the model file's; they belong into the radial weights.
    """
    check_class(module, ("TensorProduct",), what)
    stored = {re.search(r"_w3j_(\d+)_(\d+)_(\d+)$", name).groups(): array(value)
              for name, value in module.state_dict().items() if re.search(r"_w3j_\d+_\d+_\d+$", name)}
    paths, muls, signs = [], [], []
    for n, ins in enumerate(module.instructions):
        in1, in2, out = module.irreps_in1[ins.i_in1], module.irreps_in2[ins.i_in2], module.irreps_out[ins.i_out]
        if ins.connection_mode != "uvu" or in2.mul != 1 or ins.i_out != n or not ins.has_weight:
            raise UnsupportedModel(f"{what}, path {n}: expected uvu with one harmonic of each degree, its own weight and the outputs in order")
        if abs(ins.path_weight - np.sqrt(out.ir.dim)) > 1e-12:
            raise UnsupportedModel(f"{what}, path {n}: normalised by {ins.path_weight}, expected component normalisation, {np.sqrt(out.ir.dim)}")
        ls = (in1.ir.l, in2.ir.l, out.ir.l)
        sign = 1.0
        if 0 not in ls:
            mine, theirs = wigner_3j(*ls), stored.get(tuple(map(str, ls)))
            if theirs is None:
                raise UnsupportedModel(f"{what}: its coupling coefficients for degrees {ls} are not stored in the module")
            sign = np.sign((mine * theirs).sum())
            if np.abs(sign * mine - theirs).max() > 1e-6:
                raise UnsupportedModel(f"{what}: its coupling coefficients for degrees {ls} are not e3nn's Wigner 3j symbols")
        paths.append([ins.i_in1, ls[1], str(out.ir)])
        muls.append(in1.mul)
        signs.append(sign)
    return paths, muls, signs


def harmonics_by_degree(irreps):
    """["0e", "1o", ...] for the irreps of the edge harmonics: entry l has degree l. Other orders are refused."""
    names = [str(ir) for _, ir in irreps]
    if [ir.l for _, ir in irreps] != list(range(len(names))) or any(mul != 1 for mul, _ in irreps):
        raise UnsupportedModel(f"edge harmonics are {irreps}: expected one of each degree 0, 1, 2, ... in order")
    return names

# SPDX-License-Identifier: MIT
"""What the importers refuse, by name. The packages that own the models are too heavy for these tests, so small stand-ins have the attributes that
the importers read; tests/reference/check_refusals.py does the same with real models of mace-torch and sevenn.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from adatom.importers import UnsupportedModel, _e3nn, mace, restrict, sevennet, write_model


def fake(name: str, **attributes):
    """An object whose class is called `name`, which is how the importers tell layers apart."""
    return type(name, (SimpleNamespace,), {"__module__": "e3nn.fake"})(**attributes)


class Irreps(list):
    """As much of e3nn's Irreps as the importers use: [(multiplicity, irrep)], written "8x0e+4x1o"."""

    def __init__(self, text: str):
        entries = re.findall(r"(\d+)x(\d+)([eo])", text)
        super().__init__(Entry(int(mul), Irrep(int(l), 1 if p == "e" else -1)) for mul, l, p in entries)

    lmax = property(lambda self: max(ir.l for _, ir in self))

    def count(self, ir):
        return sum(mul for mul, other in self if other == ir)

    def __str__(self):
        return "+".join(f"{mul}x{ir}" for mul, ir in self)


class Irrep(NamedTuple):
    l: int  # noqa: E741
    p: int
    dim = property(lambda self: 2 * self.l + 1)

    def __str__(self):
        return f"{self.l}{'e' if self.p == 1 else 'o'}"


class Entry(tuple):
    mul, ir = property(lambda self: self[0]), property(lambda self: self[1])

    def __new__(cls, mul, ir):
        return super().__new__(cls, (mul, ir))


def refused(call, *words):
    """`call` raises UnsupportedModel with all of `words` in its message."""
    with pytest.raises(UnsupportedModel) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


# ---- layers of e3nn --------------------------------------------------------------------------------------------------------------------------


def identity_activation(name: str):
    return SimpleNamespace(_is_id=True, f=SimpleNamespace(name=name))


@pytest.mark.parametrize("name", ["elu", "gelu", "softplus", "leaky_relu"])
def test_activation(name):
    refused(lambda: _e3nn.activation(identity_activation(name), "radial"), f"radial has activation {name}", "supported are silu")


def test_layers_of_accelerators_and_fine_tuning():
    """cuequivariance, openequivariance and LoRA replace layers by classes of other names or other packages."""
    refused(lambda: _e3nn.linear(fake("LoRAO3Linear"), "linear_up"), "linear_up", "LoRAO3Linear", "expected Linear")
    elsewhere = type("Linear", (SimpleNamespace,), {"__module__": "cuequivariance_torch"})()
    refused(lambda: _e3nn.linear(elsewhere, "linear_up"), "cuequivariance_torch.Linear")
    refused(lambda: _e3nn.linear(fake("Linear", internal_weights=False), "linear_up"), "with its own weights")
    refused(lambda: _e3nn.fully_connected(fake("LoRAFCLayer"), "conv_tp_weights"), "conv_tp_weights", "LoRAFCLayer")
    refused(lambda: _e3nn.scalar_tensor_product(fake("TensorProduct"), "skip_tp"), "skip_tp", "FullyConnectedTensorProduct")
    refused(lambda: _e3nn.convolution_paths(fake("SegmentedPolynomial"), "conv_tp"), "conv_tp", "SegmentedPolynomial")


def test_self_connection_of_more_than_elements():
    product = fake("FullyConnectedTensorProduct", irreps_in2=Irreps("3x0e+1x1o"))
    refused(lambda: _e3nn.scalar_tensor_product(product, "skip_tp"), "second input", "3x0e+1x1o", "one-hot elements")


def radial_network(*activations):
    layers = [SimpleNamespace(act=a, h_in=1.0, var_in=1.0, var_out=1.0, weight=np.eye(1)) for a in activations]
    return fake("FullyConnectedNet", children=lambda: layers)


def test_radial_network():
    silu, tanh = identity_activation("silu"), identity_activation("tanh")
    refused(lambda: _e3nn.fully_connected(radial_network(silu, tanh, None), "radial"), "activations silu and tanh")
    refused(lambda: _e3nn.fully_connected(radial_network(silu, silu), "radial"), "layer 1", "every layer but the last")
    matrices, name = _e3nn.fully_connected(radial_network(tanh, tanh, None), "radial")
    assert len(matrices) == 3 and name == "tanh"


@pytest.mark.parametrize("changes, message", [
    ({"connection_mode": "uvw"}, "path 0: expected uvu"),
    ({"has_weight": False}, "path 0: expected uvu"),
    ({"i_out": 1}, "path 0: expected uvu"),
    ({"path_weight": 1.0}, "normalised by 1.0"),
])
def test_convolution_of_another_form(changes, message):
    path = {"i_in1": 0, "i_in2": 0, "i_out": 0, "connection_mode": "uvu", "has_weight": True, "path_weight": 3**0.5, **changes}
    product = fake("TensorProduct", irreps_in1=Irreps("4x1o"), irreps_in2=Irreps("1x0e"), irreps_out=Irreps("4x1o+4x1o"),
                   instructions=[SimpleNamespace(**path)], state_dict=dict)
    refused(lambda: _e3nn.convolution_paths(product, "conv_tp"), "conv_tp", message)


@pytest.mark.parametrize("irreps", ["1x0e+1x2e", "1x1o", "1x0e+2x1o", "1x1o+1x0e"])
def test_edge_harmonics_of_another_order(irreps):
    refused(lambda: _e3nn.harmonics_by_degree(Irreps(irreps)), "edge harmonics are", "one of each degree")


# ---- MACE ------------------------------------------------------------------------------------------------------------------------------------


def mace_model(name="ScaleShiftMACE", max_ell=3, **changes):
    harmonics = fake("SphericalHarmonics", normalize=True, normalization="component", irreps_out=Irreps("1x0e+1x1o+1x2e+1x3o+1x4e"[:4 + 5 * max_ell]))
    attributes = {"spherical_harmonics": harmonics, "r_max": 5.0, "interactions": [fake("RealAgnosticResidualInteractionBlock")], **changes}
    return fake(name, **attributes)


def test_supported_blocks_pass():
    for block in mace._INTERACTIONS:
        mace._refuse(mace_model(interactions=[fake(block), fake(block)]))


@pytest.mark.parametrize("name", ["AtomicDipolesMACE", "EnergyDipolesMACE", "AtomicDielectricMACE", "BOTNet", "MACELES", "MaceEdgeForcesWrapper"])
def test_mace_class(name):
    refused(lambda: mace._refuse(mace_model(name)), name, "expected MACE or ScaleShiftMACE")


@pytest.mark.parametrize("name", ["RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock",
                                  "ResidualElementDependentInteractionBlock", "AgnosticNonlinearInteractionBlock"])
def test_mace_interaction_block(name):
    blocks = [fake("RealAgnosticResidualInteractionBlock"), fake(name)]
    refused(lambda: mace._refuse(mace_model(interactions=blocks)), "interactions.1", name, "supported are RealAgnosticInteractionBlock")


@pytest.mark.parametrize("name", ["joint_embedding", "embedding_specs", "embedding_readout"])
def test_mace_embeddings_of_charge_and_spin(name):
    refused(lambda: mace._refuse(mace_model(**{name: {"total_charge": {}}})), name, "charge, spin")


@pytest.mark.parametrize("name", ["cueq_config", "oeq_config"])
def test_mace_accelerators(name):
    block = fake("RealAgnosticResidualInteractionBlock", **{name: SimpleNamespace(enabled=True)})
    refused(lambda: mace._refuse(mace_model(interactions=[block])), f"interactions.0.{name}", "convert the model")


def test_mace_harmonics():
    refused(lambda: mace._refuse(mace_model(max_ell=4)), "max_ell = 4", "up to 3")
    for normalize, normalization in ((False, "component"), (True, "norm")):
        harmonics = fake("SphericalHarmonics", normalize=normalize, normalization=normalization, irreps_out=Irreps("1x0e"))
        refused(lambda: mace._refuse(mace_model(spherical_harmonics=harmonics)), "spherical_harmonics", "normalization='component'")


def radial_embedding(basis="BesselBasis", cutoff="PolynomialCutoff", r_max=5.0, **changes):
    block = SimpleNamespace(bessel_fn=fake(basis, prefactor=0.6, bessel_weights=np.arange(1.0, 4.0)), cutoff_fn=fake(cutoff, p=5, r_max=r_max), **changes)
    return mace_model(radial_embedding=block)


def test_mace_radial_embedding():
    embed = lambda model: mace._radial_embedding(model, [0, 1], {})  # noqa: E731
    assert embed(radial_embedding())["cutoff_function"] == {"type": "polynomial", "p": 5}
    refused(lambda: embed(radial_embedding(basis="SplineBasis")), "radial_embedding.bessel_fn", "SplineBasis", "BesselBasis or GaussianBasis")
    refused(lambda: embed(radial_embedding(cutoff="CosineCutoff")), "radial_embedding.cutoff_fn", "CosineCutoff")
    refused(lambda: embed(radial_embedding(r_max=4.5)), "the cutoff function ends at 4.5", "r_max = 5.0")
    refused(lambda: embed(radial_embedding(distance_transform=fake("LogTransform"))), "distance_transform", "LogTransform")
    model = radial_embedding()
    model.pair_repulsion_fn = fake("MorseBasis")
    refused(lambda: embed(model), "pair_repulsion_fn", "MorseBasis", "ZBLBasis")
    model = radial_embedding(distance_transform=fake("SoftTransform", alpha=4.0, covalent_radii=np.array([0.7, 0.8])))
    model.pair_repulsion_fn = fake("ZBLBasis", p=5, a_exp=0.3, a_prefactor=0.45, c=np.ones(4), covalent_radii=np.array([0.7, 0.9]))
    refused(lambda: embed(model), "different covalent radii")


def test_mace_energies():
    model = fake("MACE", atomic_energies_fn=SimpleNamespace(atomic_energies=np.zeros((2, 3))))
    refused(lambda: mace._energies(model, [1, 8], ["a", "b"], {}), "atomic_energies has shape (2, 3)", "(2, 2)")
    model = fake("ScaleShiftMACE", atomic_energies_fn=SimpleNamespace(atomic_energies=np.zeros((3, 2))),
                 scale_shift=SimpleNamespace(scale=np.ones(2), shift=np.zeros(3)))
    refused(lambda: mace._energies(model, [1, 8], ["a", "b", "c"], {}), "scale_shift.scale has 2 values")


@pytest.mark.parametrize("correlations", [[4], [2, 3], [1, 4]])
def test_mace_correlation(correlations):
    contractions = [SimpleNamespace(correlation=nu) for nu in correlations]
    product = SimpleNamespace(symmetric_contractions=fake("SymmetricContraction", contractions=contractions))
    refused(lambda: mace._contraction(1, product, Irreps("8x0e+8x1o"), {}), "products.1.symmetric_contractions", f"correlation {correlations}")


def test_mace_accelerated_contraction():
    for block, word in ((fake("SymmetricContractionWrapper"), "SymmetricContractionWrapper"), (fake("SymmetricContraction"), "accelerated contraction")):
        refused(lambda: mace._contraction(0, SimpleNamespace(symmetric_contractions=block), Irreps("8x0e"), {}), "products.0", word)


@pytest.mark.parametrize("name", ["LinearDipoleReadoutBlock", "NonLinearDipoleReadoutBlock", "GeneralNonLinearBiasReadoutBlock"])
def test_mace_readout_class(name):
    refused(lambda: mace._readout(1, fake(name), ["Default"], {}), "readout of layer 1", name)


def e3nn_linear(irreps_in: str, irreps_out: str):
    """An o3.Linear between first entries of the same irrep."""
    i, o = Irreps(irreps_in), Irreps(irreps_out)
    shared = i[0].ir == o[0].ir
    instructions = [SimpleNamespace(i_in=0, i_out=0, path_shape=(i[0].mul, o[0].mul), path_weight=1.0)] if shared else []
    return fake("Linear", internal_weights=True, weight=np.ones(i[0].mul * o[0].mul if shared else 0), bias=np.zeros(0), irreps_in=i, irreps_out=o,
                instructions=instructions)


def test_mace_readout_of_something_else_than_an_energy():
    readout = fake("LinearReadoutBlock", linear=e3nn_linear("8x1o", "2x0e"))
    refused(lambda: mace._readout(0, readout, ["a", "b"], {}), "readout of layer 0.linear", "even scalars, 0e")
    readout = fake("LinearReadoutBlock", linear=e3nn_linear("8x0e", "3x0e"))
    refused(lambda: mace._readout(0, readout, ["a", "b"], {}), "3 outputs", "each of the 2 heads")
    readout = fake("NonLinearReadoutBlock", hidden_irreps=Irreps("8x0e+8x0o"), non_linearity=SimpleNamespace(acts=[None, None]))
    refused(lambda: mace._readout(0, readout, ["a"], {}), "MLP_irreps 8x0e+8x0o")
    readout = fake("NonLinearReadoutBlock", hidden_irreps=Irreps("8x0e"), non_linearity=SimpleNamespace(acts=[identity_activation("elu")]))
    refused(lambda: mace._readout(0, readout, ["a"], {}), "activation elu")


# ---- SevenNet --------------------------------------------------------------------------------------------------------------------------------


def edge_embedding(basis="BesselBasis", cutoff="PolynomialCutoff", lmax=2, normalization="component", **changes):
    function = {"cutoff_length": 5.0, "p": 6, "r_cut": 5.0, "r_on": 4.0, **changes}
    harmonics = SimpleNamespace(lmax=lmax, irreps_out=Irreps("1x0e+1x1o+1x2e+1x3o+1x4e"[:4 + 5 * lmax]),
                                sph=SimpleNamespace(normalization=normalization, normalize=True))
    return SimpleNamespace(basis_function=fake(basis, coeffs=np.ones(3), prefactor=0.4), cutoff_function=fake(cutoff, **function), spherical=harmonics)


def test_sevennet_edge_embedding():
    embed = lambda **changes: sevennet._edge_embedding(edge_embedding(**changes), 5.0, {})  # noqa: E731
    assert embed()["cutoff_function"] == {"type": "polynomial", "p": 6}
    assert embed(cutoff="XPLORCutoff")["cutoff_function"] == {"type": "xplor", "r_on": 4.0}
    refused(lambda: embed(basis="GaussianBasis"), "radial_basis", "GaussianBasis")
    refused(lambda: embed(cutoff="CosineCutoff"), "cutoff_function", "CosineCutoff")
    refused(lambda: embed(cutoff_length=4.5), "ends at 4.5", "expected the cutoff, 5.0")
    refused(lambda: embed(p=6.5), "poly_cut_p_value = 6.5", "integer")
    refused(lambda: embed(normalization="norm"), "normalization norm")
    refused(lambda: embed(lmax=4), "lmax_edge = 4", "up to 3")


def sevennet_layers(**changes):
    """The layers of a model with one convolution; None takes one away."""
    layers = {name.format(t=0): fake(kind or "Anything") for name, kind in sevennet._LAYERS.items() if name not in ("readout_FCN", "one_hot_modality")}
    layers.update(changes)
    return {name: layer for name, layer in layers.items() if layer is not None}


def test_sevennet_layers():
    """A layer that the importer does not know would otherwise just be left out."""
    check = sevennet._check_layers
    check(sevennet_layers(), 1)
    check(sevennet_layers(one_hot_modality=fake("OnehotEmbedding")), 1)
    refused(lambda: check(sevennet_layers(charge_embedding=fake("ChargeEmbedding")), 1), "layer charge_embedding", "ChargeEmbedding", "not supported")
    refused(lambda: check(sevennet_layers(**{"1_convolution": fake("IrrepsConvolution")}), 1), "layer 1_convolution")
    for name in ("0_convolution", "rescale_atomic_energy", "edge_embedding"):
        refused(lambda: check(sevennet_layers(**{name: None}), 1), f"no layer {name}")
    refused(lambda: check(sevennet_layers(), 2), "no layer 1_self_interaction_1")
    refused(lambda: check(sevennet_layers(**{"0_self_connection_outro": None}), 1), "layer 0: self_connection")
    refused(lambda: check(sevennet_layers(**{"0_equivariant_gate": fake("NormActivation")}), 1), "0_equivariant_gate", "NormActivation")
    refused(lambda: check(sevennet_layers(force_output=fake("ForceOutput")), 1), "force_output", "ForceStressOutputFromEdge")
    refused(lambda: check(sevennet_layers(reduce_total_enegy=fake("AtomReduce", constant=0.5)), 1), "reduce_total_enegy.constant is 0.5")


def test_sevennet_linear_and_convolution():
    refused(lambda: sevennet._linear({"0_self_interaction_1": fake("CueLinear")}, "0_self_interaction_1", 1), "0_self_interaction_1", "CueLinear")
    modules = {"0_convolution": fake("IrrepsScatterGatterFusedConvolution")}
    refused(lambda: sevennet._layer(0, modules, 1, {}), "0_convolution", "IrrepsScatterGatterFusedConvolution", "IrrepsConvolution")


def test_sevennet_gate():
    def gate(scalars, scalar_acts, gates="8x0e", gate_acts=("silu",)):
        activate = lambda irreps, names: SimpleNamespace(irreps_in=Irreps(irreps), acts=[identity_activation(n) for n in names])  # noqa: E731
        return SimpleNamespace(act_scalars=activate(scalars, scalar_acts), act_gates=activate(gates, gate_acts))

    assert sevennet._gate(gate("8x0e+8x0o", ["silu", "tanh"]), 0)["scalar_activation"] == {"0e": "silu", "0o": "tanh"}
    refused(lambda: sevennet._gate(gate("8x0e+8x0o", ["silu", "abs"]), 1), "1_equivariant_gate", "odd scalars is abs", "expected tanh")
    refused(lambda: sevennet._gate(gate("8x0e", ["elu"]), 1), "1_equivariant_gate has activation elu")
    refused(lambda: sevennet._gate(gate("8x0e", ["silu"], "8x0e+8x0e", ["silu", "tanh"]), 2), "2_equivariant_gate has gates", "one kind")


def test_sevennet_energies():
    refused(lambda: sevennet._energies(fake("ReferenceRescale"), [1], ["Default"], {}), "rescale_atomic_energy", "ReferenceRescale")
    block = fake("SpeciesWiseRescale", scale=np.ones(2), shift=np.zeros(3))
    refused(lambda: sevennet._energies(block, [1, 8], ["Default"], {}), "rescale_atomic_energy.shift has shape (3,)")


def test_sevennet_readout():
    modules = {"readout_FCN": SimpleNamespace(fcn=radial_network(identity_activation("elu"), None))}
    refused(lambda: sevennet._readout(modules, 2, 1, {}), "readout_FCN has activation elu")


# ---- both ------------------------------------------------------------------------------------------------------------------------------------


def test_elements_and_heads(model_file):
    from adatom.importers import read_model

    tensors, document = read_model(model_file)
    for elements, message in (([29, 92], "no element with atomic number 92"), ([29, 29], "each once"), ([], "at least one")):
        with pytest.raises(ValueError, match=message):
            restrict(tensors, document, elements)
    with pytest.raises(ValueError, match="no head 'pbe': it has"):
        restrict(tensors, document, head="pbe")


def test_weights_that_diverged(model_file, tmp_path):
    from adatom.importers import read_model

    tensors, document = read_model(model_file)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="tensor scale has values that are not finite"):
            write_model(tmp_path / "m", {**tensors, "scale": tensors["scale"] * value}, document)
    with pytest.raises(ValueError, match="type int64"):
        write_model(tmp_path / "m", {**tensors, "scale": np.ones(2, dtype=int)}, document)
    assert not (tmp_path / "m").exists()

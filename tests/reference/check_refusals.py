# SPDX-License-Identifier: MIT
"""Builds models of mace-torch or sevenn with options that a model file cannot express, and checks that the importer refuses each by name.

    python check_refusals.py mace        environment with mace-torch
    python check_refusals.py sevennet    environment with sevenn

tests/python/test_importers.py has the same with stand-ins in place of the packages; this shows that the stand-ins are like them.
"""

import sys
import tempfile
from pathlib import Path

import make_models
import numpy as np
from make_models import build_mace, build_sevennet

from importers import UnsupportedModel, read_model, write_model


def refuses(call, *words):
    """`call` raises UnsupportedModel or ValueError with all of `words` in its message."""
    try:
        call()
    except (UnsupportedModel, ValueError) as error:
        message = str(error)
        missing = [word for word in words if word not in message]
        if missing:
            raise SystemExit(f"the message lacks {missing}: {message}") from error
        print(f"refused: {message[:150]}", flush=True)
        return
    raise SystemExit(f"not refused: {words}")


def mace():
    import torch
    from mace import modules  # first, since it lets torch load the constants of e3nn 0.4
    from e3nn import o3

    from importers.mace import import_mace

    torch.set_default_dtype(torch.float64)
    silu = torch.nn.functional.silu

    def options(*words, **changes):
        refuses(lambda: import_mace(build_mace(changes, 0)), *words)

    for name in ("RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock"):
        make_models.BLOCK["other"] = name
        options("interactions.1", name, later="other")
    options("max_ell = 4", max_ell=4, correlation=1)
    options("degrees up to 2", hidden_irreps="8x0e+8x1o+8x2e+8x3o", max_ell=3, correlation=1)
    options("correlation [4]", correlation=[4, 1], L=0, max_ell=1, channels=4)

    residual = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    shape = dict(r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, interaction_cls=residual, interaction_cls_first=residual,
                 num_interactions=2, num_elements=len(make_models.ELEMENTS), hidden_irreps=o3.Irreps("4x0e+4x1o"), avg_num_neighbors=3.0,
                 atomic_numbers=make_models.ELEMENTS, correlation=2)
    dipoles = modules.AtomicDipolesMACE(**shape, MLP_irreps=o3.Irreps("4x0e+4x1o"), gate=silu, atomic_energies=None)
    refuses(lambda: import_mace(dipoles), "AtomicDipolesMACE", "expected MACE or ScaleShiftMACE")
    energies = np.zeros(len(make_models.ELEMENTS))

    def build(**changes):
        return modules.MACE(**{**shape, "MLP_irreps": o3.Irreps("4x0e"), "gate": silu, "atomic_energies": energies, **changes})

    import_mace(build())
    charge = {"total_charge": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 4}}
    refuses(lambda: import_mace(build(embedding_specs=charge)), "joint_embedding", "charge")
    refuses(lambda: import_mace(build(gate=torch.nn.functional.elu)), "activation elu")

    from mace.modules.lora import inject_lora

    model = build()
    inject_lora(model, rank=2)
    refuses(lambda: import_mace(model), "LoRA")

    model = build()
    symmetric = model.products[0].symmetric_contractions.contractions[0]
    dict(symmetric.named_buffers())["U_matrix_2"][1, 2] += 1e-3
    refuses(lambda: import_mace(model), "products.0", "coupling basis")
    model = build()
    for name, buffer in model.interactions[1].conv_tp.named_buffers():
        if "_w3j_1_1" in name:
            buffer.mul_(1.5)
    refuses(lambda: import_mace(model), "interactions.1.conv_tp", "Wigner 3j")

    model = build()
    for wrong, words in (({"elements": [29, 92]}, "92"), ({"elements": [29, 29]}, "once"), ({"head": "pbe"}, "no head 'pbe'")):
        refuses(lambda: import_mace(model, **wrong), words)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = Path(folder) / "model.pt", Path(folder) / "model.safetensors"
        torch.save({"model": model.state_dict()}, checkpoint)
        refuses(lambda: import_mace(checkpoint), "checkpoint")
        write_model(file, *import_mace(model))
        damaged = bytearray(file.read_bytes())
        damaged[-5] ^= 1
        file.write_bytes(damaged)
        refuses(lambda: read_model(file), "damaged")
    with torch.no_grad():
        model.node_embedding.linear.weight[0] = float("nan")
    refuses(lambda: write_model(file, *import_mace(model)), "embedding", "not finite")


def sevennet():
    import torch

    from importers.sevennet import import_sevennet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"

        def options(*words, **changes):
            build_sevennet({"channel": 4, **changes}, 0, path)
            refuses(lambda: import_sevennet(path), *words)

        build_sevennet({"channel": 4}, 0, path)
        import_sevennet(path)
        refuses(lambda: import_sevennet(path, elements=[92]), "92")
        refuses(lambda: import_sevennet(path, head="pbe"), "no head 'pbe'")
        bessel = {"cutoff_function_name": "poly_cut"}
        options("poly_cut_p_value = 5.5", cutoff_function={**bessel, "poly_cut_p_value": 5.5})
        options("lmax_edge = 4", lmax_edge=4, lmax=1)
        options("0_convolution.weight_nn", "activation elu", act_radial="elu")
        options("readout_FCN", "activation elu", readout_as_fcn=True, readout_fcn_hidden_neurons=[4], readout_fcn_activation="elu")
        options("2_equivariant_gate", "odd scalars is abs", act_scalar={"e": "silu", "o": "abs"}, lmax=1, num_convolution_layer=4,
                conv_denominator=[6.5] * 4)
        options("irreps_manual", is_parity=False, self_connection_type="linear", irreps_manual=["4x0e", "4x1e+4x0e+2x1e", "4x0e+4x1e", "4x0e"])

        import sevenn.checkpoint

        original = sevenn.checkpoint.SevenNetCheckpoint.build_model

        def changed(change, *words):
            """A model whose layers are not those that its configuration says, as another version of sevenn may build."""

            def build(self, *arguments, **keywords):
                model = original(self, *arguments, **keywords)
                change(model._modules)
                return model

            sevenn.checkpoint.SevenNetCheckpoint.build_model = build
            try:
                refuses(lambda: import_sevennet(path), *words)
            finally:
                sevenn.checkpoint.SevenNetCheckpoint.build_model = original

        build_sevennet({"channel": 4}, 0, path)
        changed(lambda layers: layers.update(charge_embedding=torch.nn.Identity()), "layer charge_embedding", "Identity")
        changed(lambda layers: layers.pop("0_self_connection_outro"), "layer 0: self_connection")
        changed(lambda layers: layers.update({"1_equivariant_gate": torch.nn.SiLU()}), "1_equivariant_gate", "SiLU")
        changed(lambda layers: layers.update({"1_convolution": torch.nn.Identity()}), "1_convolution", "Identity")
        changed(lambda layers: setattr(layers["reduce_total_enegy"], "constant", 2.0), "reduce_total_enegy.constant is 2.0")


if __name__ == "__main__":
    if sys.argv[1:] not in (["mace"], ["sevennet"]):
        raise SystemExit(__doc__)
    {"mace": mace, "sevennet": sevennet}[sys.argv[1]]()

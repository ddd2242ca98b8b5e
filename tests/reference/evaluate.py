# SPDX-License-Identifier: MIT
"""A slow, plain evaluator of model files in float64, written from docs/model_file.md alone. It shares no code with the importers or the engine.

    python evaluate.py MODEL.safetensors [--head NAME] [--structure NAME]

Needs torch, safetensors, mace-torch (for its U matrices) and e3nn 0.4 (whose signs of the Wigner 3j symbols the format uses).
"""
import argparse
import json
from pathlib import Path

import mace  # noqa: F401  (lets torch load e3nn 0.4's constants)
import numpy as np
import torch
from e3nn import o3
from mace.tools.cg import U_matrix_real
from safetensors import safe_open

from structures import neighbor_list

if o3.wigner_3j(1, 2, 2).flatten()[1] < 0:
    raise ImportError("this e3nn has other signs of the Wigner 3j symbols: install e3nn 0.4.4")

ACTIVATION = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "abs": torch.abs, "sigmoid": torch.sigmoid, "relu": torch.relu,
              "ssp": lambda x: torch.nn.functional.softplus(x) - np.log(2.0)}


def parse_irreps(text):
    """"8x0e+4x1o" -> [(8, "0e"), (4, "1o")]"""
    return [(int(part.split("x")[0]), part.split("x")[1].strip()) for part in text.split("+")] if text else []


def degree(irrep):
    return int(irrep[:-1])


class ModelFile:
    """A model file, evaluated densely. `head` may be None if the model has one."""

    def __init__(self, path, head=None):
        with safe_open(str(path), "pt") as f:
            self.tensors = {name: f.get_tensor(name).double() for name in f.keys()}
            self.document = json.loads(f.metadata()["adatom"])
        self.architecture = self.document["architecture"]
        heads = self.document["heads"]
        if head is None and len(heads) > 1:
            raise ValueError(f"{path} has heads {heads}: choose one")
        self.head = 0 if head is None else heads.index(head)
        self.used = set()

    def tensor(self, name):
        self.used.add(name)
        return self.tensors[name]

    def optional(self, name):
        return self.tensor(name) if name in self.tensors else None

    def evaluate(self, structure):
        """energy, energies [n], forces [n, 3], virial [3, 3] (W = -sum over edges of r_a dE/dr_b; stress = -W / volume), atom_virials [n, 3, 3]."""
        positions = torch.tensor(structure["positions"], dtype=torch.float64)
        cell = torch.tensor(structure["cell"], dtype=torch.float64)
        i, j, h = neighbor_list(positions.numpy(), structure["cell"], structure["pbc"], self.architecture["r_max"])
        receiver, sender = torch.as_tensor(i), torch.as_tensor(j)
        r = (positions[sender] - positions[receiver] + torch.as_tensor(h, dtype=torch.float64) @ cell).requires_grad_()
        species = torch.tensor([self.document["elements"].index(z) for z in structure["numbers"]])
        energies = self.energies(r, receiver, sender, species)
        n = len(species)
        forces, atom_virials = torch.zeros(n, 3, dtype=torch.float64), torch.zeros(n, 3, 3, dtype=torch.float64)
        virial = torch.zeros(3, 3, dtype=torch.float64)
        if len(r):
            (g,) = torch.autograd.grad(energies.sum(), r)
            forces = forces.index_add(0, receiver, g).index_add(0, sender, -g)
            edge = -r.detach()[:, :, None] * g[:, None, :]
            virial = edge.sum(0)
            atom_virials = atom_virials.index_add(0, receiver, edge / 2).index_add(0, sender, edge / 2)
        energies = energies.detach()
        return {"energy": energies.sum().item(), "energies": energies.numpy(), "forces": forces.numpy(), "virial": virial.numpy(),
                "atom_virials": atom_virials.numpy()}

    def check_all_used(self):
        """After an evaluation: a tensor that nothing used is an error."""
        unused = set(self.tensors) - self.used
        if unused:
            raise ValueError(f"tensors that nothing uses: {sorted(unused)}")

    def energies(self, r, receiver, sender, species):
        """Energies of the atoms, [n], eV, from edge vectors r [E, 3]."""
        a = self.architecture
        n = len(species)
        length = torch.linalg.norm(r, dim=1)
        y = {}
        for l, _ in enumerate(a["edge_harmonics"]):
            y[l] = o3.spherical_harmonics(l, r, True, "component")
            if a.get("solid_harmonics", False):
                y[l] = y[l] * length[:, None] ** l
        basis, cutoff = self.radial_basis(length, receiver, sender, species)

        embedding = self.tensor("embedding")
        h = {"0e": (embedding if embedding.dim() == 2 else embedding[self.head])[species][:, :, None]}
        total = torch.zeros(n, dtype=torch.float64)
        for t, layer in enumerate(a["layers"]):
            h = self.layer(t, layer, h, basis, cutoff, y, receiver, sender, species)
            if layer["readout"] is not None:
                x = h["0e"][:, :, 0]
                for k in range(layer["readout"]["layers"]):
                    if k:
                        x = ACTIVATION[layer["readout"]["activation"]](x)
                    x = x @ self.tensor(f"layers.{t}.readout.{k}")[self.head]
                    bias = self.optional(f"layers.{t}.readout.{k}.bias")
                    x = x if bias is None else x + bias[self.head]
                total = total + x[:, 0]
        if a["pair_repulsion"] is not None:
            total = total + self.zbl(length, receiver, sender, species)
        of = [self.tensor(name)[self.head][species] for name in ("atomic_energies", "shift", "scale")]
        return of[0] + of[1] + of[2] * total

    @staticmethod
    def polynomial(x, p):
        f = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
        return torch.where(x < 1, f, torch.zeros_like(f))

    def radial_basis(self, r, receiver, sender, species):
        """Basis values [E, n], with the cutoff function where it applies to them, and the factor of the radial MLP's output [E]."""
        a = self.architecture
        c, r_max = a["cutoff_function"], a["r_max"]
        if c["type"] == "polynomial":
            f = self.polynomial(r / r_max, c["p"])
        elif c["type"] == "xplor":
            on = c["r_on"]
            f = torch.where(r < on, torch.ones_like(r), (r_max**2 - r**2) ** 2 * (r_max**2 + 2 * r**2 - 3 * on**2) / (r_max**2 - on**2) ** 3)
        else:
            raise ValueError(f"cutoff_function {c}")
        x, d = r, a["distance_transform"]
        if d is not None:
            radii = self.tensor("covalent_radii")
            s = radii[species[receiver]] + radii[species[sender]]
            if d["type"] == "agnesi":
                u = r / (s / 2)
                x = 1 / (1 + d["a"] * u ** d["q"] / (1 + u ** (d["q"] - d["p"])))
            elif d["type"] == "soft":
                p0, p1 = 0.75 * s, 4 / 3 * s
                x = p0 + (r - p0) * 0.5 * (1 + torch.tanh(d["alpha"] * (r - (p0 + p1) / 2) / (p1 - p0)))
            else:
                raise ValueError(f"distance_transform {d}")
        x, b = x[:, None], a["radial_basis"]
        if b["type"] == "bessel":
            basis = b["prefactor"] * torch.sin(self.tensor("radial_basis.frequencies") * x) / x
        elif b["type"] == "gaussian":
            basis = torch.exp(b["coefficient"] * (x - self.tensor("radial_basis.centers")) ** 2)
        elif b["type"] == "chebyshev":
            polynomials = [torch.ones_like(x), x]
            while len(polynomials) <= b["size"]:
                polynomials.append(2 * x * polynomials[-1] - polynomials[-2])
            basis = torch.cat(polynomials[1:b["size"] + 1], dim=1)
        else:
            raise ValueError(f"radial_basis {b}")
        if a["cutoff_applies_to"] == "basis":
            return basis * f[:, None], torch.ones_like(f)
        if a["cutoff_applies_to"] == "weights":
            return basis, f
        raise ValueError(f"cutoff_applies_to {a['cutoff_applies_to']}")

    def zbl(self, r, receiver, sender, species):
        z = self.architecture["pair_repulsion"]
        number = torch.tensor(self.document["elements"], dtype=torch.float64)[species]
        radii = self.tensor("covalent_radii")[species]
        zi, zj = number[receiver], number[sender]
        x = r * (zi ** z["a_exp"] + zj ** z["a_exp"]) / (0.529 * z["a_prefactor"])
        phi = sum(c * torch.exp(-b * x) for c, b in zip(z["c"], (3.2, 0.9423, 0.4028, 0.2016)))
        e = 0.5 * 14.3996 * zi * zj / r * phi * self.polynomial(r / (radii[receiver] + radii[sender]), z["p"])
        return torch.zeros(len(species), dtype=torch.float64).index_add(0, receiver, e)

    def linear(self, prefix, x, kinds, species=None):
        """{irrep: [n, channels, 2l+1]}: one matrix per irrep, or one per irrep and element. Irreps without a matrix are left out."""
        out = {}
        for irrep in kinds:
            w = self.optional(f"{prefix}.{irrep}")
            if w is None:
                continue
            if w.dim() == 3:
                w = w[species] if w.shape[0] > 1 else w[torch.zeros_like(species)]
                out[irrep] = torch.einsum("ncm,ncd->ndm", x[irrep], w)
            else:
                out[irrep] = torch.einsum("ncm,cd->ndm", x[irrep], w)
        bias = self.optional(f"{prefix}.bias")
        if bias is not None:
            out["0e"] = out["0e"] + bias[self.head][None, :, None]
        return out

    def layer(self, t, layer, h, basis, cutoff, y, receiver, sender, species):
        n = len(species)
        kinds = lambda key: list(dict.fromkeys(ir for _, ir in parse_irreps(layer[key])))  # noqa: E731
        assert {ir: x.shape[1] for ir, x in h.items()} == _counts(layer["features_in"]), f"layer {t}: features_in"
        u = self.linear(f"layers.{t}.up", h, kinds("irreps_conv"))

        x, mlp = basis, layer["radial_mlp"]
        for k in range(mlp["layers"]):
            x = x @ self.tensor(f"layers.{t}.radial_mlp.{k}")
            bias = self.optional(f"layers.{t}.radial_mlp.{k}.bias")
            x = x if bias is None else x + bias
            if k + 1 < mlp["layers"]:
                if mlp["layer_norm"]:
                    norm = [self.tensor(f"layers.{t}.radial_mlp.{k}.norm_{name}") for name in ("weight", "bias")]
                    x = torch.nn.functional.layer_norm(x, x.shape[-1:], *norm)
                x = ACTIVATION[mlp["activation"]](x)
        radial = x * cutoff[:, None]

        entries, start, seen = parse_irreps(layer["irreps_conv"]), [], {}
        for mul, irrep in entries:
            start.append(seen.get(irrep, 0))
            seen[irrep] = start[-1] + mul
        column, blocks = 0, {}
        for i, l, irrep in layer["paths"]:
            mul, source = entries[i]
            l1, l3 = degree(source), degree(irrep)
            c = np.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l, l3, dtype=torch.float64)
            s = u[source][sender][:, start[i]:start[i] + mul]
            edge = torch.einsum("ec,eca,eb,abm->ecm", radial[:, column:column + mul], s, y[l], c)
            column += mul
            blocks.setdefault(irrep, []).append(torch.zeros(n, mul, 2 * l3 + 1, dtype=torch.float64).index_add(0, receiver, edge))
        assert column == radial.shape[1], f"layer {t}: the radial MLP has {radial.shape[1]} outputs, the paths use {column}"
        a = {irrep: torch.cat(parts, dim=1) for irrep, parts in blocks.items()}

        m = self.linear(f"layers.{t}.linear", a, kinds("irreps_message"))
        if layer["normalization"] == "density":
            d = torch.tanh((basis @ self.tensor(f"layers.{t}.density"))[:, 0] ** 2) * cutoff
            density = 1 + torch.zeros(n, dtype=torch.float64).index_add(0, receiver, d)
            m = {irrep: x / density[:, None, None] for irrep, x in m.items()}
        assert {ir: x.shape[1] for ir, x in m.items()} == _counts(layer["irreps_message"]), f"layer {t}: irreps_message"
        if layer["skip"] == "message":
            m = self.linear(f"layers.{t}.skip", m, list(m), species)
        update = layer["update"]
        b = m
        if update["type"] == "contraction":
            b = self.contraction(t, update["correlation"], m, kinds("irreps_message"), kinds("features_out"), species)
            b = self.linear(f"layers.{t}.product", b, list(b))
        if layer["skip"] == "features":
            skip = self.linear(f"layers.{t}.skip", h, list(h), species)
            b = {irrep: x + skip[irrep] if irrep in skip else x for irrep, x in b.items()}
        if update["type"] == "gate":
            b = self.gate(update, b, parse_irreps(layer["irreps_message"]), parse_irreps(layer["features_out"]))
        assert {ir: x.shape[1] for ir, x in b.items()} == _counts(layer["features_out"]), f"layer {t}: features_out"
        return b

    def contraction(self, t, correlation, m, irreps_in, irreps_out, species):
        x = torch.cat([m[irrep] for irrep in irreps_in], dim=2)  # [n, channels, components]
        out = {}
        for irrep in irreps_out:
            total = 0.0
            for nu in range(1, correlation + 1):
                u = U_matrix_real("+".join(f"1x{ir}" for ir in irreps_in), irrep, nu, dtype=torch.float64, use_cueq_cg=False)[-1]
                u = u if degree(irrep) else u[None]  # [2l+1, components, .., components, paths]
                w = self.tensor(f"layers.{t}.contraction.{irrep}.{nu}")
                assert w.shape[1] == u.shape[-1], f"layer {t}: contraction {irrep} {nu} has {w.shape[1]} paths, expected {u.shape[-1]}"
                w = w[species] if w.shape[0] > 1 else w[torch.zeros_like(species)]
                c = torch.einsum("m...ip,npc,nci->ncm...", u, w, x)
                for _ in range(nu - 1):
                    c = torch.einsum("ncm...i,nci->ncm...", c, x)
                total = total + c
            out[irrep] = total
        return out

    @staticmethod
    def gate(update, b, message, features_out):
        gated = [(mul, irrep) for mul, irrep in features_out if degree(irrep)]
        scalars = [(mul, irrep) for mul, irrep in features_out if not degree(irrep)]
        out = {}
        used = {}  # channels of each irrep read so far
        for mul, irrep in scalars:
            act = ACTIVATION[update["scalar_activation"][irrep]]
            at = used.get(irrep, 0)
            out.setdefault(irrep, []).append(update["scalar_factor"][irrep] * act(b[irrep][:, at:at + mul]))
            used[irrep] = at + mul
        if gated:
            gate_irrep, g = update["gate_irrep"], used.get(update["gate_irrep"], 0)
            values = update["gate_factor"] * ACTIVATION[update["gate_activation"]](b[gate_irrep][:, g:])
            expected = scalars + [(sum(mul for mul, _ in gated), gate_irrep)] + gated
            assert _count_list(message) == _count_list(expected), f"irreps_message {message} is not the gate's input"
            at, taken = 0, {}
            for mul, irrep in gated:
                k = taken.get(irrep, 0)
                out.setdefault(irrep, []).append(values[:, at:at + mul] * b[irrep][:, k:k + mul])
                at, taken[irrep] = at + mul, k + mul
            assert at == values.shape[1]
        return {irrep: torch.cat(parts, dim=1) for irrep, parts in out.items()}


def _count_list(entries):
    counts = {}
    for mul, irrep in entries:
        counts[irrep] = counts.get(irrep, 0) + mul
    return counts


def _counts(irreps):
    return _count_list(parse_irreps(irreps))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--head")
    parser.add_argument("--structure", help="name of a structure in data/structures.json; all by default")
    args = parser.parse_args()
    structures = json.loads((Path(__file__).parent / "data" / "structures.json").read_text())
    model = ModelFile(args.model, args.head)
    for name in [args.structure] if args.structure else structures:
        if set(structures[name]["numbers"]) <= set(model.document["elements"]):
            result = model.evaluate(structures[name])
            print(f"{name:15s} E = {result['energy']:.12f} eV, largest force {np.abs(result['forces']).max():.6f} eV/A")
    model.check_all_used()


if __name__ == "__main__":
    main()

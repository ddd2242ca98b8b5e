// SPDX-License-Identifier: MIT
// How the tensors of a model file are trained.
//
// A model file has effective weights: what mace-torch and sevenn multiply their parameters with at every call is already in the tensors. An optimiser
// such as Adam takes steps of the same size for all parameters, whatever their gradients' size, so what it sees must have the size that the parameter
// has in those packages: parameters p with tensor = scale * p, of order one when training begins. With N = average number of neighbours
// ("normalization_constant" of the layer), s(f) = the factor by which e3nn makes the second moment of an activation one, Z and H the numbers of
// elements and heads, in = rows of the matrix:
//
//   embedding                       1 / sqrt(Z)
//   up.{irrep}, product.{irrep}     1 / sqrt(in)
//   linear.{irrep}                  1 / sqrt(in) / N, without N where a density normalises
//   skip.{irrep} [n, in, out]       1 / sqrt(n in)
//   radial_mlp.{n}                  1 / sqrt(in), and s(activation) for n > 0; 1 with layer_norm
//   density                         1 / sqrt(in)
//   contraction                     1
//   readout.{n}                     1 / sqrt(in), and for n > 0 s(activation); for n > 0 and MACE 1 / sqrt(H in): all heads are one layer there
//   all biases, norms               1
//
// Signs by which conventions differ stay in the values. Two products of parameters have no parameter of their own: `readout.0` of SevenNet's two
// linear maps (reduce_input_to_hidden, reduce_hidden_to_energy) and of MACE's with gate None are trained as one matrix. Where an importer kept fewer
// elements or heads than the model was trained with, Z and H are those of the file, as in mace-torch's fine-tuning (load_foundations_elements).
#pragma once
#include <map>
#include <string>

#include "potential/model_file.hpp"

namespace adatom::training {

struct TensorRole {
  bool trainable = false;
  double scale = 1.0;   ///< tensor = scale * parameter
  bool decays = false;  ///< weight decay acts on it: the linear maps of messages, and all that follows a contraction (the parameter groups of mace-torch)
};

/// The role of each tensor of a model, by name. Atomic energies, scale, shift, covalent radii and the radial basis are not trained, nor are
/// contraction weights of orders at which nothing couples. `normalization_constant` is for layers that do not state theirs (files of importers before
/// this key existed).
///
/// Throws std::runtime_error for a tensor that docs/model_file.md does not know.
std::map<std::string, TensorRole> tensor_roles(const ModelFile& model, double normalization_constant = 1.0);

/// The factor s(f) = 1 / sqrt(<f(z)^2>) of an activation, z normal, with the value that e3nn's normalize2mom gives it; 1 for identity.
/// Throws std::runtime_error for others than silu, tanh, sigmoid, relu, abs, ssp, identity.
double activation_factor(const std::string& activation);

}  // namespace adatom::training

// SPDX-License-Identifier: MIT
#pragma once
#include "gnn/network.hpp"

namespace adatom::gnn {

// Weights that the precision of the run cannot hold would be infinite there, and all results NaN. Throw std::runtime_error that names what is too large.
void check_magnitudes(const Tensors& tensors, double largest);
/// The same for what was made of the tensors: products of matrices, tables, coefficients of contractions.
void check_magnitudes(const Network& network, double largest);

}  // namespace adatom::gnn

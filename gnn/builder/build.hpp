// SPDX-License-Identifier: MIT
#pragma once
#include "gnn/assembly.hpp"

namespace adatom::gnn {

/// Assembles a network; with `assembly` one whose weights will change, and the steps that assemble it again. Throws as build_network.
Network build(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options, Assembly* assembly);

}  // namespace adatom::gnn

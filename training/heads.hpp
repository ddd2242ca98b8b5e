// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>

#include "potential/model_file.hpp"

namespace adatom::training {

/// Adds heads to a model: NEW -> OLD, each begins as a copy of one that the model has. For fine-tuning on another level of theory beside the data of
/// the old one. Throws std::invalid_argument, with the heads there are, if OLD is none of them or NEW is one.
void add_heads(ModelFile& model, const std::map<std::string, std::string>& heads);

}  // namespace adatom::training

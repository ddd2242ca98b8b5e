// SPDX-License-Identifier: MIT
#include "training/batch.hpp"

#include <algorithm>
#include <stdexcept>

#include "adatom/elements.hpp"

namespace adatom::training {

void TrainingBatch::assign(const std::vector<const datasets::Frame*>& frames, const std::vector<int>& elements, double cutoff, int threads) {
  frames_ = frames;
  structures_.clear();
  species_.clear(), structure_.clear(), volumes_.clear();
  for (std::size_t k = 0; k < frames.size(); ++k) {
    structures_.push_back(frames[k]->structure);
    volumes_.push_back(datasets::volume(frames[k]->structure.cell));
    for (const int z : frames[k]->structure.numbers) {
      const auto found = std::find(elements.begin(), elements.end(), z);
      if (found == elements.end())
        throw std::invalid_argument("a configuration has " + element_symbol(z) + ", which the model does not know; it has " + element_names(elements));
      species_.push_back(static_cast<int>(found - elements.begin()));
      structure_.push_back(static_cast<int>(k));
    }
  }
  batch_.assign(structures_, 0, structures_.size(), cutoff, threads);
  graph_ = batch_.graph();
  graph_.species = species_.data();
  graph_.revision = ++revision_;
}

}  // namespace adatom::training

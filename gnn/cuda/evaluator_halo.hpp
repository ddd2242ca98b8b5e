// SPDX-License-Identifier: MIT
// Rows of ghosts on their way between processes. Part of evaluator.hpp.
#pragma once
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

template <class S>
void CudaEvaluator<S>::exchange(int t, Halo& halo) {
  const std::size_t size = layers_[t].spec->conv_layout.size, own = graph_.receivers * size, all = graph_.nodes * size;
  if (packs_) {
    const std::size_t shared = topology_.shared.size() * size;
    S* const ghosts = states_[t].u + own;
    stream_.each(PackRows<S>{halo_.shared, states_[t].u, moved_, static_cast<int>(size)}, shared);
    if (halo.takes_device_memory()) {
      stream_.synchronize();
      return halo.forward_packed(moved_, ghosts, size * sizeof(S));
    }
    stream_.download(host_.rows, moved_, shared * sizeof(S));
    stream_.synchronize();
    halo.forward_packed(host_.rows, host_.rows + shared, size * sizeof(S));
    return stream_.upload(ghosts, host_.rows + shared, (all - own) * sizeof(S));
  }
  stream_.each(MoveRows<S>{g_.node, states_[t].u, moved_, static_cast<int>(size), true}, own);
  stream_.download(host_.rows, moved_, own * sizeof(S));
  stream_.synchronize();
  halo.forward(host_.rows, size * sizeof(S));
  stream_.upload(states_[t].u + own, host_.rows + own, (all - own) * sizeof(S));
}

template <class S>
void CudaEvaluator<S>::exchange_reverse(int t, Halo& halo) {
  const std::size_t size = layers_[t].spec->conv_layout.size, own = graph_.receivers * size, all = graph_.nodes * size;
  if (packs_) {
    const std::size_t shared = topology_.shared.size() * size;
    if (halo.takes_device_memory()) {
      stream_.synchronize();
      halo.reverse_packed(gu_ + own, moved_, size * sizeof(S));
    } else {
      stream_.download(host_.rows + shared, gu_ + own, (all - own) * sizeof(S));
      stream_.synchronize();
      halo.reverse_packed(host_.rows + shared, host_.rows, size * sizeof(S));
      stream_.upload(moved_, host_.rows, shared * sizeof(S));
    }
    AddPackedRows<S> add{halo_.target, halo_.first, halo_.packed, moved_, gu_, static_cast<int>(size)};
    return stream_.each(add, topology_.target.size() * size);
  }
  stream_.each(MoveRows<S>{g_.node, gu_, moved_, static_cast<int>(size), true}, own);
  stream_.download(host_.rows, moved_, own * sizeof(S));
  stream_.download(host_.rows + own, gu_ + own, (all - own) * sizeof(S));
  stream_.synchronize();
  halo.reverse(host_.rows, size * sizeof(S), sizeof(T));
  stream_.upload(moved_, host_.rows, own * sizeof(S));
  stream_.each(MoveRows<S>{g_.node, moved_, gu_, static_cast<int>(size), false}, own);
}

}  // namespace adatom::gnn::cuda

// SPDX-License-Identifier: MIT
#include "gnn/builder/builder.hpp"

#include <algorithm>

namespace adatom::gnn {

namespace {

/// `map` applied to scalars of element z.
std::vector<double> apply(const LinearMap& map, const Channels& in, const std::vector<double>& x, std::size_t z, int size) {
  std::vector<double> y(size, 0.0);
  for (const LinearPart& p : map.parts) {
    if (!(p.ir == Irrep{0, 1})) continue;
    const Matrix& m = p.matrices[p.matrices.size() > 1 ? z : 0];
    const std::vector<int>& channels = in.channels({0, 1});
    for (std::size_t i = 0; i < x.size(); ++i)
      for (int o = 0; o < m.out; ++o) y[p.out + o] += x[i] * m(channels[i], o);
  }
  if (!map.bias.empty())
    for (std::size_t k = 0; k < map.bias.size(); ++k) y[map.bias_offset + k] += map.bias[k];
  return y;
}

// In the first layer all entries of irreps_conv are scalars, one block of the layout.
int entry_offset(int entry, const Channels& conv) { return conv.layout.blocks[0].offset + conv.entries[0][entry]; }
int padded_of(int entry, const Channels& conv) {
  const std::vector<int>& e = conv.entries[0];
  return (std::size_t(entry) + 1 < e.size() ? e[entry + 1] : conv.layout.blocks[0].channels) - e[entry];
}

}  // namespace

LinearPart Builder::linear_part(const Tensor& tensor, Irrep ir, const Channels& in, const Channels& out) {
  LinearPart part;
  const FeatureBlock &bi = in.block(ir), &bo = out.block(ir);
  part.ir = ir;
  part.in = bi.offset, part.in_row = bi.channels, part.out = bo.offset, part.out_row = bo.channels;
  const std::vector<int>&ci = in.channels(ir), &co = out.channels(ir);
  const bool per_element = tensor.shape.size() == 3 && tensor.shape[0] > 1;
  for (std::size_t n = 0; n < (per_element ? options_.keep.size() : 1); ++n) {
    const std::size_t from = (per_element ? options_.keep[n] : 0) * ci.size() * co.size();
    Matrix m(bi.channels, bo.channels);
    Copy copy(*this, m.weight, &m.id);
    for (std::size_t i = 0; i < ci.size(); ++i)
      for (std::size_t o = 0; o < co.size(); ++o) copy.add(std::size_t(ci[i]) * bo.channels + co[o], tensor, from + i * co.size() + o);
    part.matrices.push_back(std::move(m));
  }
  return part;
}

LinearMap Builder::linear_map(const std::string& name, const Channels& in, const Channels& out, bool per_element) {
  LinearMap map;
  for (const FeatureBlock& b : out.layout.blocks) {
    if (!in.layout.find(b.ir)) continue;
    const std::string full = name + "." + b.ir.str();
    const std::size_t rows = in.channels(b.ir).size(), columns = out.channels(b.ir).size();
    map.parts.push_back(linear_part(per_element ? weights_.get_per(full, all_, rows, columns) : weights_.get(full, {rows, columns}), b.ir, in, out));
  }
  if (const Tensor* bias = weights_.find(name + ".bias")) {
    const Irrep scalar{0, 1};
    if (!out.layout.find(scalar)) fail("tensor '" + name + ".bias' has no 0e channels to add to");
    const std::vector<int>& channels = out.channels(scalar);
    weights_.get(name + ".bias", {std::size_t(options_.heads), channels.size()});
    map.bias_offset = out.block(scalar).offset;
    map.bias.assign(out.block(scalar).channels, 0.0);
    Copy copy(*this, map.bias, &map.bias_id);
    for (std::size_t k = 0; k < channels.size(); ++k) copy.add(channels[k], *bias, options_.head * channels.size() + k);
  }
  return map;
}

LinearMap Builder::merge(const LinearMap& a, const LinearMap& b) {
  LinearMap c;
  for (const LinearPart& pb : b.parts)
    for (const LinearPart& pa : a.parts) {
      if (!(pa.ir == pb.ir)) continue;
      LinearPart p = pa;
      p.out = pb.out, p.out_row = pb.out_row;
      p.matrices.clear();
      for (std::size_t n = 0; n < std::max(pa.matrices.size(), pb.matrices.size()); ++n) {
        const Matrix &ma = pa.matrices[pa.matrices.size() > 1 ? n : 0], &mb = pb.matrices[pb.matrices.size() > 1 ? n : 0];
        Matrix m(ma.in, mb.out);
        for (int i = 0; i < ma.in; ++i)
          for (int k = 0; k < ma.out; ++k)
            for (int o = 0; o < mb.out; ++o) m(i, o) += ma(i, k) * mb(k, o);
        p.matrices.push_back(std::move(m));
      }
      c.parts.push_back(std::move(p));
    }
  if (!a.bias.empty()) fail("a bias before a per-element map of the message is not supported");
  return c;
}

void Builder::apply_to_species(LinearMap map, const Channels& in, int size, std::vector<std::vector<double>>& y, int& id) {
  for (std::size_t z = 0; z < embedding_.size(); ++z) y.push_back(apply(map, in, embedding_[z], z, size));
  if (!assembly_) return;
  auto step = std::make_unique<SpeciesStep>();
  step->map = std::move(map);
  step->channels = in.channels({0, 1});
  step->embedding = embedding_offset_;
  for (auto& row : y) step->y.push_back(row.data());
  step->size = static_cast<std::size_t>(size);
  step->id = id = new_array(y.size() * step->size);
  assembly_->species.push_back(std::move(step));
}

void Builder::build_element_linear(Layer& layer, const Channels& in, const Channels& conv, const LinearMap& linear, const std::vector<PathSpec>& specs,
                                   const std::vector<int>& path_start) {
  Matrix functions = layer.radial_matrix;  // [c][columns]
  if (network_.splines) {
    reduced_ = reduce_functions(hidden_functions(layer), layer.radial_matrix, network_.pairs(), network_.cutoff, 1e-7);
    functions = reduced_.matrix;
  }
  layer.element_functions = functions.in;
  bool per_receiver = false;
  for (const LinearPart& p : linear.parts) per_receiver |= p.matrices.size() > 1;
  const std::size_t receivers = per_receiver ? options_.keep.size() : 1;
  std::vector<std::vector<double>> u;
  for (std::size_t z = 0; z < embedding_.size(); ++z) u.push_back(apply(layer.up, in, embedding_[z], z, conv.layout.size));
  layer.up = {};
  layer.element_linear.resize(receivers);
  for (std::size_t zi = 0; zi < receivers; ++zi)
    for (std::size_t zj = 0; zj < options_.keep.size(); ++zj) {
      LinearMap map;
      for (const LinearPart& p : linear.parts) {
        const Matrix& w = p.matrices[p.matrices.size() > 1 ? zi : 0];
        // Paths of this irrep; with scalar senders l3 = l2.
        LinearPart part;
        part.ir = p.ir;
        part.in = p.ir.l * p.ir.l * functions.in, part.in_row = functions.in;
        part.out = p.out, part.out_row = p.out_row;
        Matrix g(functions.in, w.out);
        int column = 0;
        for (std::size_t q = 0; q < specs.size(); ++q) {
          const int mul = padded_of(specs[q].entry, conv);
          if (specs[q].out == p.ir && specs[q].l2 == p.ir.l) {
            const int from = entry_offset(specs[q].entry, conv);
            for (int c = 0; c < functions.in; ++c)
              for (int k = 0; k < mul; ++k) {
                const double x = functions(c, column + k) * u[zj][from + k];
                if (x == 0.0) continue;
                for (int o = 0; o < w.out; ++o) g(c, o) += x * w(path_start[q] + k, o);
              }
          }
          column += mul;
        }
        part.matrices.push_back(std::move(g));
        map.parts.push_back(std::move(part));
      }
      layer.element_linear[zi].push_back(std::move(map));
    }
}

}  // namespace adatom::gnn

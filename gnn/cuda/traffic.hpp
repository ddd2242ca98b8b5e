// SPDX-License-Identifier: MIT
#pragma once
#include "gnn/network.hpp"

namespace adatom::gnn::cuda {

/// Bytes that the kernels of one layer read and write at least: every array of nodes and edges once for each kernel that has it. Weights and tables, which stay
/// in cache, are left out. `size`: of a scalar.
inline double count_bytes(const Layer& l, double nodes, double edges, bool reverses, double size) {
  const double vector = 4 * size + sizeof(int), force = 2 * 3 * sizeof(double);  // read of an edge; read and written
  const double conv = size * l.conv_layout.size, mid = size * l.mid_layout.size, message = size * l.message_layout.size, out = size * l.out_layout.size,
               in = size * l.in_layout.size, contracted = size * l.contraction.out.size, update = size * l.update_layout.size;
  double bytes = 0.0;
  if (l.merged()) {
    bytes += edges * vector + nodes * message;
    if (reverses) bytes += edges * (vector + force) + nodes * message;
  } else {
    bytes += edges * vector + nodes * (conv + mid);  // convolution
    bytes += nodes * (mid + message);                // its linear map
    if (!l.up.empty()) bytes += nodes * (in + conv);
    if (reverses) {
      bytes += nodes * (message + mid);
      bytes += edges * (vector + force + conv) + nodes * (conv + mid);  // reverse: a row of the sender's adjoint per edge
      bytes += edges * conv + nodes * conv;                             // and their sums
      if (!l.up.empty()) bytes += nodes * (conv + 2 * in);
    }
  }
  if (!l.density.empty()) bytes += (reverses ? 2 : 1) * (edges * vector + 2 * nodes * message);
  if (l.contracts) {
    bytes += nodes * (message + 2 * contracted + out);
    if (reverses) bytes += nodes * (out + 2 * contracted + 2 * message);
  } else {
    bytes += nodes * (message + out);
    if (reverses) bytes += nodes * (2 * message + out);
  }
  if (!l.skip.empty()) bytes += (reverses ? 2 : 1) * nodes * (in + 2 * update);
  if (reverses) bytes += nodes * out;  // adjoints are cleared
  if (l.has_readout) bytes += nodes * out;
  return bytes;
}

/// Of the edges at the beginning and at the end of a step.
inline double count_edge_bytes(double nodes, double edges, bool reverses, double size) {
  double bytes = edges * (2 * sizeof(int) + 4 * size) + nodes * 12 * sizeof(double);
  if (reverses) bytes += edges * (3 * sizeof(double) + 2 * (sizeof(int) + 3 * sizeof(double) + 4 * size)) + nodes * 6 * sizeof(double);
  return bytes;
}

}  // namespace adatom::gnn::cuda

// SPDX-License-Identifier: MIT
// How far an atom's features lie from those of the training set, and what that says of the error (docs/uncertainty.md).
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "gnn/evaluator.hpp"
#include "gnn/kernels/detect.hpp"
#include "gnn/matrix.hpp"

namespace adatom::gnn {

/// For an atom of element z with scalar features x (those of all layers): y = (x - mean_z) [W_z | V]. The first `components` entries are the whitened
/// features, of mean square 1 over the training set; the others are what each member of the ensemble adds to the atom's energy, eV.
struct Detectors {
  int features = 0, components = 0, members = 0;
  std::vector<std::vector<double>> mean;   ///< [species][features]
  std::vector<Matrix> matrices;            ///< [species] [features][components + members], padded
  std::vector<int> band_ends;              ///< bands of components, each ends where the next begins; the last ends at `components`
  std::vector<double> distance_scale;      ///< [species] 99 % quantile of the distance over held-out atoms; 0: an element that was not there
  std::vector<std::vector<double>> force;  ///< [species][bands + 2]: log of the standard deviation is linear in the logs of these

  int outputs() const { return components + members; }
  double scaled(int z, double y) const { return known(z) ? y / distance_scale[z] : INFINITY; }
  double member(int z, double y) const { return known(z) ? y : INFINITY; }
  bool known(int z) const { return distance_scale[z] > 0; }

  /// Distance in units of `distance_scale`, from y.
  template <class T>
  double distance(int z, const T* y) const {
    return feature_distance(mean_square(y, 0, components), distance_scale[z]);
  }

  /// Standard deviation of a force component, eV/angstrom.
  template <class T>
  double force_std(int z, const T* y) const {
    if (!known(z)) return INFINITY;
    ForceDeviation deviation{force[z][0]};
    int begin = 0;
    for (std::size_t b = 0; b < band_ends.size(); ++b) {
      deviation.add(force[z][b + 1], mean_square(y, begin, band_ends[b]));
      begin = band_ends[b];
    }
    deviation.add(force[z].back(), mean_square(y, components, outputs()));
    return deviation.value();
  }

 private:
  template <class T>
  static double mean_square(const T* y, int begin, int end) {
    double sum = 0.0;
    for (int k = begin; k < end; ++k) sum += double(y[k]) * double(y[k]);
    return end > begin ? sum / (end - begin) : 0.0;
  }
};

/// From the tensors of a model file whose names begin with "uncertainty.". Throws std::runtime_error that says what does not fit.
Detectors build_detectors(const Tensors& tensors, int features, const NetworkOptions& options);

}  // namespace adatom::gnn

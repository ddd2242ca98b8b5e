// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

#include "adatom/structure.hpp"
#include "gnn/evaluator.hpp"

/// Atoms sorted into bins of about half the range of a neighbour search.
namespace adatom {

/// A cell in which the vectors that are not periodic (they may be zero) are replaced by unit vectors perpendicular to all others.
struct Lattice {
  /// Throws std::invalid_argument, naming the vector, for components that are not finite and for periodic vectors that are zero or dependent.
  Lattice(const Matrix3& cell, const std::array<bool, 3>& pbc);

  std::array<bool, 3> pbc;
  Matrix3 vectors;     ///< rows, angstrom
  Matrix3 reciprocal;  ///< rows; fractional coordinate s_k = reciprocal[k] . r
  Vector3 heights;     ///< distance of the two faces that vector k connects, angstrom
};

/// How the box that atoms occupy is divided into bins.
struct BinCounts {
  std::array<int, 3> bins{}, reach{};
  std::array<int, 3> images{};

  /// `extent`: of the box, in fractional coordinates. Throws std::invalid_argument for a cell so small that a receiver would have millions of images in range.
  BinCounts(const Lattice& lattice, const Vector3& extent, std::size_t atoms, double range);
};

/// The box to divide: the cell where it is periodic, else what the atoms occupy; in fractional coordinates, of which `fractional(i, k)` is one.
template <class Fractional>
void find_box(const Lattice& lattice, std::size_t atoms, Fractional fractional, Vector3& low, Vector3& extent) {
  low = {}, extent = {1, 1, 1};
  for (int k = 0; k < 3; ++k) {
    if (lattice.pbc[k] || atoms == 0) continue;
    double lowest = fractional(0, k), highest = lowest;
    for (std::size_t i = 1; i < atoms; ++i) {
      const double s = fractional(i, k);
      lowest = s < lowest ? s : lowest, highest = s > highest ? s : highest;
    }
    low[k] = lowest;
    extent[k] = highest - lowest;
  }
}

/// The grid of bins. An atom's neighbours lie at most `reach` bins away along each vector; a bin index outside 0 .. bins-1 means a periodic image.
struct CellGrid {
  /// Throws std::invalid_argument for positions that are not finite or so far away that they lost their digits, and for a cell so small that
  /// a receiver would have millions of images in range.
  CellGrid(const Lattice& lattice, const std::vector<Vector3>& positions, double range);

  std::array<int, 3> bins{}, reach{};
  std::array<int, 3> images{};            ///< largest |H_k| of an image in reach; 0 where not periodic
  std::vector<int> first;                 ///< [bins + 1], bins in row-major order: start of each bin in the arrays below
  std::vector<int> atom;                  ///< [n] atoms sorted by bin, ascending within one
  std::vector<double> x, y, z;            ///< [n] wrapped positions in the same order
  std::vector<std::array<int, 3>> bin;    ///< [n] by atom
  std::vector<Vector3> wrapped;           ///< [n] by atom: r = wrapped + S wraps
  std::vector<std::array<int, 3>> wraps;  ///< [n] by atom; 0 where not periodic

  // Images H in the box |H_k| <= images[k], numbered in lexicographic order.
  std::vector<Vector3> translations;            ///< S H, angstrom
  std::vector<std::array<int, 3>> image_cells;  ///< H
  int image(int a, int b, int c) const { return ((a + images[0]) * (2 * images[1] + 1) + b + images[1]) * (2 * images[2] + 1) + c + images[2]; }

 private:
  void wrap(const Lattice& lattice, const std::vector<Vector3>& positions, std::vector<Vector3>& fractional);
  void sort_atoms();
};

/// For evaluators that find neighbours themselves. Throws as Lattice and BinCounts; positions that are not finite are found here only in structures that are not
/// periodic throughout.
gnn::SearchBox search_box(const Structure& structure, double range);

}  // namespace adatom

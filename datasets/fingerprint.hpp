// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "datasets/frame.hpp"

/// When two frames are the same.
namespace adatom::datasets {

/// Of atoms, positions, cell and periodicity as they stand, bit by bit (but 0 and -0 are the same): equal for exact copies.
std::uint64_t structure_hash(const Structure& structure);

/// Number of values of a fingerprint: 2 neighbour densities x 5 radial functions x 3 angular momenta, mean and deviation of each over the atoms.
inline constexpr int fingerprint_size = 60;
using Fingerprint = std::array<float, fingerprint_size>;

/// A description that rotations, reflections, translations, permutations of like atoms, another choice of the cell and repetition of it leave as it
/// is.
///
/// Around atom i the neighbours j make densities  c_klm = sum_j a(Z_j) sqrt(2/r_c) sin(k pi r/r_c)/r f(r) Y_lm(r_ij/r)  with a = 1, and once more
/// with a number a(Z) that differs between elements; f goes smoothly to zero at r_c = 5 angstrom. The power spectrum p_kl = sum_m c_klm^2 (as in
/// SOAP, Bartok et al., Phys. Rev. B 87, 184115, 2013) is weighted by a number that belongs to Z_i; mean and standard deviation over the atoms are
/// the fingerprint. The deviation matters: in a perfect crystal the means change only to second order when the atoms move.
///
/// Throws std::invalid_argument for structures that have no neighbour list (two atoms on top of each other, ...). `nearest`: the shortest
/// distance, angstrom; infinite if there is none below the cutoff.
Fingerprint fingerprint(const Structure& structure, double& nearest);

/// Distance relative to the larger of the two; 0 for two atoms that have no neighbours.
double distance(const Fingerprint& a, const Fingerprint& b);

/// Pairs (i, j), i < j, of a list that are nearer than `tolerance`. Fingerprints are sorted into a grid over their three most varied
/// values, so that lists of a million do not compare all with all. Of a crowd (all the same) each is paired with the first only.
std::vector<std::pair<std::size_t, std::size_t>> near_pairs(const std::vector<Fingerprint>& list, double tolerance);

}  // namespace adatom::datasets

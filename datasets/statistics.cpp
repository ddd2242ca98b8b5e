// SPDX-License-Identifier: MIT
#include "datasets/statistics.hpp"

#include <algorithm>
#include <cmath>

#include "datasets/symmetry.hpp"
#include "datasets/units.hpp"
#include "datasets/zeros.hpp"
#include "gnn/threads.hpp"

namespace adatom::datasets {
namespace {

constexpr double least_force = 0.02;     // eV/angstrom, root mean square of a frame's atoms that are not held; below it forces may be rounded to zero
constexpr double narrow_gap = 3.0;       // angstrom, between an atom and the next image: a bond, not vacuum
constexpr double absurd_force = 1000;    // eV/angstrom: two atoms on one spot, or a slip of a digit
constexpr double large_force = 100;      // the same if the others are far smaller
constexpr double large_net_force = 1.0;  // eV/angstrom
constexpr double far_above_others = 20.0;

double norm(const Vector3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

/// 1.4826 times the median of |x - median|: the standard deviation of what is normally distributed, whatever some outliers do.
double robust_width(std::vector<double> values) {
  if (values.empty()) return 0;
  const double center = median(values);
  for (double& value : values) value = std::abs(value - center);
  return 1.4826 * median(values);
}

/// Whether the images along vectors that are not periodic would be as near as bonded atoms: along one, or two if all three or two are not periodic.
bool fills_cell(const Structure& s) {
  const int open = !s.pbc[0] + !s.pbc[1] + !s.pbc[2];
  const double v = volume(s.cell);
  if (open == 0 || !(v > 0)) return false;
  int filled = 0;
  for (int k = 0; k < 3; ++k) {
    if (s.pbc[k]) continue;
    const Vector3 &a = s.cell[(k + 1) % 3], &b = s.cell[(k + 2) % 3];
    const Vector3 normal = {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
    const double along = normal[0] * s.cell[k][0] + normal[1] * s.cell[k][1] + normal[2] * s.cell[k][2];
    std::vector<double> fractions;
    for (const Vector3& r : s.positions) {
      const double fraction = (normal[0] * r[0] + normal[1] * r[1] + normal[2] * r[2]) / along;
      fractions.push_back(fraction - std::floor(fraction));
    }
    std::sort(fractions.begin(), fractions.end());
    double gap = 1 - fractions.back() + fractions.front();
    for (std::size_t i = 1; i < fractions.size(); ++i) gap = std::max(gap, fractions[i] - fractions[i - 1]);
    filled += gap * v / norm(normal) < narrow_gap;
  }
  return filled >= std::min(open, 2);
}

}  // namespace

void Range::add(double value) {
  ++count;
  min = std::min(min, value), max = std::max(max, value);
  const double n = static_cast<double>(count), change = value - mean;
  mean += change / n;
  spread += change * (value - mean);
  square += (value * value - square) / n;
}

double Range::deviation() const { return count > 0 ? std::sqrt(spread / static_cast<double>(count)) : 0; }

double Range::rms() const { return std::sqrt(square); }

double quantile(std::vector<double>& values, double share) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double median(std::vector<double>& values) { return quantile(values, 0.5); }

Statistics::Statistics(const StatisticsOptions& options) : options_(options) {
  if (options_.symmetry_frames > 0) require_tolerance(options_.symmetry_tolerance);
  report_.near_tolerance = options.near_duplicates ? options.near_tolerance : 0.0;
}

int Statistics::add_source(const std::string& name) {
  report_.sources.push_back({name, 0});
  return static_cast<int>(report_.sources.size()) - 1;
}

void Statistics::add(const Frame& frame, const FrameReference& reference) {
  ++report_.frames;
  report_.atoms += static_cast<std::int64_t>(frame.size());
  ++report_.sources.at(static_cast<std::size_t>(reference.source)).frames;
  ++report_.config_types[frame.config_type];
  ++report_.groups[frame.group];
  const auto broken = defects(frame);
  for (const std::string& what : broken) report_.defective.push_back({reference, what});
  if (!broken.empty()) return;

  Row row;
  row.reference = reference;
  row.atoms = static_cast<std::uint32_t>(frame.size());
  row.isolated = is_isolated_atom(frame);
  row.hash = structure_hash(frame.structure);
  const auto [head, is_new_head] = head_numbers_.emplace(frame.head, static_cast<std::uint32_t>(heads_.size()));
  if (is_new_head) heads_.push_back(frame.head), pairs_.emplace_back();
  row.head = head->second;
  const auto [kind, is_new] = composition_numbers_.emplace(composition(frame.structure), static_cast<std::uint32_t>(compositions_.size()));
  if (is_new) compositions_.push_back(kind->first);
  row.composition = kind->second;

  const auto& pbc = frame.structure.pbc;
  ++report_.periodicity[pbc[0] + pbc[1] + pbc[2]];
  if (pbc[0] && pbc[1] && pbc[2]) sample_crystal(frame);
  if (fills_cell(frame.structure)) report_.filled_not_periodic.push_back(reference);
  add_labels(frame, reference, row);
  add_zeros(frame, row);
  add_pair(frame, row);
  if (options_.near_duplicates) {
    double nearest = 0;
    try {
      fingerprints_.push_back(fingerprint(frame.structure, nearest));
    } catch (const std::invalid_argument& error) {
      report_.defective.push_back({reference, error.what()});
      fingerprints_.emplace_back();
      nearest = std::numeric_limits<double>::infinity();
    }
    if (std::isfinite(nearest)) {
      if (nearest < report_.nearest_distance.min) report_.nearest_frame = reference;
      report_.nearest_distance.add(nearest);
    }
  }
  rows_.push_back(row);
}

void Statistics::add_labels(const Frame& frame, const FrameReference& reference, Row& row) {
  HeadSummary& head = report_.heads[frame.head];
  ++head.frames;
  head.atoms += row.atoms;
  head.frame_size.add(row.atoms);
  for (const auto& [z, atoms] : compositions_[row.composition]) ++head.elements[z].frames, head.elements[z].atoms += atoms;
  if (frame.energy) {
    ++head.with_energy;
    row.has_energy = true, row.energy = *frame.energy;
    head.energy_per_atom.add(*frame.energy / row.atoms);
    if (row.isolated && !is_ion(frame)) head.isolated_atoms.push_back({reference, frame.structure.numbers[0], *frame.energy});
  } else {
    report_.without_energy.push_back(reference);
    report_.isolated_without_energy += row.isolated;
  }
  if (!frame.forces.empty()) {
    ++head.with_forces;
    row.has_forces = true;
    Vector3 sum{};
    double square = 0;
    for (std::size_t i = 0; i < frame.size(); ++i) {
      Range& element = head.elements[frame.structure.numbers[i]].force;
      for (int x = 0; x < 3; ++x) {
        head.force.add(frame.forces[i][x]), element.add(frame.forces[i][x]);
        sum[x] += frame.forces[i][x];
      }
      const double force = norm(frame.forces[i]);
      row.largest_force = std::max(row.largest_force, force);
      square += force * force;
    }
    row.net_force = norm(sum);
    row.force = std::sqrt(square / (3.0 * row.atoms));
    head.largest_force.add(row.largest_force);
    head.net_force.add(row.net_force);
  } else if (!row.isolated) {
    report_.without_forces.push_back(reference);
  }
  const auto& pbc = frame.structure.pbc;
  if (frame.stress) {
    ++head.with_stress;
    const Voigt& stress = *frame.stress;
    double square = 0;
    for (const double component : stress) head.stress.add(component), square += component * component / 6;
    row.has_stress = true, row.stress = std::sqrt(square);
    row.stress_trace = stress[0] + stress[1] + stress[2], row.volume = volume(frame.structure.cell);
    if (!(pbc[0] && pbc[1] && pbc[2]) && frame.weights.stress > 0) report_.stress_not_periodic.push_back(reference);
  } else if (pbc[0] && pbc[1] && pbc[2]) {
    report_.without_stress.push_back(reference);
  }
  head.with_charges += !frame.charges.empty();
}

void Statistics::add_zeros(const Frame& frame, Row& row) {
  if (row.isolated) return;
  ZeroLabels& zeros = report_.heads[frame.head].zeros;
  const Weights& w = frame.weights;
  const auto& pbc = frame.structure.pbc;
  if (frame.energy && *frame.energy == 0 && w.config * w.energy > 0) zeros.energy.push_back(row.reference);
  if (frame.stress && row.stress == 0 && w.config * w.stress > 0 && pbc[0] && pbc[1] && pbc[2]) zeros.stress.push_back(row.reference);
  if (!row.has_forces || w.config * w.forces == 0 || fills_cell(frame.structure)) return;  // not periodic, so its symmetry is not seen
  int zeroed = 0;
  try {
    zeroed = zeroed_atoms(frame);
  } catch (const std::invalid_argument&) {  // atoms on top of each other, which the fingerprint reports
  }
  if (zeroed == 0) return;
  if (row.largest_force == 0) {
    zeros.forces.push_back(row.reference);
  } else if (row.force > least_force) {
    row.zeroed = true;
    zeros.atoms.push_back(row.reference);
    zeros.count += zeroed, zeros.of += row.atoms;
  }
}

/// Keeps a uniform sample of the crystals (reservoir sampling): each that comes replaces one of those kept with the right probability.
void Statistics::sample_crystal(const Frame& frame) {
  const auto kept = static_cast<std::uint64_t>(std::max(options_.symmetry_frames, 0));
  const auto seen = static_cast<std::uint64_t>(report_.crystals++);
  if (crystals_.size() < kept) {
    crystals_.push_back(frame.structure);
  } else if (kept > 0) {
    if (const std::uint64_t place = random_.below(seen + 1); place < kept) crystals_[place] = frame.structure;
  }
}

Report Statistics::finish() {
  fit_energies();
  find_outliers();
  find_absurd_forces();
  find_zero_energies();
  list_values();
  find_slopes();
  find_duplicates();
  if (options_.near_duplicates) find_near_duplicates();
  find_space_groups();
  for (auto& [name, head] : report_.heads) head.units = suspect_units(head);
  return std::move(report_);
}

void Statistics::fit_energies() {
  // One row for all frames of a head with the same composition.
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<double>> energies;
  for (const Row& row : rows_)
    if (row.has_energy && !row.isolated) energies[{row.head, row.composition}].push_back(row.energy);
  std::vector<AtomicEnergyFit> fits(heads_.size()), fits_per_atom(heads_.size());
  for (auto& [key, list] : energies) {
    const Composition& atoms = compositions_[key.second];
    Range range;
    for (const double energy : list) range.add(energy);
    fits[key.first].add(atoms, range.mean, range.count);
    fits_per_atom[key.first].add(atoms, range.mean * count(atoms), range.count);
    report_.heads[heads_[key.first]].compositions.push_back({atoms, range.count, median(list)});
  }
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    fits_.push_back(fits[h].solve());
    const AtomicEnergies per_atom = fits_per_atom[h].solve();
    Range residual;
    for (const Row& row : rows_)
      if (row.head == h && row.has_energy && !row.isolated) residual.add(row.energy - per_atom.energy(compositions_[row.composition]) / row.atoms);
    head.per_atom_residual = residual.deviation();
    std::map<int, double> isolated;
    for (const IsolatedAtom& atom : head.isolated_atoms) isolated.emplace(atom.element, atom.energy);
    head.atomic_energies = fits[h].solve(isolated);
  }
}

void Statistics::find_outliers() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    std::vector<Outlier> energies, forces;
    std::vector<double> net, residuals, typical_forces, typical_stresses;
    for (const Row& row : rows_) {
      if (row.head != h || row.isolated) continue;
      if (row.has_stress) typical_stresses.push_back(row.stress);
      if (row.has_forces) typical_forces.push_back(row.force);
      if (row.has_energy) energies.push_back({row.reference, (row.energy - fits_[h].energy(compositions_[row.composition])) / row.atoms});
      if (row.has_forces) forces.push_back({row.reference, row.largest_force}), net.push_back(row.net_force);
    }
    for (const Outlier& frame : energies) head.residual.add(frame.value), residuals.push_back(frame.value);
    head.residual_width = robust_width(residuals);
    if (!net.empty()) head.median_net_force = median(net), head.median_force = median(typical_forces);
    if (!typical_stresses.empty()) head.median_stress = median(typical_stresses);
    // Forces span orders of magnitude, from relaxed to hot: their logarithm is what has a width. Below 1 meV/angstrom all are as good as zero.
    const auto find = [this](std::vector<Outlier>& frames, bool logarithm, std::vector<Outlier>& found) {
      const auto scaled = [logarithm](double value) { return logarithm ? std::log(std::max(value, 1e-3)) : value; };
      std::vector<double> values;
      for (const Outlier& frame : frames) values.push_back(scaled(frame.value));
      const double center = median(values);
      for (double& value : values) value = std::abs(value - center);
      const double width = median(values);
      if (!(width > 0)) return;
      for (Outlier& frame : frames) {
        frame.z = 0.6745 * (scaled(frame.value) - center) / width;
        if (frame.z > options_.outlier_z || (!logarithm && frame.z < -options_.outlier_z)) found.push_back(frame);
      }
      std::sort(found.begin(), found.end(), [](const Outlier& a, const Outlier& b) { return std::abs(a.z) > std::abs(b.z); });
    };
    find(energies, false, head.energy_outliers);
    find(forces, true, head.force_outliers);
  }
}

/// Forces that no outlier's score is needed for; and sums of forces far above the others', of one atom with a wrong force.
void Statistics::find_absurd_forces() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    std::vector<double> largest;
    for (const Row& row : rows_)
      if (row.head == h && row.has_forces && !row.isolated) largest.push_back(row.largest_force);
    if (largest.empty()) continue;
    const double usual = median(largest), usual_net = head.median_net_force;
    for (const Row& row : rows_) {
      if (row.head != h || !row.has_forces || row.isolated) continue;
      const bool absurd = row.largest_force > absurd_force || (row.largest_force > large_force && row.largest_force > far_above_others * usual);
      const bool net =
          !row.zeroed && row.net_force > large_net_force && row.net_force > far_above_others * usual_net && row.net_force > 0.5 * row.largest_force;
      if (absurd || net) head.absurd_forces.push_back({row.reference, absurd ? row.largest_force : row.net_force, 0});
    }
    std::sort(head.absurd_forces.begin(), head.absurd_forces.end(), [](const Outlier& a, const Outlier& b) { return a.value > b.value; });
  }
}

/// Energies that count from a structure of the set have one zero among others like it; more, or one far from them, were never read.
void Statistics::find_zero_energies() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    Range others;
    for (const Row& row : rows_)
      if (row.head == h && row.has_energy && !row.isolated && row.energy != 0) others.add(row.energy);
    const bool outside = others.count > 0 && (others.min > 0 || others.max < 0);
    const double nearest = outside ? std::min(std::abs(others.min), std::abs(others.max)) : 0;
    if (head.zeros.energy.size() == 1 && nearest <= others.max - others.min) head.zeros.energy.clear();
  }
}

void Statistics::list_values() {
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  for (const Row& row : rows_) {
    const bool fitted = row.has_energy && !row.isolated;
    const double residual = fitted ? (row.energy - fits_[row.head].energy(compositions_[row.composition])) / row.atoms : none;
    report_.values.push_back({row.reference, static_cast<int>(row.atoms), residual, row.has_forces ? row.largest_force : none});
  }
}

void Statistics::find_space_groups() {
  report_.space_groups_of = static_cast<std::int64_t>(crystals_.size());
  for (const Structure& crystal : crystals_) {
    gnn::threads().heed();
    ++report_.space_groups[space_group(crystal, options_.symmetry_tolerance)];
  }
}

}  // namespace adatom::datasets

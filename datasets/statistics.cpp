// SPDX-License-Identifier: MIT
#include "datasets/statistics.hpp"

#include <algorithm>
#include <cmath>

#include "datasets/symmetry.hpp"
#include "datasets/units.hpp"

namespace adatom::datasets {
namespace {

constexpr double longest_step = 0.1;  // angstrom, of an atom between two frames whose energies and forces are compared
constexpr double least_work = 1e-3;   // eV per frame; below it energies of DFT are noise
constexpr std::size_t most_slopes = 100'000;

double norm(const Vector3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

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
  if (is_new_head) heads_.push_back(frame.head), slopes_.emplace_back();
  row.head = head->second;
  const auto [kind, is_new] = composition_numbers_.emplace(composition(frame.structure), static_cast<std::uint32_t>(compositions_.size()));
  if (is_new) compositions_.push_back(kind->first);
  row.composition = kind->second;

  const auto& pbc = frame.structure.pbc;
  ++report_.periodicity[pbc[0] + pbc[1] + pbc[2]];
  if (pbc[0] && pbc[1] && pbc[2]) sample_crystal(frame);
  add_labels(frame, reference, row);
  add_slope(frame, reference);
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
    for (std::size_t i = 0; i < frame.size(); ++i) {
      Range& element = head.elements[frame.structure.numbers[i]].force;
      for (int x = 0; x < 3; ++x) {
        head.force.add(frame.forces[i][x]), element.add(frame.forces[i][x]);
        sum[x] += frame.forces[i][x];
      }
      row.largest_force = std::max(row.largest_force, norm(frame.forces[i]));
    }
    row.net_force = norm(sum);
    head.largest_force.add(row.largest_force);
    head.net_force.add(row.net_force);
  } else if (!row.isolated) {
    report_.without_forces.push_back(reference);
  }
  const auto& pbc = frame.structure.pbc;
  if (frame.stress) {
    ++head.with_stress;
    for (const double component : *frame.stress) head.stress.add(component);
    if (!(pbc[0] && pbc[1] && pbc[2]) && frame.weights.stress > 0) report_.stress_not_periodic.push_back(reference);
  } else if (pbc[0] && pbc[1] && pbc[2]) {
    report_.without_stress.push_back(reference);
  }
  head.with_charges += !frame.charges.empty();
}

void Statistics::add_slope(const Frame& frame, const FrameReference& reference) {
  const Structure &now = frame.structure, &before = previous_.structure;
  const bool follows = reference.source == previous_reference_.source && reference.index == previous_reference_.index + 1 && frame.head == previous_.head &&
                       now.numbers == before.numbers && now.cell == before.cell;
  auto& slopes = slopes_[head_numbers_[frame.head]];
  if (follows && frame.energy && previous_.energy && !frame.forces.empty() && !previous_.forces.empty() && slopes.size() < most_slopes) {
    double work = 0, longest = 0;
    for (std::size_t i = 0; i < frame.size(); ++i) {
      Vector3 step;
      for (int x = 0; x < 3; ++x) {
        step[x] = now.positions[i][x] - before.positions[i][x];
        work -= 0.5 * (frame.forces[i][x] + previous_.forces[i][x]) * step[x];
      }
      longest = std::max(longest, norm(step));
    }
    if (longest < longest_step && std::abs(work) > least_work) slopes.push_back((*frame.energy - *previous_.energy) / work);
  }
  previous_ = frame;
  previous_reference_ = reference;
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
  std::map<std::pair<std::uint32_t, std::uint32_t>, Range> means;
  for (const Row& row : rows_)
    if (row.has_energy && !row.isolated) means[{row.head, row.composition}].add(row.energy);
  std::vector<AtomicEnergyFit> fits(heads_.size());
  for (const auto& [key, energy] : means) fits[key.first].add(compositions_[key.second], energy.mean, energy.count);
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    fits_.push_back(fits[h].solve());
    std::map<int, double> isolated;
    for (const IsolatedAtom& atom : head.isolated_atoms) isolated.emplace(atom.element, atom.energy);
    head.atomic_energies = fits[h].solve(isolated);
  }
}

void Statistics::find_outliers() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    std::vector<Outlier> energies, forces;
    std::vector<double> net;
    for (const Row& row : rows_) {
      if (row.head != h || row.isolated) continue;
      if (row.has_energy) energies.push_back({row.reference, (row.energy - fits_[h].energy(compositions_[row.composition])) / row.atoms});
      if (row.has_forces) forces.push_back({row.reference, row.largest_force}), net.push_back(row.net_force);
    }
    for (const Outlier& frame : energies) head.residual.add(frame.value);
    if (!net.empty()) head.median_net_force = median(net);
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

void Statistics::list_values() {
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  for (const Row& row : rows_) {
    const bool fitted = row.has_energy && !row.isolated;
    const double residual = fitted ? (row.energy - fits_[row.head].energy(compositions_[row.composition])) / row.atoms : none;
    report_.values.push_back({row.reference, static_cast<int>(row.atoms), residual, row.has_forces ? row.largest_force : none});
  }
}

void Statistics::find_slopes() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    auto& slopes = slopes_[h];
    if (slopes.empty()) continue;
    EnergyForceSlope& slope = report_.heads[heads_[h]].slope;
    slope.pairs = static_cast<std::int64_t>(slopes.size());
    slope.median = median(slopes), slope.q1 = quantile(slopes, 0.25), slope.q3 = quantile(slopes, 0.75);
  }
}

void Statistics::find_space_groups() {
  report_.space_groups_of = static_cast<std::int64_t>(crystals_.size());
  for (const Structure& crystal : crystals_) ++report_.space_groups[space_group(crystal, options_.symmetry_tolerance)];
}

}  // namespace adatom::datasets

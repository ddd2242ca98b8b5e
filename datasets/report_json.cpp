// SPDX-License-Identifier: MIT
#include <cmath>
#include <nlohmann/json.hpp>

#include "adatom/elements.hpp"
#include "datasets/report.hpp"

namespace adatom::datasets {
namespace {

using Json = nlohmann::ordered_json;

Json json(const Range& range) {
  if (range.count == 0) return {{"count", 0}};
  return {{"count", range.count}, {"min", range.min}, {"max", range.max}, {"mean", range.mean}, {"std", range.deviation()}, {"rms", range.rms()}};
}

Json json(const FrameReference& frame) { return {{"source", frame.source}, {"frame", frame.index}}; }

Json json(const Outlier& outlier) {
  Json document = json(outlier.frame);
  document["value"] = outlier.value, document["z"] = outlier.z;
  return document;
}

Json json(const Defect& defect) {
  Json document = json(defect.frame);
  document["what"] = defect.what;
  return document;
}

template <class T>
Json json(const std::vector<T>& list, std::size_t longest);

Json json(const DuplicateSet& set) {
  return {{"frames", json(set.frames, 1000)}, {"energy_spread", set.energy_spread}, {"several_sources", set.several_sources}};
}

Json json(const IsolatedAtom& atom) {
  Json document = json(atom.frame);
  document["element"] = element_symbol(atom.element), document["energy"] = atom.energy;
  return document;
}

template <class T>
Json json(const std::vector<T>& list, std::size_t longest) {
  Json first = Json::array();
  for (std::size_t i = 0; i < std::min(list.size(), longest); ++i) first.push_back(json(list[i]));
  return {{"count", list.size()}, {"first", first}};
}

/// With the number of frames that repeat another.
Json json_of_copies(const std::vector<DuplicateSet>& sets, std::size_t longest) {
  Json document = json(sets, longest);
  std::size_t copies = 0;
  for (const DuplicateSet& set : sets) copies += set.frames.size() - 1;
  document["copies"] = copies;
  return document;
}

Json json(const AtomicEnergies& energies) {
  Json elements = Json::object();
  for (const auto& [z, entry] : energies.elements)
    elements[element_symbol(z)] = {{"energy", entry.energy},
                                   {"origin", entry.origin == AtomicEnergies::Origin::isolated_atom ? "isolated atom" : "least squares"}};
  return {{"elements", elements}, {"fitted", energies.fitted}, {"rank", energies.rank}};
}

Json json(const HeadSummary& head, std::size_t longest) {
  Json document;
  document["frames"] = head.frames, document["atoms"] = head.atoms;
  document["with_energy"] = head.with_energy, document["with_forces"] = head.with_forces;
  document["with_stress"] = head.with_stress, document["with_charges"] = head.with_charges;
  Json& elements = document["elements"] = Json::object();
  for (const auto& [z, element] : head.elements)
    elements[element_symbol(z)] = {{"frames", element.frames}, {"atoms", element.atoms}, {"force", json(element.force)}};
  document["frame_size"] = json(head.frame_size);
  document["energy_per_atom"] = json(head.energy_per_atom);
  document["residual"] = json(head.residual);
  document["force"] = json(head.force);
  document["largest_force"] = json(head.largest_force);
  document["net_force"] = json(head.net_force);
  document["median_net_force"] = head.median_net_force;
  document["stress"] = json(head.stress);
  document["atomic_energies"] = json(head.atomic_energies);
  document["isolated_atoms"] = json(head.isolated_atoms, longest);
  document["energy_outliers"] = json(head.energy_outliers, longest);
  document["force_outliers"] = json(head.force_outliers, longest);
  document["absurd_forces"] = json(head.absurd_forces, longest);
  document["energy_force_slope"] = {{"pairs", head.slope.pairs},
                                    {"median", head.slope.median},
                                    {"quartiles", {head.slope.q1, head.slope.q3}},
                                    {"compared", head.slope.compared},
                                    {"mismatch", head.slope.mismatch}};
  document["energy_stress_slope"] = {{"pairs", head.stress_slope.pairs},
                                     {"median", head.stress_slope.median},
                                     {"weighted", head.stress_slope.weighted},
                                     {"frames", head.stress_slope.frames},
                                     {"volume_correlation", head.stress_slope.volume_correlation}};
  document["zeros"] = {{"energy", json(head.zeros.energy, longest)},
                       {"forces", json(head.zeros.forces, longest)},
                       {"stress", json(head.zeros.stress, longest)},
                       {"atoms", json(head.zeros.atoms, longest)}};
  Json& units = document["unit_suspicions"] = Json::array();
  for (const UnitSuspicion& suspicion : head.units) units.push_back({{"quantity", suspicion.quantity}, {"unit", suspicion.unit}, {"reason", suspicion.reason}});
  return document;
}

}  // namespace

std::string text(const FrameReference& frame, const Report& report) {
  return report.sources.at(static_cast<std::size_t>(frame.source)).name + ": frame " + std::to_string(frame.index);
}

std::string to_json(const Report& report, std::size_t longest) {
  Json document;
  Json& sources = document["sources"] = Json::array();
  for (const Source& source : report.sources) sources.push_back({{"name", source.name}, {"frames", source.frames}});
  document["frames"] = report.frames, document["atoms"] = report.atoms;
  Json& heads = document["heads"] = Json::object();
  for (const auto& [name, head] : report.heads) heads[name] = json(head, longest);
  document["config_types"] = report.config_types;
  Json& groups = document["groups"] = {{"count", report.groups.size()}, {"frames", Json::object()}};
  for (const auto& [name, frames] : report.groups) {
    if (groups["frames"].size() == longest) break;
    groups["frames"][name] = frames;
  }
  Json& periodicity = document["periodicity"] = Json::object();
  for (const auto& [directions, frames] : report.periodicity) periodicity[std::to_string(directions)] = frames;
  document["defective"] = json(report.defective, longest);
  document["without_energy"] = json(report.without_energy, longest);
  document["without_forces"] = json(report.without_forces, longest);
  document["without_stress"] = json(report.without_stress, longest);
  document["stress_not_periodic"] = json(report.stress_not_periodic, longest);
  document["filled_not_periodic"] = json(report.filled_not_periodic, longest);
  document["nearest_distance"] = json(report.nearest_distance);
  if (report.nearest_distance.count) document["nearest_distance"]["at"] = json(report.nearest_frame);
  document["duplicates"] = json_of_copies(report.duplicates, longest);
  document["near_duplicates"] = json_of_copies(report.near_duplicates, longest);
  document["near_tolerance"] = report.near_tolerance;
  document["space_groups"] = {{"crystals", report.crystals}, {"of", report.space_groups_of}, {"frames", report.space_groups}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace adatom::datasets

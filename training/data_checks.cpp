// SPDX-License-Identifier: MIT
#include "training/data_checks.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "adatom/elements.hpp"
#include "datasets/xxhash.hpp"

namespace adatom::training {
namespace {

using datasets::DataError;
using datasets::Frame;

/// Of what a model sees of a configuration, and its level of theory; digits that formats of files do not keep do not count.
std::uint64_t fingerprint(const Frame& frame, const std::string& head) {
  constexpr double digits = 1e5;  // per angstrom
  std::vector<std::int64_t> numbers(frame.structure.numbers.begin(), frame.structure.numbers.end());
  const auto add = [&](const Vector3& x) {
    for (const double c : x) numbers.push_back(std::llround(digits * c));
  };
  for (const Vector3& x : frame.structure.positions) add(x);
  for (std::size_t k = 0; k < 3; ++k)
    if (frame.structure.pbc[k]) numbers.push_back(static_cast<std::int64_t>(k)), add(frame.structure.cell[k]);
  datasets::XxHash64 hash;
  hash.update(numbers.data(), numbers.size() * sizeof(std::int64_t));
  hash.update(head.data(), head.size());
  return hash.digest();
}

/// Sum of the weights with which the labels of a configuration enter the loss.
double weight(const Frame& f, const LossOptions& loss) {
  double sum = f.energy ? loss.energy * f.weights.energy : 0.0;
  if (!f.forces.empty()) sum += loss.forces * f.weights.forces;
  if (f.stress) sum += loss.stress * f.weights.stress;
  return f.weights.config * sum;
}

std::set<int> elements_of(const FrameSet& set) {
  std::set<int> elements;
  for (std::size_t h = 0; h < set.heads().size(); ++h) elements.insert(set.elements(h).begin(), set.elements(h).end());
  return elements;
}

/// Heads of configurations that the set has; its list may have more, of configurations that were held out.
std::set<std::string> heads_of(const FrameSet& set) {
  std::set<std::string> heads;
  for (std::size_t h = 0; h < set.heads().size(); ++h)
    if (!set.elements(h).empty()) heads.insert(set.heads()[h]);
  return heads;
}

std::string validation(const RunConfig& config) { return config.data.valid.empty() ? "the validation configurations" : "data.valid"; }

void check_elements_and_heads(const RunConfig& config, RunData& data) {
  const std::set<int> trained = elements_of(data.train);
  const std::set<std::string> heads = heads_of(data.train), validated = heads_of(data.valid);
  if (!config.model.contains("file")) {  // else the model may know them
    for (const int z : elements_of(data.valid))
      if (!trained.count(z))
        throw DataError(validation(config) + " has " + element_symbol(z) +
                        ", which no configuration of data.train has: nothing would be learned of it; add some to " +
                        "data.train, or remove those of data.valid");
    for (const std::string& head : validated)
      if (!heads.count(head))
        throw DataError(validation(config) + " has the head '" + head + "', which no configuration of data.train has: add some, or remove those of data.valid");
  }
  for (const std::string& head : heads)
    if (!validated.count(head))
      data.warnings.push_back("no configuration of the head '" + head +
                              "' validates: its errors are not shown, and the best weights are those of other heads. " +
                              (config.data.valid.empty() ? "Raise data.valid_fraction, or set data.valid" : "Add some to data.valid"));
  for (const auto& [head, energies] : data.isolated) {
    const bool used = head.empty() ? heads.size() == 1 || heads.count("Default") : heads.count(head) > 0;
    if (!used)
      data.warnings.push_back(head.empty()
                                  ? "isolated atoms name no head, but all configurations do, and more than one: they are not used; give each head its own, "
                                    "with head=NAME in the comment line"
                                  : "there are isolated atoms of the head '" + head + "', but no configuration of it in data.train: they are not used");
  }
}

void check_labels(const RunConfig& config, RunData& data) {
  struct Label {
    const char* name;
    double weight;
    bool FrameInfo::*has;
  };
  for (const Label& label : {Label{"energy", config.loss.energy, &FrameInfo::energy},
                             {"forces", config.loss.forces, &FrameInfo::forces},
                             {"stress", config.loss.stress, &FrameInfo::stress}}) {
    const auto any = [&](const FrameSet& set) {
      for (std::size_t k = 0; k < set.size(); ++k)
        if (set.info(k).*label.has) return true;
      return false;
    };
    if (label.weight > 0 && any(data.train) && !any(data.valid))
      data.warnings.push_back("loss." + std::string(label.name) + " is not 0 and data.train has such labels, but none of " + validation(config) +
                              " has: the best weights are chosen without them");
  }
}

}  // namespace

void refuse_same_file_twice(const std::string& key, const FrameSet& set) {
  const auto& files = set.files();
  for (std::size_t k = 0; k < files.size(); ++k)
    for (std::size_t j = 0; j < k; ++j)
      if (files[j]->hash == files[k]->hash)
        throw std::invalid_argument(
            "'" + key + "' has the same configurations twice: " +
            (files[j]->path == files[k]->path ? files[k]->path + " stands there twice" : files[j]->path + " and " + files[k]->path + " have the same bytes") +
            "; remove one (config_weight in a comment line gives a configuration more weight)");
}

void check_sets(const RunConfig& config, RunData& data) {
  check_elements_and_heads(config, data);
  check_labels(config, data);

  std::vector<std::uint64_t> seen;
  seen.reserve(data.train.size());
  double weights = 0.0;
  data.train.for_each([&](std::size_t k, const Frame& f) {
    seen.push_back(fingerprint(f, data.train.head(k)));
    weights += weight(f, config.loss);
  });
  if (weights == 0)
    throw DataError(
        "all configurations of data.train have the weight 0 (their config_weight, or those of the labels in data.train times those of loss), so "
        "that there is nothing to learn from");
  std::sort(seen.begin(), seen.end());
  const auto copies = [&](const FrameSet& set) {
    std::size_t count = 0;
    set.for_each([&](std::size_t k, const Frame& f) { count += std::binary_search(seen.begin(), seen.end(), fingerprint(f, set.head(k))); });
    return count;
  };
  const auto tell = [&](const std::string& what, const FrameSet& set) {
    if (const std::size_t count = copies(set); count > 0)
      data.warnings.push_back(std::to_string(count) + " of " + std::to_string(set.size()) + " configurations of " + what +
                              " are in data.train too: errors on them say little of errors on others; `adatom data split` makes sets without copies");
  };
  tell(validation(config), data.valid);
  for (std::size_t k = 0; k < data.tests.size(); ++k) tell("data.test, " + config.data.test[k] + ",", data.tests[k]);
  const auto twice = seen.size() - static_cast<std::size_t>(std::unique(seen.begin(), seen.end()) - seen.begin());
  if (10 * twice > data.train.size())
    data.warnings.push_back(std::to_string(twice) + " of " + std::to_string(data.train.size()) +
                            " configurations of data.train are copies of others there; `adatom data check` lists them");
  double validating = 0.0;
  data.valid.for_each([&](std::size_t, const Frame& f) { validating += weight(f, config.loss); });
  if (validating == 0)
    data.warnings.push_back("all of " + validation(config) + " have the weight 0: the validation loss is 0, and does not choose the best weights");
}

void check_edges(const FrameSet& train, double cutoff) {
  for (std::size_t k = 0; k < train.size(); ++k)
    if (train.info(k).edges > 0) return;
  throw DataError("no two atoms of a configuration of data.train are nearer than the cutoff, r_max = " + nlohmann::json(cutoff).dump() +
                  " angstrom: there is nothing to learn from; a cutoff of 4 to 6 angstrom is usual");
}

}  // namespace adatom::training

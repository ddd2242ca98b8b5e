// SPDX-License-Identifier: MIT
// New models against what mace-torch and sevenn build for the same options (tests/reference/make_architectures.py).
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "adatom/elements.hpp"
#include "gnn/trainable.hpp"
#include "training/architecture.hpp"
#include "training/parameters.hpp"
#include "training/random_normals.hpp"

using namespace adatom;
using namespace adatom::training;
using nlohmann::json;

namespace {

ModelData data_of(const nlohmann::ordered_json& reference) {
  ModelData data;
  data.elements = reference.at("data").at("elements").get<std::vector<int>>();
  data.heads = reference.at("data").at("heads").get<std::vector<std::string>>();
  data.average_neighbors = reference.at("data").at("average_neighbors");
  data.atomic_energies.assign(data.heads.size(), std::vector<double>(data.elements.size(), -1.5));
  data.scale.assign(data.heads.size(), {0.8});
  data.shift.assign(data.heads.size(), {0.1});
  return data;
}

std::map<std::string, nlohmann::ordered_json> references() {
  std::map<std::string, nlohmann::ordered_json> found;
  for (const auto& entry : std::filesystem::directory_iterator(ADATOM_REFERENCE_DATA "/architectures"))
    found[entry.path().stem().string()] = nlohmann::ordered_json::parse(std::ifstream(entry.path()));
  return found;
}

ModelData small_data() {
  ModelData data;
  data.elements = {1, 8};
  data.atomic_energies = {{-13.6, -2000.0}};
  data.scale = {{1.5}};
  data.shift = {{0.0, 0.5}};
  data.average_neighbors = 10.0;
  return data;
}

std::string message_of(const json& options, const ModelData& data = small_data()) {
  try {
    new_model(options, data, 1);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no error";
}

double rms(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

}  // namespace

TEST_CASE("a new model has the architecture and tensors that the importer writes for the package's model") {
  const auto all = references();
  REQUIRE(all.size() >= 16);
  for (const auto& [name, reference] : all) {
    INFO(name);
    const ModelFile model = new_model(json(reference.at("options")), data_of(reference), 7);
    CHECK(nlohmann::ordered_json::parse(model.architecture) == reference.at("architecture"));  // the order of keys too
    std::set<std::string> names;
    for (const auto& [tensor, record] : reference.at("tensors").items()) {
      INFO(tensor);
      names.insert(tensor);
      REQUIRE(model.tensors.count(tensor) == 1);
      CHECK(model.tensors.at(tensor).shape == record.at("shape").get<std::vector<std::size_t>>());
      if (!record.contains("values")) continue;
      const auto values = record.at("values").get<std::vector<double>>();
      for (std::size_t k = 0; k < values.size(); ++k) CHECK(model.tensors.at(tensor).data.at(k) == Approx(values[k]).epsilon(1e-6));  // sevenn's are float
    }
    for (const auto& [tensor, value] : model.tensors) {
      INFO(tensor);
      CHECK(names.count(tensor) == 1);
    }
  }
}

TEST_CASE("scales and weight decay are those of the packages' parameters") {
  for (const auto& [name, reference] : references()) {
    const ModelFile model = new_model(json(reference.at("options")), data_of(reference), 7);
    for (const auto& [tensor, role] : tensor_roles(model)) {
      INFO(name << ", " << tensor);
      const auto& record = reference.at("tensors").at(tensor);
      if (!record.contains("scale")) {
        CHECK(!role.trainable);
        continue;
      }
      if (record.at("scale").is_null()) continue;  // a product of parameters
      const bool modal = name == "nequip_heads" && (tensor.find(".0e") != tensor.npos || tensor.find(".bias") != tensor.npos);
      if (modal) continue;  // the one-hot modality, which makes the biases here, counts as input channels in sevenn
      CHECK(role.scale == Approx(record.at("scale").get<double>()).epsilon(1e-6));
      if (name.rfind("mace", 0) == 0 && role.trainable) CHECK(role.decays == record.at("decays").get<bool>());
    }
  }
}

TEST_CASE("every tensor of imported models has a role") {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ADATOM_REFERENCE_DATA "/models")) {
    if (entry.path().extension() != ".safetensors") continue;
    INFO(entry.path());
    const ModelFile model = read_model(entry.path());
    for (const auto& [name, role] : tensor_roles(model, 14.25)) {
      INFO(name);
      const bool fixed = name.rfind("layers.", 0) != 0 && name != "embedding";
      if (fixed) CHECK(!role.trainable);
      if (!fixed && name.find("contraction") == name.npos) CHECK(role.trainable);
      CHECK(role.scale > 0.0);
      // Weights of these random models are normals in the packages, but for the readouts and contractions, which were scaled.
      const std::vector<double>& x = model.tensors.at(name).data;
      const bool drawn = name.find(".up.") != name.npos || name.find(".linear.") != name.npos || name.find("radial_mlp") != name.npos;
      const bool other_constant = entry.path().stem().string().rfind("sevennet", 0) == 0 && name.find(".linear.") != name.npos;
      if (drawn && !other_constant && name.find("bias") == name.npos && x.size() > 100)
        CHECK(rms(x) == Approx(role.scale).epsilon(5.0 / std::sqrt(2.0 * static_cast<double>(x.size())) + 0.1));
    }
    ++models;
  }
  CHECK(models > 40);
}

TEST_CASE("first weights have the packages' distributions") {
  const json options = {{"family", "mace"}, {"channels", 32}, {"max_L", 1}, {"l_max", 2}, {"correlation", 2}, {"readout", "NonLinearBiasReadoutBlock"}};
  const ModelFile model = new_model(options, small_data(), 3);
  const auto roles = tensor_roles(model);
  for (const auto& [name, role] : roles) {
    INFO(name);
    const std::vector<double>& x = model.tensors.at(name).data;
    if (!role.trainable) continue;
    if (name.find("bias") != name.npos) {
      CHECK(rms(x) == 0.0);
      continue;
    }
    const double paths = name.find("contraction") != name.npos ? static_cast<double>(model.tensors.at(name).shape[1]) : 1.0;
    CHECK(rms(x) == Approx(role.scale / paths).epsilon(5.0 / std::sqrt(2.0 * x.size())));
    double sum = 0.0;
    for (const double v : x) sum += v;
    CHECK(std::abs(sum) < 5.0 * std::sqrt(static_cast<double>(x.size())) * role.scale / paths);
  }
  CHECK(model.tensors.at("atomic_energies").data == std::vector<double>{-13.6, -2000.0});
  CHECK(model.tensors.at("scale").data == std::vector<double>{1.5, 1.5});
  CHECK(model.tensors.at("shift").data == std::vector<double>{0.0, 0.5});
  CHECK(model.cutoff == 5.0);
}

TEST_CASE("first weights follow from the seed and the tensor's name alone") {
  const json options = {{"family", "mace"}, {"channels", 8}}, deeper = {{"family", "mace"}, {"channels", 8}, {"layers", 3}};
  const ModelFile a = new_model(options, small_data(), 5), b = new_model(options, small_data(), 5), c = new_model(options, small_data(), 6);
  for (const auto& [name, tensor] : a.tensors) CHECK(tensor.data == b.tensors.at(name).data);
  CHECK(a.tensors.at("embedding").data != c.tensors.at("embedding").data);
  CHECK(a.tensors.at("layers.0.up.0e").data != a.tensors.at("layers.1.up.0e").data);
  CHECK(new_model(deeper, small_data(), 5).tensors.at("layers.0.linear.2e").data == a.tensors.at("layers.0.linear.2e").data);
}

TEST_CASE("normals are the same on every machine") {
  RandomNormals normals(42, "embedding");
  for (const double expected : {-0.03023492128210448, -0.3821280989385639, -0.6949242904692288, 0.785146032823435, 0.8131904097474251, -0.13117030932413798})
    CHECK(normals.next() == expected);
  double moments[4] = {};
  constexpr int n = 200000;
  RandomNormals many(1, "x");
  for (int k = 0; k < n; ++k) {
    const double x = many.next();
    double power = 1.0;
    for (double& m : moments) m += (power *= x) / n;
  }
  CHECK(std::abs(moments[0]) < 5 * std::sqrt(1.0 / n));
  CHECK(std::abs(moments[1] - 1.0) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(moments[2]) < 5 * std::sqrt(15.0 / n));
  CHECK(std::abs(moments[3] - 3.0) < 5 * std::sqrt(96.0 / n));
}

TEST_CASE("new models can be assembled for training") {
  for (const auto& [name, reference] : references()) {
    INFO(name);
    const ModelFile model = new_model(json(reference.at("options")), data_of(reference), 7);
    gnn::NetworkOptions options;
    options.elements = model.elements;
    options.heads = static_cast<int>(model.heads.size());
    options.keep = {0, 1, 2, 3};
    options.knots = 8;
    CHECK_NOTHROW(gnn::TrainableNetwork(model.architecture, model.tensors, options));
  }
}

TEST_CASE("wrong options are refused by name, value and what is allowed") {
  using Catch::Contains;
  CHECK_THAT(message_of({{"family", "gap"}}), Contains("family = \"gap\"") && Contains("mace, nequip"));
  CHECK_THAT(message_of({{"family", "mace"}, {"max_ell", 3}}), Contains("max_ell = 3") && Contains("it is l_max here") && Contains("radial_basis_size"));
  CHECK_THAT(message_of({{"family", "mace"}, {"chanels", 3}}), Contains("chanels = 3") && Contains("allowed are family"));
  CHECK_THAT(message_of({{"family", "nequip"}, {"correlation", 3}}), Contains("correlation = 3"));
  CHECK_THAT(message_of({{"channels", "many"}}), Contains("channels = \"many\"") && Contains("whole number"));
  CHECK_THAT(message_of({{"channels", 0}}), Contains("channels = 0"));
  CHECK_THAT(message_of({{"l_max", 4}}), Contains("l_max = 4") && Contains("0 to 3"));
  CHECK_THAT(message_of({{"r_max", -1.0}}), Contains("r_max = -1.0"));
  CHECK_THAT(message_of({{"correlation", {3, 2, 1}}}), Contains("correlation = [3,2,1]") && Contains("list of 2"));
  CHECK_THAT(message_of({{"hidden_irreps", "8x0e+8x1o"}, {"channels", 16}}), Contains("channels = 16") && Contains("contradicts hidden_irreps"));
  CHECK_THAT(message_of({{"hidden_irreps", "8x0e+4x1o"}}), Contains("hidden_irreps") && Contains("same number of channels"));
  CHECK_THAT(message_of({{"hidden_irreps", "8x0e+8x3o"}}), Contains("degrees up to 2"));
  CHECK_THAT(message_of({{"use_edge_irreps_first", true}}), Contains("use_edge_irreps_first = true") && Contains("needs edge_irreps"));
  CHECK_THAT(message_of({{"interaction", "RealAgnosticAttResidualInteractionBlock"}}), Contains("RealAgnosticDensityInteractionBlock"));
  CHECK_THAT(message_of({{"family", "nequip"}, {"cutoff_function", "xplor"}, {"cutoff_on", 6.0}}), Contains("cutoff_on = 6.0") && Contains("below r_max"));
  CHECK_THAT(message_of({{"family", "nequip"}, {"cutoff_on", 3.0}}), Contains("cutoff_on = 3.0") && Contains("xplor"));
  CHECK_THAT(message_of({{"family", "nequip"}, {"hidden_irreps", {"8x0e", "8x0e"}}}), Contains("expected 4 irreps"));
  CHECK_THAT(message_of({{"family", "nequip"}, {"use_modal_output_block", true}}), Contains("needs several heads"));
  ModelData data = small_data();
  data.atomic_energies = {{1.0}};
  CHECK_THAT(message_of({{"family", "mace"}}, data), Contains("atomic_energies of head 'Default' has 1 values, expected one for each of 2 elements"));
  data = small_data();
  data.average_neighbors = 0.0;
  CHECK_THAT(message_of({{"family", "mace"}}, data), Contains("average number of neighbours is 0"));
}

TEST_CASE("resolved options name every default and mean the same model") {
  for (const auto& [name, reference] : references()) {
    INFO(name);
    const ModelFile model = new_model(json(reference.at("options")), data_of(reference), 7);
    CHECK(new_model(json::parse(resolved_options(json(reference.at("options"))).dump()), data_of(reference), 7).architecture == model.architecture);
  }
  const json options = {{"family", "nequip"}, {"channels", 4}, {"l_max", 2}};
  const auto resolved = resolved_options(options);
  CHECK(resolved.at("radial_mlp") == json({64, 64}));
  CHECK(resolved.at("channels") == 4);
  CHECK(resolved.at("self_connection") == json({"nequip", "nequip", "nequip"}));
  const auto mace = resolved_options({{"hidden_irreps", "4x0e+4x1o"}});
  CHECK(mace.at("family") == "mace");
  CHECK(mace.at("max_L") == 1);
  CHECK(mace.at("r_max") == 5.0);
}

// SPDX-License-Identifier: MIT
#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "pair_model.hpp"
#include "potential/atomic_file.hpp"

using namespace adatom;
using namespace adatom::test;
using Catch::Contains;

namespace {

void check_equal(const ModelFile& a, const ModelFile& b) {
  CHECK(a.uncertainty == b.uncertainty);
  CHECK(a.architecture == b.architecture);
  CHECK(a.elements == b.elements);
  CHECK(a.cutoff == b.cutoff);
  CHECK(a.heads == b.heads);
  CHECK(a.provenance == b.provenance);
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    REQUIRE(b.tensors.contains(name));
    CHECK(tensor.shape == b.tensors.at(name).shape);
    CHECK(tensor.data == b.tensors.at(name).data);
  }
}

}  // namespace

TEST_CASE("model file: what is written is read") {
  const Folder folder;
  ModelFile model = pair_model();
  model.cutoff = 0.1 + 0.2;  // all 17 digits matter
  model.tensors["one"] = {{}, {1.0 / 3.0}};
  model.tensors["none"] = {{0, 7}, {}};
  model.tensors["edge"] = {{2, 1, 2}, {-0.0, std::numeric_limits<double>::max(), 5e-324, -1e-300}};
  write_model(folder / "model.safetensors", model);
  check_equal(read_model(folder / "model.safetensors"), model);
  CHECK(folder.files() == 1);  // no temporary file is left

  SECTION("a file that exists is replaced") {
    model.heads = {"default"};
    write_model(folder / "model.safetensors", model);
    CHECK(read_model(folder / "model.safetensors").heads == model.heads);
    CHECK(folder.files() == 1);
  }
  SECTION("the same model gives the same bytes") {
    write_model(folder / "again.safetensors", model);
    CHECK(read_bytes(folder / "again.safetensors") == read_bytes(folder / "model.safetensors"));
  }
  SECTION("as float32") {
    model.tensors.erase("edge");
    write_model(folder / "single.safetensors", model, TensorType::float32);
    for (auto& [name, tensor] : model.tensors)
      for (double& x : tensor.data) x = static_cast<float>(x);
    check_equal(read_model(folder / "single.safetensors"), model);
    write_model(folder / "single64.safetensors", model);
    check_equal(read_model(folder / "single64.safetensors"), model);
  }
}

TEST_CASE("model file: layout of the bytes") {
  const Folder folder;
  write_model(folder / "model.safetensors", pair_model());
  const std::string bytes = read_bytes(folder / "model.safetensors");
  std::uint64_t n;
  std::memcpy(&n, bytes.data(), 8);
  CHECK(n % 8 == 0);
  const auto header = nlohmann::json::parse(bytes.substr(8, n));
  CHECK(header["__metadata__"]["format"] == "adatom");
  CHECK(header["__metadata__"]["format_version"] == "3");
  CHECK(header["__metadata__"]["sha256"].get<std::string>().size() == 64);
  const auto document = nlohmann::json::parse(header["__metadata__"]["adatom"].get<std::string>());
  CHECK(document["architecture"]["r_max"] == 5.0);
  CHECK(document["units"] == nlohmann::json{{"energy", "eV"}, {"length", "angstrom"}});
  CHECK(header["strength"]["dtype"] == "F64");
  CHECK(header["strength"]["shape"] == std::vector<int>{3});
  const std::size_t begin = header["strength"]["data_offsets"][0];
  double value;
  std::memcpy(&value, bytes.data() + 8 + n + begin + 16, 8);
  CHECK(value == -0.8);
  CHECK(bytes.size() == 8 + n + 8 * 9);
}

TEST_CASE("model file: one that another program wrote") {
  // Laid out as the Python package safetensors does: largest type first, keys in any order. The hash is sha256sum's.
  const std::string data("\x00\x00\x00\x00\x00\x00\xe0\x3f\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40", 24);
  const std::string header =
      R"({"__metadata__":{"format":"adatom","adatom":"{\"architecture\": {\"r_max\": 4.5}, \"elements\": [1], \"cutoff\": 4.5, \"units\": )"
      R"({\"length\": \"angstrom\", \"energy\": \"eV\"}, \"heads\": [\"default\"], \"provenance\": {}, \"sha256\": )"
      R"(\"0563b70e4f0b98ef4d4d77ca9c6df74d3b1a0900f3691c119b0513f590ecd4b4\"}","format_version":"1"},"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}})";
  const std::uint64_t n = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  const Folder folder;
  write_bytes(folder / "other.safetensors", bytes + header + data);
  const ModelFile model = read_model(folder / "other.safetensors");
  CHECK(model.cutoff == 4.5);
  CHECK(model.tensors.at("a").shape == std::vector<std::size_t>{2, 2});
  CHECK(model.tensors.at("a").data == std::vector<double>{1, 2, 3, 4});
  CHECK(model.tensors.at("b").data == std::vector<double>{0.5});
}

TEST_CASE("model file: what is not written") {
  const Folder folder;
  ModelFile model = pair_model();
  std::string message;
  SECTION("wrong size") { model.tensors["strength"].shape = {4}, message = "tensor 'strength' has 3 values, but its shape needs 4"; }
  SECTION("NaN") { model.tensors["strength"].data[1] = std::nan(""), message = "tensor 'strength' has the value nan at index 1"; }
  SECTION("detectors without description") { model.detectors["uncertainty.mean"] = {{1}, {0.0}}, message = "no description of them"; }
  SECTION("detector among the weights") { model.tensors["uncertainty.mean"] = {{1}, {0.0}}, message = "has the name of a detector"; }
  SECTION("no element") { model.elements.clear(), message = "list of elements is empty"; }
  SECTION("element") { model.elements[1] = 119, message = "atomic number 119"; }
  SECTION("element twice") { model.elements[1] = 8, message = "its elements have O twice"; }
  SECTION("cutoff") { model.cutoff = 0, message = "cutoff is 0.0"; }
  SECTION("no head") { model.heads.clear(), message = "list of heads is empty"; }
  SECTION("head twice") { model.heads[1] = "pbe", message = "its heads have 'pbe' twice"; }
  SECTION("architecture") { model.architecture = "{", message = "architecture is no JSON object"; }
  SECTION("provenance") { model.provenance = "[1]", message = "provenance is no JSON object: '[1]'"; }
  SECTION("text that is not UTF-8") { model.heads[0] = "\xff", message = "UTF-8"; }
  SECTION("uncertainty") { model.uncertainty = R"({"network": "a", "head": "pbe"})", message = "lacks 'energy_noise'"; }
  SECTION("nesting") { model.provenance = R"({"a":)" + std::string(600, '[') + std::string(600, ']') + "}", message = "nested more than 500 levels"; }
  SECTION("name") { model.tensors["__metadata__"] = {{}, {1}}, message = "cannot be the name of a tensor"; }
  CHECK_THROWS_AS(write_model(folder / "m", model), std::invalid_argument);
  CHECK_THROWS_WITH(write_model(folder / "m", model), Contains("cannot be written") && Contains(message));
  CHECK(folder.files() == 0);
}

TEST_CASE("model file: too large for float32") {
  const Folder folder;
  ModelFile model = pair_model();
  model.tensors["strength"].data[2] = 1e39;
  CHECK_THROWS_WITH(write_model(folder / "m", model, TensorType::float32),
                    Contains("tensor 'strength' has the value 1e+39 at index 2, expected numbers up to 3.4"));
  CHECK_NOTHROW(write_model(folder / "m", model));
}

TEST_CASE("model file: where it cannot be written") {
  const Folder folder;
  const ModelFile model = pair_model();
  CHECK_THROWS_WITH(write_model(folder / "no/such/m", model), Contains("cannot write") && Contains("No such file") && Contains("check that the folder exists"));
  std::filesystem::create_directory(folder / "m");
  CHECK_THROWS_WITH(write_model(folder / "m", model), Contains("cannot write") && Contains("directory"));
  CHECK(folder.files() == 1);
}

TEST_CASE("model file: the disk is full") {
  const Folder folder;
  ModelFile model = pair_model();
  write_model(folder / "m", model);
  const std::string before = read_bytes(folder / "m");
  model.tensors["large"] = {{100000}, std::vector<double>(100000, 1.0)};

  // A limit on the size of files stops the write in the middle as a full disk does.
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit low = old;
  low.rlim_cur = 100000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
  std::string message;
  try {
    write_model(folder / "m", model);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);

  CHECK_THAT(message, Contains("cannot write") && Contains("after 100000 bytes") && Contains("nothing was changed: free some space"));
  CHECK(read_bytes(folder / "m") == before);
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: what is no regular file is not replaced") {
  const Folder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::filesystem::create_directory(folder / "folder");
  std::filesystem::create_symlink(folder / "pipe", folder / "link");
  for (const char* name : {"pipe", "link"})
    CHECK_THROWS_WITH(AtomicFile(folder / name), Contains("cannot write") && Contains("it exists and is no regular file"));
  CHECK_THROWS_WITH(AtomicFile(folder / "folder"), Contains("it exists and is a directory"));
  CHECK(folder.files() == 3);
  CHECK(std::filesystem::is_fifo(folder / "pipe"));
}

TEST_CASE("atomic file: an exception leaves nothing behind") {
  const Folder folder;
  {
    AtomicFile file(folder / "f");
    file.write("abc", 3);
    CHECK(folder.files() <= 1);  // none where the file system makes files without a name
    CHECK_FALSE(std::filesystem::exists(folder / "f"));
  }
  CHECK(folder.files() == 0);
}

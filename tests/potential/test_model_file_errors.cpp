// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pair_model.hpp"
#include "potential/sha256.hpp"

using namespace adatom;
using namespace adatom::test;
using Catch::Contains;
using Json = nlohmann::json;

namespace {

/// A good file in its parts, to be damaged and put together again.
struct Parts {
  Json header, document;
  std::string data;

  Parts() {
    const Folder folder;
    write_model(folder / "m", pair_model());
    const std::string bytes = read_bytes(folder / "m");
    std::uint64_t n;
    std::memcpy(&n, bytes.data(), 8);
    header = Json::parse(bytes.substr(8, n));
    document = Json::parse(header["__metadata__"]["adatom"].get<std::string>());
    data = bytes.substr(8 + n);
  }
  static std::string join(const std::string& header, const std::string& data) {
    const std::uint64_t n = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &n, 8);
    return bytes + header + data;
  }
  /// With the hash that belongs to them (docs/model_file.md), unless `hash` says otherwise.
  std::string bytes(const std::string& hash = "") {
    const std::string text = document.dump();
    std::ostringstream lines;
    lines << "adatom 3\n" << text << "\n";
    for (const auto& [name, t] : header.items()) {  // in the order of their names
      if (!t.is_object() || !t.contains("shape") || name == "__metadata__") continue;
      lines << name << " " << t["dtype"].get<std::string>() << " ";
      for (std::size_t k = 0; k < t["shape"].size(); ++k) lines << (k ? "," : "") << t["shape"][k];
      lines << " " << t["data_offsets"][0] << " " << t["data_offsets"][1] << "\n";
    }
    const std::string covered = lines.str();
    Sha256 sha256;
    sha256.update(covered.data(), covered.size());
    sha256.update(data.data(), data.size());
    header["__metadata__"]["adatom"] = text;
    header["__metadata__"]["sha256"] = hash.empty() ? sha256.hex() : hash;
    return join(header.dump(), data);
  }
};

/// The message with which a file of these bytes is refused.
std::string refusal(const std::string& bytes) {
  static const Folder folder;
  write_bytes(folder / "m.safetensors", bytes);
  try {
    read_model(folder / "m.safetensors");
  } catch (const std::runtime_error& error) {
    CHECK_THAT(error.what(), Catch::StartsWith("model file '" + (folder / "m.safetensors").string() + "': "));
    return error.what();
  }
  return "it was read";
}

const auto damaged = Contains("the file is damaged: copy or download it again");

}  // namespace

TEST_CASE("model file errors: the parts themselves are good") {
  const Folder folder;
  write_bytes(folder / "m", Parts().bytes());
  CHECK(read_model(folder / "m").tensors.size() == 2);
}

TEST_CASE("model file errors: no file") {
  const Folder folder;
  CHECK_THROWS_WITH(read_model(folder / "none"), Contains("none': cannot open it: No such file or directory"));
  CHECK_THROWS_WITH(read_model(folder.path), Contains("it is a folder"));
}

TEST_CASE("model file errors: truncated anywhere") {
  const std::string good = Parts().bytes();
  CHECK_THAT(refusal(""), Contains("it is empty") && damaged);
  CHECK_THAT(refusal(good.substr(0, 5)), Contains("it has 5 bytes") && damaged);
  CHECK_THAT(refusal(good.substr(0, 100)), Contains("it is truncated: 100 bytes, but the header alone needs") && damaged);
  CHECK_THAT(refusal(good.substr(0, good.size() - 3)), Contains("it is truncated: tensor 'strength' ends 3 bytes beyond the end") && damaged);
  int read = 0;
  for (std::size_t n = 0; n < good.size(); n += 7) read += refusal(good.substr(0, n)) == "it was read";
  CHECK(read == 0);
  CHECK_THAT(refusal(good + "x"), Contains("1 bytes after the last tensor belong to no tensor"));
}

TEST_CASE("model file errors: every flipped bit of the tensors and of the header") {
  const std::string good = Parts().bytes();
  const std::size_t data = good.size() - Parts().data.size();
  int read = 0;
  for (std::size_t at = data; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1 << bit);
      read += refusal(bad).find("the SHA-256 of its contents is") == std::string::npos;
    }
  for (std::size_t at = 0; at < data; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
    read += refusal(bad) == "it was read";
  }
  CHECK(read == 0);
}

TEST_CASE("model file errors: other kinds of files") {
  const auto import = Contains("`adatom import mace FILE -o OUT`");
  CHECK_THAT(refusal(std::string("PK\x03\x04\x00\x00\x08\x08", 8) + std::string(500, 'x')), Contains("zip archive, as torch.save writes") && import);
  CHECK_THAT(refusal("\x80\x02\x8a\nl\xfc\x9c" + std::string(500, 'x')), Contains("Python pickle") && import);
  CHECK_THAT(refusal(std::string("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", 11) + "}."), Contains("Python pickle") && import);
  CHECK_THAT(refusal("element H\nmass 1.008 and so on"), Contains("it is no safetensors file") && Contains("announce a header of"));
  CHECK_THAT(refusal(std::string(8, '\xff') + "{}"), Contains("a header of 18446744073709551615 bytes"));
  CHECK_THAT(refusal(std::string(64, '\0')), Contains("it is no safetensors file"));
}

TEST_CASE("model file errors: a header as long as the first bytes of a pickle is no pickle") {
  Parts parts;
  std::string header = (parts.bytes(), parts.header.dump());
  header.resize(0x0580, ' ');
  REQUIRE(parts.header.dump().size() < header.size());
  const std::string bytes = Parts::join(header, parts.data);
  REQUIRE(bytes.substr(0, 2) == "\x80\x05");
  CHECK(refusal(bytes) == "it was read");
}

TEST_CASE("model file errors: header and metadata") {
  Parts parts;
  CHECK_THAT(refusal(Parts::join("{\"a\":", "")), Contains("its header is not valid JSON") && damaged);
  CHECK_THAT(refusal(Parts::join("{\"a\":1,\"a\":2}", "")), Contains("has the key \"a\" twice"));
  for (const char* bracket : {"[", "{\"a\":"}) {
    std::string deep;
    for (int k = 0; k < 200000; ++k) deep += bracket;
    CHECK_THAT(refusal(Parts::join("{\"a\":" + deep, "")), Contains("its JSON is nested more than 500 levels deep"));
  }
  CHECK_THAT(refusal(Parts::join("{}", "")), Contains("safetensors file of another program") && Contains("`adatom import`"));

  auto& metadata = parts.header["__metadata__"];
  std::vector<std::string> messages;
  SECTION("another program") { metadata["format"] = "pt", messages = {"of another program (its metadata has format = 'pt'"}; }
  SECTION("metadata of another type") { metadata["format"] = 3, messages = {"of another program"}; }
  SECTION("newer") { metadata["format_version"] = "4", messages = {"format_version is 4, this Adatom reads up to 3", "update Adatom"}; }
  SECTION("no version") { metadata.erase("format_version"), messages = {"format_version is ''"}; }
  SECTION("version") { metadata["format_version"] = "1.0", messages = {"format_version is '1.0', expected a number"}; }
  SECTION("version zero") { metadata["format_version"] = "0", messages = {"format_version is '0'"}; }
  for (const char* key : {"architecture", "elements", "cutoff", "units", "heads", "provenance"}) SECTION(std::string("lacks ") + key) {
      parts.document.erase(key), messages = {"its metadata lacks '" + std::string(key) + "'"};
    }
  SECTION("unknown key") { parts.document["colour"] = 1, messages = {"unknown key 'colour'"}; }
  SECTION("no object") { parts.document = 3, messages = {"'adatom' is no JSON object"}; }
  SECTION("architecture") { parts.document["architecture"] = "mace", messages = {"'architecture' of its metadata is no JSON object"}; }
  SECTION("units") { parts.document["units"]["energy"] = "Ry", messages = {"its units are", "Ry", "expected {\"energy\": \"eV\""}; }
  SECTION("elements") { parts.document["elements"] = {1.5}, messages = {"its elements are [1.5]"}; }
  SECTION("element") { parts.document["elements"] = {0}, messages = {"atomic number 0"}; }
  SECTION("element beyond int") { parts.document["elements"] = {1, (1ll << 32) + 29}, messages = {"atomic number 4294967325, expected 1 to 118"}; }
  SECTION("element far below 0") { parts.document["elements"] = {1 - (1ll << 32)}, messages = {"atomic number -4294967295"}; }
  SECTION("cutoff") { parts.document["cutoff"] = "5", messages = {"its cutoff is \"5\", expected a positive number"}; }
  SECTION("cutoff true") { parts.document["cutoff"] = true, messages = {"its cutoff is true"}; }
  SECTION("names of heads") { parts.document["heads"] = {"a", 1}, messages = {"its heads are [\"a\",1], expected a list of names"}; }
  SECTION("more metadata") { metadata["colour"] = "red", messages = {"its metadata has the unknown key 'colour'"}; }
  SECTION("a long value") { parts.document["units"] = std::string(100000, 'x'), messages = {"xxx..., expected"}; }
  SECTION("negative cutoff") { parts.document["cutoff"] = -5, messages = {"cutoff is -5.0"}; }
  SECTION("heads") { parts.document["heads"] = Json::array(), messages = {"heads is empty"}; }
  std::string hash;
  SECTION("hash") { hash = "abc", messages = {"SHA-256 of its contents is", "expected abc"}; }
  const std::string message = refusal(parts.bytes(hash));
  CHECK_FALSE(message == "it was read");
  CHECK(message.size() < 600);
  for (const auto& expected : messages) CHECK_THAT(message, Contains(expected));
}

TEST_CASE("model file errors: tensors") {
  Parts parts;
  auto& tensor = parts.header["strength"];  // the last 24 of 72 bytes
  std::string message;
  SECTION("type") { tensor["dtype"] = "BF16", message = "tensor 'strength' has dtype \"BF16\", expected F32 or F64"; }
  SECTION("beyond the end") { tensor["data_offsets"] = {56, 80}, message = "8 bytes before tensor 'strength' belong to no tensor"; }
  SECTION("far beyond the end") { tensor["shape"] = {300}, tensor["data_offsets"] = {48, 2448}, message = "ends 2376 bytes beyond the end of the file"; }
  SECTION("overlap") { tensor["data_offsets"] = {40, 64}, message = "tensors 'atomic_energies' and 'strength' overlap"; }
  SECTION("size") { tensor["shape"] = {4}, message = "of shape [4] needs 32 bytes, but has the data_offsets [48,72]"; }
  SECTION("backwards") { tensor["data_offsets"] = {72, 48}, message = "has the data_offsets [72,48]"; }
  SECTION("overflow") { tensor["shape"] = {4294967296u, 4294967296u, 3}, message = "absurd shape"; }
  SECTION("negative") { tensor["shape"] = {-3}, message = "expected dtype, shape and data_offsets"; }
  SECTION("negative offset") { tensor["data_offsets"] = {-24, 0}, message = "expected dtype, shape and data_offsets"; }
  SECTION("no shape") { tensor.erase("shape"), message = "expected dtype, shape and data_offsets"; }
  SECTION("no tensor") { tensor = 7, message = "tensor 'strength' is described by 7"; }
  SECTION("removed") { parts.header.erase("strength"), message = "24 bytes after the last tensor belong to no tensor"; }
  CHECK_THAT(refusal(parts.bytes()), Contains(message));
}

TEST_CASE("model file errors: the description of uncertainty") {
  Parts parts;
  Json& description = parts.document["uncertainty"];
  description = {{"network", "ab"}, {"head", "pbe"}, {"energy_noise", 0.1}, {"members", 3}, {"levels", {0.5, 0.9}}, {"fitted", {{"train", 7}}}};
  CHECK(refusal(parts.bytes()) == "it was read");
  std::string message;
  SECTION("no object") { description = {1, 2}, message = "'uncertainty' of its metadata is no JSON object"; }
  SECTION("unknown key") { description["colour"] = 1, message = "its description of uncertainty has the unknown key 'colour'"; }
  SECTION("lacks") { description.erase("head"), message = "its description of uncertainty lacks 'head'"; }
  SECTION("text") { description["network"] = 7, message = "'network' of its description of uncertainty is 7, expected a text"; }
  SECTION("number") { description["energy_noise"] = "0.1", message = "'energy_noise' of its description of uncertainty is \"0.1\", expected a number from 0"; }
  SECTION("negative") { description["energy_noise"] = -1, message = "is -1, expected a number from 0"; }
  SECTION("count") { description["members"] = 2.5, message = "'members' of its description of uncertainty is 2.5, expected a whole number"; }
  SECTION("list") { description["levels"] = {0.5, "a"}, message = "'levels' of its description of uncertainty is [0.5,\"a\"], expected a list of numbers"; }
  SECTION("object") { description["fitted"] = 1, message = "'fitted' of its description of uncertainty is 1, expected an object"; }
  CHECK_THAT(refusal(parts.bytes()), Contains(message));
}

TEST_CASE("model file errors: a header that was edited") {
  Parts parts;
  CHECK(refusal(parts.bytes()) == "it was read");
  const std::string hash = parts.header["__metadata__"]["sha256"];
  SECTION("cutoff") { parts.document["cutoff"] = 4.5; }
  SECTION("elements") { std::swap(parts.document["elements"][0], parts.document["elements"][1]); }
  SECTION("provenance") { parts.document["provenance"]["licence"] = "none"; }
  SECTION("a name") { parts.header["strengths"] = parts.header["strength"], parts.header.erase("strength"); }
  SECTION("a shape") { parts.header["strength"]["shape"] = {1, 3}; }
  SECTION("places of tensors") {
    parts.header["strength"]["data_offsets"] = {0, 24};
    parts.header["atomic_energies"]["data_offsets"] = {24, 72};
  }
  CHECK_THAT(refusal(parts.bytes(hash)), Contains("the SHA-256 of its contents is") && damaged);
}

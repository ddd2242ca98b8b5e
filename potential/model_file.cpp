// SPDX-License-Identifier: MIT
#include "potential/model_file.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "adatom/elements.hpp"
#include "gnn/brief.hpp"
#include "potential/atomic_file.hpp"
#include "potential/sha256.hpp"

namespace adatom {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read and written as they lie in memory");

using Json = nlohmann::ordered_json;  // keeps the order of keys of the architecture and the provenance
using Bytes = std::span<const char>;

constexpr std::uint64_t largest_header = 100'000'000;  // bytes; the limit of the safetensors package
constexpr std::size_t length_bytes = 8;
const std::string copy_again = "; the file is damaged: copy or download it again, and compare its size and checksum with the source";

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

std::string read_bytes(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) fail("it is a folder: give the .safetensors file in it");
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) fail("cannot open it: " + std::string(std::strerror(errno)));
  std::string bytes;
  std::error_code unknown_size;
  const auto size = std::filesystem::file_size(path, unknown_size);
  if (!unknown_size) bytes.resize(size);
  const std::size_t got = std::fread(bytes.data(), 1, bytes.size(), file);
  const int error = std::ferror(file) ? errno : 0;
  std::fclose(file);
  if (error) fail("cannot read it: " + std::string(std::strerror(error)));
  bytes.resize(got);
  return bytes;
}

std::uint64_t header_length(Bytes file) {
  std::uint64_t n;
  std::memcpy(&n, file.data(), length_bytes);
  return n;
}

/// Refuses what is no safetensors file, and says what it is if that can be told.
void check_kind(Bytes file) {
  if (file.empty()) fail("it is empty" + copy_again);
  // A safetensors file may by chance begin as a pickle does; the brace tells.
  if (file.size() > length_bytes && file[length_bytes] == '{' && header_length(file) <= largest_header) return;

  const auto starts_with = [file](std::string_view magic) { return file.size() >= magic.size() && std::equal(magic.begin(), magic.end(), file.begin()); };
  const std::string import = ": import it once with `adatom import mace FILE -o OUT` (or `sevennet` for a checkpoint of SevenNet) and use OUT";
  if (starts_with("PK\x03\x04")) fail("it is a zip archive, as torch.save writes (.pt, .pth, .model), not a model file" + import);
  if (file.size() >= 2 && file[0] == '\x80' && file[1] >= 2 && file[1] <= 5)
    fail("it is a Python pickle, as torch.save wrote before version 1.6, not a model file" + import);
  if (file.size() < length_bytes) fail("it has " + std::to_string(file.size()) + " bytes, too few for a model file" + copy_again);
  fail("it is no safetensors file: its first 8 bytes announce a header of " + std::to_string(header_length(file)) + " bytes where one of at most " +
       std::to_string(largest_header) + " that begins with '{' was expected: give an Adatom model (.safetensors)");
}

/// JSON in which no object has a key twice (the parser would silently keep the last), and that is not nested so deeply that what walks through it
/// by recursion overflows the stack.
Json parse_strict(std::string_view text) {
  constexpr int deepest = 500;  // provenance grows by a level with each fine-tuning
  std::vector<std::set<std::string>> keys;
  return Json::parse(text, [&keys](int depth, Json::parse_event_t event, Json& value) {
    if (depth > deepest) fail("its JSON is nested more than " + std::to_string(deepest) + " levels deep" + copy_again);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      fail("its JSON has the key " + gnn::brief(value) + " twice" + copy_again);
    return true;
  });
}

Json read_header(Bytes file) {
  const std::uint64_t n = header_length(file);
  if (n > file.size() - length_bytes)
    fail("it is truncated: " + std::to_string(file.size()) + " bytes, but the header alone needs " + std::to_string(n + length_bytes) + copy_again);
  try {
    Json header = parse_strict({file.data() + length_bytes, n});
    if (!header.is_object()) fail("its header is no JSON object" + copy_again);
    return header;
  } catch (const Json::exception& error) {
    fail("its header is not valid JSON (" + gnn::reason(error) + ")" + copy_again);
  }
}

struct Document {
  Json json;
  int version = 0;
  std::string text;    ///< of json
  std::string sha256;  ///< that the file should have
};

/// The Adatom document within the header's metadata.
Document read_document(const Json& header) {
  const auto metadata = header.find("__metadata__");
  const auto text = [&](const char* key) -> std::optional<std::string> {
    if (metadata == header.end() || !metadata->is_object()) return std::nullopt;
    const auto value = metadata->find(key);
    return value != metadata->end() && value->is_string() ? std::optional(value->get<std::string>()) : std::nullopt;
  };
  if (text("format") != "adatom")
    fail("it is a safetensors file of another program (its metadata has format = '" + text("format").value_or("") +
         "', expected 'adatom'): convert the model with `adatom import`");
  const std::string version = text("format_version").value_or("");
  const bool is_number = !version.empty() && version.size() < 9 && version.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || std::stoi(version) < 1) fail("its format_version is '" + version + "', expected a number from 1" + copy_again);
  if (std::stoi(version) > model_format_version)
    fail("its format_version is " + version + ", this Adatom reads up to " + std::to_string(model_format_version) +
         ": update Adatom, or ask for the model in the older format");
  const auto document = text("adatom");
  if (!document) fail("its metadata lacks 'adatom'" + copy_again);
  Document result{{}, std::stoi(version), *document, ""};
  try {
    result.json = parse_strict(*document);
  } catch (const Json::exception& error) {
    fail("its metadata 'adatom' is not valid JSON (" + gnn::reason(error) + ")" + copy_again);
  }
  if (!result.json.is_object()) fail("its metadata 'adatom' is no JSON object" + copy_again);
  const bool inside = result.version < 3;  // of the document
  if (inside && result.json.contains("sha256") && result.json["sha256"].is_string()) result.sha256 = result.json["sha256"].get<std::string>();
  if (!inside) {
    result.sha256 = text("sha256").value_or("");
    for (const auto& item : metadata->items())
      if (!std::set<std::string>{"format", "format_version", "adatom", "sha256"}.contains(item.key()))
        fail("its metadata has the unknown key '" + item.key() + "'" + copy_again);
  }
  if (result.sha256.empty()) fail("its metadata lacks 'sha256'" + copy_again);
  return result;
}

void check_contents(const ModelFile& model) {
  if (model.elements.empty()) fail("its list of elements is empty");
  for (auto z = model.elements.begin(); z != model.elements.end(); ++z) {
    if (*z < 1 || *z > max_atomic_number) fail("its elements have the atomic number " + std::to_string(*z) + ", expected 1 to 118");
    if (std::find(model.elements.begin(), z, *z) != z) fail("its elements have " + element_symbol(*z) + " twice");
  }
  if (!(model.cutoff > 0) || !std::isfinite(model.cutoff)) fail("its cutoff is " + std::to_string(model.cutoff) + " angstrom, expected a positive number");
  if (model.heads.empty()) fail("its list of heads is empty: a model has at least one, e.g. 'default'");
  for (auto head = model.heads.begin(); head != model.heads.end(); ++head)
    if (std::find(model.heads.begin(), head, *head) != head) fail("its heads have '" + *head + "' twice");
}

/// What detectors of uncertainty say of themselves; keys as docs/model_file.md has them.
void check_uncertainty(const Json& description) {
  const auto is_text = [](const Json& v) { return v.is_string(); };
  const auto is_number = [](const Json& v) { return v.is_number() && v.get<double>() >= 0 && std::isfinite(v.get<double>()); };
  const auto is_count = [](const Json& v) { return v.is_number_unsigned(); };
  const auto are_numbers = [&](const Json& v) { return v.is_array() && std::all_of(v.begin(), v.end(), is_number); };
  const auto is_object = [](const Json& v) { return v.is_object(); };
  struct Key {
    bool needed;
    std::function<bool(const Json&)> fits;
    const char* expected;
  };
  const std::map<std::string, Key> keys = {{"network", {true, is_text, "a text"}},
                                           {"head", {true, is_text, "a text"}},
                                           {"energy_noise", {true, is_number, "a number from 0"}},
                                           {"members", {false, is_count, "a whole number"}},
                                           {"levels", {false, are_numbers, "a list of numbers from 0"}},
                                           {"energy_intervals", {false, are_numbers, "a list of numbers from 0"}},
                                           {"force_intervals", {false, are_numbers, "a list of numbers from 0"}},
                                           {"fitted", {false, is_object, "an object"}},
                                           {"recalibrated", {false, is_object, "an object"}}};
  const std::string again = ": fit it again with `adatom calibrate`";
  for (const auto& [name, key] : keys)
    if (key.needed && !description.contains(name)) fail("its description of uncertainty lacks '" + name + "'" + again);
  for (const auto& item : description.items()) {
    const auto key = keys.find(item.key());
    if (key == keys.end()) fail("its description of uncertainty has the unknown key '" + item.key() + "': update Adatom, or remove what wrote it");
    if (!key->second.fits(item.value()))
      fail("'" + item.key() + "' of its description of uncertainty is " + gnn::brief(item.value()) + ", expected " + key->second.expected + again);
  }
}

/// Fills all but the tensors.
void decode_document(const Json& document, int version, ModelFile& model) {
  std::set<std::string> needed = {"architecture", "elements", "cutoff", "units", "heads", "provenance"};
  if (version < 3) needed.insert("sha256");
  for (const auto& item : document.items())
    if (!needed.contains(item.key()) && !(version >= 2 && item.key() == "uncertainty"))
      fail("its metadata has the unknown key '" + item.key() + "': update Adatom, or remove what wrote it");
  for (const auto& key : needed)
    if (!document.contains(key)) fail("its metadata lacks '" + key + "'" + copy_again);
  for (const char* key : {"architecture", "provenance", "uncertainty"})
    if (document.contains(key) && !document[key].is_object()) fail("'" + std::string(key) + "' of its metadata is no JSON object");
  const Json& units = document["units"];
  if (!units.is_object() || units.size() != 2 || units.value("energy", Json()) != "eV" || units.value("length", Json()) != "angstrom")
    fail("its units are " + gnn::brief(units) + R"(, expected {"energy": "eV", "length": "angstrom"}: convert the model)");
  const Json &elements = document["elements"], &cutoff = document["cutoff"], &heads = document["heads"];
  if (!elements.is_array() || !std::all_of(elements.begin(), elements.end(), [](const Json& z) { return z.is_number_integer(); }))
    fail("its elements are " + gnn::brief(elements) + ", expected a list of atomic numbers");
  for (const Json& z : elements)  // before get(), which wraps what is beyond int
    if (!(z.get<double>() >= 1 && z.get<double>() <= max_atomic_number)) fail("its elements have the atomic number " + z.dump() + ", expected 1 to 118");
  if (!cutoff.is_number()) fail("its cutoff is " + gnn::brief(cutoff) + ", expected a positive number");
  if (!heads.is_array() || !std::all_of(heads.begin(), heads.end(), [](const Json& head) { return head.is_string(); }))
    fail("its heads are " + gnn::brief(heads) + ", expected a list of names");
  if (document.contains("uncertainty")) check_uncertainty(document["uncertainty"]);
  try {
    model.architecture = document["architecture"].dump();
    model.provenance = document["provenance"].dump();
    if (document.contains("uncertainty")) model.uncertainty = document["uncertainty"].dump();
    model.elements = elements.get<std::vector<int>>();
    model.cutoff = cutoff.get<double>();
    model.heads = heads.get<std::vector<std::string>>();
  } catch (const Json::exception& error) {
    fail("its metadata has a value of the wrong type (" + gnn::reason(error) + ")");
  }
}

/// Where a tensor lies. All sizes are checked for overflow, as a damaged header can hold anything.
struct Entry {
  std::string name;
  bool single = false;
  std::vector<std::size_t> shape;
  std::uint64_t begin = 0, end = 0;
};

Entry read_entry(const std::string& name, const Json& value) {
  const auto wrong = [&name](const std::string& what) { fail("tensor '" + name + "' " + what + copy_again); };
  const auto is_size = [](const Json& v) { return v.is_number_unsigned(); };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value["dtype"].is_string() || !value.contains("shape") ||
      !value["shape"].is_array() || !value.contains("data_offsets") || !value["data_offsets"].is_array() || value["data_offsets"].size() != 2 ||
      !std::all_of(value["shape"].begin(), value["shape"].end(), is_size) || !std::all_of(value["data_offsets"].begin(), value["data_offsets"].end(), is_size))
    wrong("is described by " + gnn::brief(value) + ", expected dtype, shape and data_offsets");

  Entry entry{name, value["dtype"] == "F32", value["shape"].get<std::vector<std::size_t>>(), value["data_offsets"][0], value["data_offsets"][1]};
  if (!entry.single && value["dtype"] != "F64")
    fail("tensor '" + name + "' has dtype " + gnn::brief(value["dtype"]) + ", expected F32 or F64: convert the model again");
  std::uint64_t bytes = entry.single ? sizeof(float) : sizeof(double);
  for (const std::uint64_t length : entry.shape) {
    if (length != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / length) wrong("has the absurd shape " + gnn::brief(value["shape"]));
    bytes *= length;
  }
  if (entry.end < entry.begin || entry.end - entry.begin != bytes)
    wrong("of shape " + gnn::brief(value["shape"]) + " needs " + std::to_string(bytes) + " bytes, but has the data_offsets " + value["data_offsets"].dump());
  return entry;
}

/// All tensors in the order of their data, which they must fill without gap or overlap.
std::vector<Entry> read_entries(const Json& header, std::uint64_t data_bytes) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items())
    if (name != "__metadata__") entries.push_back(read_entry(name, value));
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::uint64_t end = 0;
  for (std::size_t k = 0; k < entries.size(); ++k) {
    const Entry& entry = entries[k];
    if (entry.begin < end) fail("tensors '" + entries[k - 1].name + "' and '" + entry.name + "' overlap" + copy_again);
    if (entry.begin > end) fail(std::to_string(entry.begin - end) + " bytes before tensor '" + entry.name + "' belong to no tensor" + copy_again);
    end = entry.end;
  }
  if (end > data_bytes)
    fail("it is truncated: tensor '" + entries.back().name + "' ends " + std::to_string(end - data_bytes) + " bytes beyond the end of the file" + copy_again);
  if (end < data_bytes) fail(std::to_string(data_bytes - end) + " bytes after the last tensor belong to no tensor" + copy_again);
  return entries;
}

template <class T>
std::vector<double> decode(Bytes data) {
  std::vector<double> values(data.size() / sizeof(T));
  for (std::size_t k = 0; k < values.size(); ++k) {
    T value;
    std::memcpy(&value, data.data() + k * sizeof(T), sizeof(T));
    values[k] = value;
  }
  return values;
}

template <class T>
void encode(const std::vector<double>& values, std::vector<char>& data) {
  data.resize(values.size() * sizeof(T));
  for (std::size_t k = 0; k < values.size(); ++k) {
    const T value = static_cast<T>(values[k]);
    std::memcpy(data.data() + k * sizeof(T), &value, sizeof(T));
  }
}

/// `largest`: of the type in the file, so that no value becomes infinite there.
void check_values(const std::string& name, const std::vector<double>& values, double largest) {
  for (std::size_t k = 0; k < values.size(); ++k) {
    if (std::abs(values[k]) <= largest) continue;
    std::ostringstream message;
    message << "tensor '" << name << "' has the value " << values[k] << " at index " << k << ", expected numbers up to " << largest
            << ": was the training unstable?";
    fail(message.str());
  }
}

bool is_detector(const std::string& tensor) { return tensor.starts_with("uncertainty."); }

template <class F>
void for_all_tensors(const ModelFile& model, F f) {
  for (const auto& [name, tensor] : model.tensors) f(name, tensor);
  for (const auto& [name, tensor] : model.detectors) f(name, tensor);
}

/// What the hash covers before the tensors' data: docs/model_file.md. All entries of the header, as offsets say which data a tensor has.
std::string hashed_header(const std::string& document, std::vector<Entry> entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  std::ostringstream text;
  text << "adatom " << model_format_version << "\n" << document << "\n";
  for (const Entry& e : entries) {
    text << e.name << (e.single ? " F32 " : " F64 ");
    for (std::size_t k = 0; k < e.shape.size(); ++k) text << (k ? "," : "") << e.shape[k];
    text << " " << e.begin << " " << e.end << "\n";
  }
  return text.str();
}

ModelFile decode_model(Bytes file) {
  check_kind(file);
  const Json header = read_header(file);
  const Document document = read_document(header);
  const Bytes data = file.subspan(length_bytes + header_length(file));
  const auto check_hash = [&](const std::string& covered, const char* what) {
    Sha256 sha256;
    sha256.update(covered.data(), covered.size());
    sha256.update(data.data(), data.size());
    if (const std::string found = sha256.hex(); found != document.sha256)
      fail("the SHA-256 of its " + std::string(what) + " is " + found + ", expected " + document.sha256.substr(0, 64) + copy_again);
  };
  const std::vector<Entry> entries = read_entries(header, data.size());
  if (document.version < 3)
    check_hash("", "tensors");
  else
    check_hash(hashed_header(document.text, entries), "contents");
  ModelFile model;
  decode_document(document.json, document.version, model);
  check_contents(model);
  for (const Entry& entry : entries) {
    const Bytes bytes = data.subspan(entry.begin, entry.end - entry.begin);
    gnn::Tensor tensor{entry.shape, entry.single ? decode<float>(bytes) : decode<double>(bytes)};
    check_values(entry.name, tensor.data, std::numeric_limits<double>::max());
    (is_detector(entry.name) ? model.detectors : model.tensors).emplace(entry.name, std::move(tensor));
  }
  if (model.uncertainty.empty() && !model.detectors.empty())
    fail("it has the tensor '" + model.detectors.begin()->first + "', but its metadata lack 'uncertainty'" + copy_again);
  return model;
}

Json parse_object(const std::string& text, const char* what) {
  Json value;
  try {
    value = parse_strict(text);
  } catch (const Json::exception&) {
  }
  if (!value.is_object()) fail(std::string(what) + " is no JSON object: '" + text.substr(0, 40) + "'");
  return value;
}

/// Everything before the tensors. `hash` is the hash of the tensors' data that follow a text.
std::string encode_header(const ModelFile& model, TensorType type, const std::function<std::string(const std::string&)>& hash) {
  Json document = {{"architecture", parse_object(model.architecture, "its architecture")},
                   {"elements", model.elements},
                   {"cutoff", model.cutoff},
                   {"units", {{"energy", "eV"}, {"length", "angstrom"}}},
                   {"heads", model.heads},
                   {"provenance", parse_object(model.provenance, "its provenance")}};
  if (!model.uncertainty.empty()) {
    document["uncertainty"] = parse_object(model.uncertainty, "its description of uncertainty");
    check_uncertainty(document["uncertainty"]);
  }
  const std::string text_of_document = document.dump();
  Json header;
  header["__metadata__"] = {{"format", "adatom"}, {"format_version", std::to_string(model_format_version)}, {"adatom", text_of_document}};
  std::vector<Entry> entries;
  std::uint64_t begin = 0;
  for_all_tensors(model, [&](const std::string& name, const gnn::Tensor& tensor) {
    const std::uint64_t end = begin + tensor.data.size() * (type == TensorType::float32 ? sizeof(float) : sizeof(double));
    header[name] = {{"dtype", type == TensorType::float32 ? "F32" : "F64"}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    entries.push_back({name, type == TensorType::float32, tensor.shape, begin, end});
    begin = end;
  });
  header["__metadata__"]["sha256"] = hash(hashed_header(text_of_document, std::move(entries)));
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin at a multiple of 8
  const std::uint64_t n = text.size();
  std::string length(length_bytes, '\0');
  std::memcpy(length.data(), &n, length_bytes);
  return length + text;
}

void check_writable(const ModelFile& model, TensorType type) {
  check_contents(model);
  if (model.uncertainty.empty() && !model.detectors.empty()) fail("it has tensors of detectors, but no description of them");
  for_all_tensors(model, [&](const std::string& name, const gnn::Tensor& tensor) {
    std::size_t size = 1;
    for (const std::size_t length : tensor.shape) size *= length;
    if (name.empty() || name == "__metadata__") fail("'" + name + "' cannot be the name of a tensor");
    if (size != tensor.data.size())
      fail("tensor '" + name + "' has " + std::to_string(tensor.data.size()) + " values, but its shape needs " + std::to_string(size));
    check_values(name, tensor.data, type == TensorType::float32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max());
  });
  for (const auto& [name, tensor] : model.tensors)
    if (is_detector(name)) fail("tensor '" + name + "' has the name of a detector");
  for (const auto& [name, tensor] : model.detectors)
    if (!is_detector(name)) fail("tensor '" + name + "' has not the name of a detector, 'uncertainty.'...");
}

}  // namespace

std::string network_hash(const ModelFile& model) {
  Sha256 sha256;
  std::string text = parse_object(model.architecture, "its architecture").dump();
  for (const int z : model.elements) text.append(" ").append(std::to_string(z));
  sha256.update(text.data(), text.size());
  std::vector<char> data;
  for (const auto& [name, tensor] : model.tensors) {
    sha256.update(name.data(), name.size());
    encode<float>(tensor.data, data);
    sha256.update(data.data(), data.size());
  }
  return sha256.hex();
}

ModelFile read_model(const std::filesystem::path& file) {
  try {
    return decode_model(read_bytes(file));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("model file '" + file.string() + "': " + error.what());
  } catch (const std::bad_alloc&) {
    throw std::runtime_error("model file '" + file.string() + "': there is not enough memory to read it");
  }
}

void write_model(const std::filesystem::path& file, const ModelFile& model, TensorType type) {
  // The header holds the SHA-256 of what follows it, so the tensors are encoded twice; that needs no copy of all of them.
  std::vector<char> data;
  const auto for_each_tensor = [&](const auto& use) {
    for_all_tensors(model, [&](const std::string&, const gnn::Tensor& tensor) {
      type == TensorType::float32 ? encode<float>(tensor.data, data) : encode<double>(tensor.data, data);
      use(data.data(), data.size());
    });
  };
  std::string header;
  try {
    check_writable(model, type);
    header = encode_header(model, type, [&](const std::string& covered) {
      Sha256 sha256;
      sha256.update(covered.data(), covered.size());
      for_each_tensor([&](const char* bytes, std::size_t n) { sha256.update(bytes, n); });
      return sha256.hex();
    });
  } catch (const std::exception& error) {  // of ours, or of the JSON library for text that is not UTF-8
    throw std::invalid_argument("model for '" + file.string() + "' cannot be written: " + error.what());
  }
  AtomicFile out(file);
  out.write(header.data(), header.size());
  for_each_tensor([&](const char* bytes, std::size_t n) { out.write(bytes, n); });
  out.commit();
}

}  // namespace adatom

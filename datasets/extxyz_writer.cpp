// SPDX-License-Identifier: MIT
#include "datasets/extxyz_writer.hpp"

#include "adatom/elements.hpp"
#include "datasets/key_values.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

constexpr std::size_t block_bytes = 1 << 20;

void append(std::string& text, const Vector3& v) {
  for (const double component : v) text += ' ', append_number(text, component);
}

}  // namespace

ExtxyzWriter::ExtxyzWriter(const std::filesystem::path& file, const LabelKeys& keys) : file_(file), keys_(keys), out_(file) {}

void ExtxyzWriter::write(const Frame& frame) {
  const Structure& s = frame.structure;
  const std::size_t n = frame.size();
  if (n == 0 || s.positions.size() != n || (!frame.forces.empty() && frame.forces.size() != n) || (!frame.charges.empty() && frame.charges.size() != n))
    throw DataError(file_.string() + ": frame " + std::to_string(frames_) + " cannot be written: " + defects(frame).front());
  const bool forces = !frame.forces.empty() && !keys_.forces.empty(), charges = !frame.charges.empty() && !keys_.charges.empty();

  buffer_ += std::to_string(n) + "\n";
  if (s.cell != Matrix3{}) {
    buffer_ += "Lattice=\"";
    for (int k = 0; k < 9; ++k) append_number(buffer_ += k == 0 ? "" : " ", s.cell[k / 3][k % 3]);
    buffer_ += "\" ";
  }
  buffer_ += "Properties=species:S:1:pos:R:3";
  if (forces) buffer_ += ":" + keys_.forces + ":R:3";
  if (charges) buffer_ += ":" + keys_.charges + ":R:1";
  const auto entry = [this](const std::string& key, const std::string& value) { buffer_.append(" ").append(quote_value(key)).append("=").append(value); };
  if (frame.energy && !keys_.energy.empty()) entry(keys_.energy, number_text(*frame.energy));
  if (frame.stress && !keys_.stress.empty()) {
    std::string matrix = "\"";
    for (const int c : {0, 5, 4, 5, 1, 3, 4, 3, 2}) append_number(matrix += matrix.size() == 1 ? "" : " ", (*frame.stress)[c]);
    entry(keys_.stress, matrix + "\"");
  }
  const auto text = [&](const std::string& key, const std::string& value) {
    if (!value.empty() && !key.empty()) entry(key, quote_value(value));
  };
  text(keys_.config_type, frame.config_type);
  text(keys_.group, frame.group);
  text(keys_.head, frame.head);
  const auto weight = [&](const std::string& key, double value) {
    if (value != 1.0 && !key.empty()) entry(key, number_text(value));
  };
  weight(keys_.weight, frame.weights.config);
  weight(keys_.energy_weight, frame.weights.energy);
  weight(keys_.forces_weight, frame.weights.forces);
  weight(keys_.stress_weight, frame.weights.stress);
  buffer_ += " pbc=\"";
  for (int k = 0; k < 3; ++k) buffer_ += std::string(k == 0 ? "" : " ") + (s.pbc[k] ? "T" : "F");
  buffer_ += "\"\n";

  for (std::size_t i = 0; i < n; ++i) {
    buffer_ += element_symbol(s.numbers[i]);
    append(buffer_, s.positions[i]);
    if (forces) append(buffer_, frame.forces[i]);
    if (charges) buffer_ += ' ', append_number(buffer_, frame.charges[i]);
    buffer_ += '\n';
  }
  ++frames_;
  if (buffer_.size() >= block_bytes) flush();
}

void ExtxyzWriter::write_text(std::string_view frame) {
  buffer_ += frame;
  if (!frame.empty() && frame.back() != '\n') buffer_ += '\n';
  ++frames_;
  if (buffer_.size() >= block_bytes) flush();
}

void ExtxyzWriter::flush() {
  out_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void ExtxyzWriter::commit() {
  flush();
  out_.commit();
}

}  // namespace adatom::datasets

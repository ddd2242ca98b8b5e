// SPDX-License-Identifier: MIT
#include "datasets/extxyz_reader.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "adatom/elements.hpp"

namespace adatom::datasets {
namespace {

constexpr std::size_t most_names = 1000;
constexpr std::int64_t most_atoms = 100'000'000;

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

void count(std::map<std::string, std::int64_t>& names, const std::string& name) {
  const auto found = names.find(name);
  if (found != names.end())
    ++found->second;
  else if (names.size() < most_names)
    names.emplace(name, 1);
}

std::string list(const std::map<std::string, std::int64_t>& names) {
  std::string text;
  int listed = 0;
  for (const auto& [name, frames] : names) {
    if (++listed > 30) return text + ", ...";
    text += (text.empty() ? "" : ", ") + name;
  }
  return text.empty() ? "none" : text;
}

/// Of 6 or 9 numbers; the symmetric part of the latter.
Voigt to_voigt(const std::vector<double>& m) {
  if (m.size() == 6) return {m[0], m[1], m[2], m[3], m[4], m[5]};
  return {m[0], m[4], m[8], 0.5 * (m[5] + m[7]), 0.5 * (m[2] + m[6]), 0.5 * (m[1] + m[3])};
}

/// The default name and what else is common for the same label.
struct Alias {
  std::string_view name, other;
};
constexpr Alias aliases[] = {{"forces", "force"}, {"virial", "virials"}, {"charges", "charge"}, {"species", "element"}, {"species", "symbol"}};

}  // namespace

ExtxyzReader::ExtxyzReader(const std::filesystem::path& file, const LabelKeys& keys) : file_(file), keys_(keys), lines_(file) {}

ExtxyzReader::ExtxyzReader(const std::filesystem::path& file, const LabelKeys& keys, ByteSource text, bool has_lines)
    : file_(file), keys_(keys), lines_(file, std::move(text)), has_lines_(has_lines) {}

std::string ExtxyzReader::line_text(const std::string& before, std::int64_t line, const std::string& after) const {
  return has_lines_ ? before + "line " + std::to_string(line) + after : "";
}

std::string ExtxyzReader::where() const { return file_.string() + ": frame " + std::to_string(index_) + line_text(" (", first_line_, ")"); }

void ExtxyzReader::fail(const std::string& what) const {
  throw DataError(file_.string() + ": frame " + std::to_string(index_) + " (counted from 0)" +
                  line_text(", ", error_line_ ? error_line_ : lines_.number(), "") + ": " + what);
}

std::vector<ReadingNote> ExtxyzReader::notes() const { return label_notes_.notes(index_ + 1, {&entries_, &columns_}, keys_); }

std::string ExtxyzReader::contents() const { return "Its comment lines have the entries " + list(entries_) + "; its columns are " + list(columns_); }

bool ExtxyzReader::next(Frame& frame) {
  std::string_view line;
  do {
    if (!lines_.next(line)) {
      if (index_ < 0 && !has_lines_) return false;  // all were left out, which was said
      if (index_ < 0) throw DataError(file_.string() + ": it has no frames: expected the number of atoms in its first line");
      check_keys();
      return false;
    }
  } while (trim(line).empty());
  ++index_;
  first_line_ = lines_.number(), begin_ = lines_.begin();
  std::int64_t n = 0;
  if (!parse_number(trim(line), n))
    fail("expected the number of atoms of a frame, found " + in_quotes(line) +
         (index_ > 0 ? ": does the frame before have more atoms than its first line says?" : ": is this an xyz file?"));
  if (n < 1 || n > most_atoms) fail("a frame of " + std::to_string(n) + " atoms, expected 1 to " + std::to_string(most_atoms));
  if (!lines_.next(line)) fail("the file ends where the comment line of this frame was expected: it is truncated");
  try {
    parse_key_values(to_utf8(line), pairs_);
  } catch (const std::invalid_argument& error) {
    fail(error.what());
  }
  other_names_ = std::any_of(pairs_.begin(), pairs_.end(), [](const KeyValue& pair) { return begins_as_other_names(pair.key); });
  read_comment(frame);
  read_columns();
  read_cell(frame);
  read_atoms(frame, n);
  read_vectors(frame);
  error_line_ = first_line_ + 1;  // what follows judges the comment line, now that cell vectors after the atoms are known too
  check_periodicity(frame.structure);
  read_stress(frame);
  read_charge(frame);
  compare_energies(frame);
  error_line_ = 0;
  for (const KeyValue& pair : pairs_)
    if (!pair.bare) count(entries_, pair.key);
  for (const Column& column : table_) count(columns_, column.name);
  return true;
}

const KeyValue* ExtxyzReader::find_exactly(const std::string& key) const {
  const KeyValue* found = nullptr;
  for (const KeyValue& pair : pairs_) {
    if (pair.bare || pair.key != key) continue;
    if (found && found->value != pair.value)
      fail("the key " + in_quotes(key) + " stands twice, as " + in_quotes(found->value) + " and " + in_quotes(pair.value));
    found = &pair;
  }
  return found;
}

const KeyValue* ExtxyzReader::find(const std::string& key) const {
  if (key.empty()) return nullptr;
  if (const KeyValue* found = find_exactly(key)) return found;
  for (const auto& [name, other] : aliases)
    if (key == name)
      if (const KeyValue* pair = find(std::string(other))) return pair;
  for (const char* special : {"Lattice", "Properties", "pbc"})
    if (key == special)
      for (const KeyValue& pair : pairs_)
        if (!pair.bare && same_ignoring_case(pair.key, key)) return &pair;
  return nullptr;
}

/// Whether other names are looked for: nobody named the key.
bool ExtxyzReader::automatic(Label label, const std::string& key) const { return key == usual_name(label) && !keys_.named.count(usual_name(label)); }

const KeyValue* ExtxyzReader::find_label(Label label, const std::string& key) const {
  const bool search = automatic(label, key);
  if (search && label == Label::energy && keys_.free_energy)
    if (const KeyValue* pair = find("free_energy")) return pair;
  const KeyValue* pair = find(key);
  if (pair || !search || !other_names_) return pair;
  for (const std::string& name : other_names(label))
    if (const KeyValue* other = find_exactly(name)) return other;
  return nullptr;
}

const ExtxyzReader::Column* ExtxyzReader::find_forces() const {
  const Column* column = find_column(keys_.forces);
  if (column || !automatic(Label::forces, keys_.forces)) return column;
  for (const std::string& name : other_names(Label::forces))
    if (const Column* other = find_column(name)) return other;
  return nullptr;
}

const ExtxyzReader::Column* ExtxyzReader::find_column(const std::string& name) const {
  if (name.empty()) return nullptr;
  for (const Column& column : table_)
    if (column.name == name) return &column;
  for (const auto& [known, other] : aliases)
    if (name == known)
      for (const Column& column : table_)
        if (column.name == other) return &column;
  return nullptr;
}

double ExtxyzReader::read_number(const KeyValue& pair) {
  if (!parse_numbers(pair.value, numbers_) || numbers_.size() != 1)
    fail("the key " + in_quotes(pair.key) + " has the value " + in_quotes(pair.value) + ", expected a number");
  return numbers_[0];
}

void ExtxyzReader::read_comment(Frame& frame) {
  frame.structure.cell = {};
  frame.structure.pbc = {};
  frame.energy.reset();
  frame.stress.reset();
  energy_ = find_label(Label::energy, keys_.energy);
  if (energy_) {
    frame.energy = read_number(*energy_);
    label_notes_.read(Label::energy, energy_->key, index_);
  }
  const auto read_text = [this](const std::string& key, std::string& value) {
    const KeyValue* pair = find(key);
    value = pair ? pair->value : std::string();
  };
  read_text(keys_.config_type, frame.config_type);
  read_text(keys_.group, frame.group);
  read_text(keys_.head, frame.head);
  const auto read_weight = [this](const std::string& key, double& value) {
    const KeyValue* pair = find(key);
    value = pair ? read_number(*pair) : 1.0;
  };
  read_weight(keys_.weight, frame.weights.config);
  read_weight(keys_.energy_weight, frame.weights.energy);
  read_weight(keys_.forces_weight, frame.weights.forces);
  read_weight(keys_.stress_weight, frame.weights.stress);
}

void ExtxyzReader::read_columns() {
  const KeyValue* pair = find("Properties");
  const std::string properties = pair ? pair->value : "species:S:1:pos:R:3";
  announced_ = pair != nullptr;
  if (!table_.empty() && properties == properties_) return;
  table_.clear();
  properties_.clear();
  std::vector<std::string> fields(1);
  for (const char c : properties) {
    if (c == ':')
      fields.emplace_back();
    else
      fields.back() += c;
  }
  if (fields.size() % 3 != 0) fail("Properties=" + in_quotes(properties) + ": expected name:type:columns for each, as in species:S:1:pos:R:3");
  int first = 0;
  for (std::size_t f = 0; f < fields.size(); f += 3) {
    Column column;
    column.name = fields[f];
    column.type = fields[f + 1].size() == 1 ? fields[f + 1][0] : '?';
    std::int64_t columns = 0;
    if (std::string_view("SRIL").find(column.type) == std::string_view::npos)
      fail("Properties: " + in_quotes(fields[f]) + " has the type " + in_quotes(fields[f + 1]) + ", expected S, R, I or L");
    if (!parse_number(fields[f + 2], columns) || columns < 1 || columns > 10000)
      fail("Properties: " + in_quotes(fields[f]) + " has " + in_quotes(fields[f + 2]) + " columns, expected a number from 1");
    if (std::any_of(table_.begin(), table_.end(), [&](const Column& other) { return other.name == column.name; }))
      fail("Properties names " + in_quotes(column.name) + " twice");
    column.count = static_cast<int>(columns), column.first = first;
    first += column.count;
    table_.push_back(column);
  }
  const auto check = [this](const Column* column, int expected) {
    if (column && column->count != expected)
      fail("Properties: " + in_quotes(column->name) + " has " + std::to_string(column->count) + " columns, expected " + std::to_string(expected));
  };
  if (!find_column("pos")) fail("Properties=" + in_quotes(properties) + " has no positions: expected pos:R:3");
  if (!find_column("species") && !find_column("Z")) fail("Properties=" + in_quotes(properties) + " has no elements: expected species:S:1 or Z:I:1");
  check(find_column("pos"), 3), check(find_column("species"), 1), check(find_column("Z"), 1);
  check(find_forces(), 3), check(find_column(keys_.charges), 1);
  properties_ = properties;
}

int ExtxyzReader::element(std::string_view word, bool as_number) const {
  std::int64_t number = 0;
  if (parse_number(word, number)) {
    if (number < 1 || number > max_atomic_number)
      fail("atomic number " + std::to_string(number) + " is no element: expected 1 to " + std::to_string(max_atomic_number));
    return static_cast<int>(number);
  }
  if (as_number) fail("column Z has " + in_quotes(word) + ", expected an atomic number");
  std::string symbol(word);
  for (std::size_t i = 0; i < symbol.size(); ++i) {
    const auto c = static_cast<unsigned char>(symbol[i]);
    symbol[i] = static_cast<char>(i == 0 ? std::toupper(c) : std::tolower(c));
  }
  try {
    return atomic_number(symbol);
  } catch (const std::invalid_argument& error) {
    fail(symbol == "D" || symbol == "T" ? error.what() : in_quotes(word) + " is no chemical symbol");
  }
}

void ExtxyzReader::read_atoms(Frame& frame, std::int64_t n) {
  const Column *species = find_column("species"), *number = find_column("Z"), *pos = find_column("pos");
  const Column *forces = find_forces(), *charges = find_column(keys_.charges);
  std::vector<const Column*> others;  // further sets of forces
  if (forces && automatic(Label::forces, keys_.forces))
    for (const Column& column : table_)
      if (&column != forces && column.count == 3)
        for (const std::string& name : other_names(Label::forces))
          if (column.name == name) others.push_back(&column);
  std::vector<double> differences(others.size());
  const Column& elements = number ? *number : *species;
  const auto columns = static_cast<std::size_t>(table_.back().first + table_.back().count);
  Structure& s = frame.structure;
  s.numbers.clear(), s.positions.clear(), frame.forces.clear(), frame.charges.clear();
  std::string last_symbol;
  int last_number = 0;
  const auto read = [this](int column, const char* what) {
    double value;
    if (!parse_number(words_[column], value))
      fail("column " + std::to_string(column + 1) + " (" + what + ") has " + in_quotes(words_[column]) + ", expected a number");
    return value;
  };
  const auto read_vector = [&](const Column& column, const char* what) {
    return Vector3{read(column.first, what), read(column.first + 1, what), read(column.first + 2, what)};
  };
  std::string_view line;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!lines_.next(line)) fail("the file ends after " + std::to_string(i) + " of the frame's " + std::to_string(n) + " atoms: it is truncated");
    words_.clear();
    for (std::string_view rest = line, word; !(word = next_word(rest)).empty();) words_.push_back(word);
    if (words_.size() < columns || (announced_ && words_.size() > columns))
      fail("atom " + std::to_string(i) + " of " + std::to_string(n) + " has " + std::to_string(words_.size()) + " columns, expected " +
           std::to_string(columns) + " (" + properties_ + ")" + (words_.size() <= 1 ? ": does the frame have fewer atoms than its first line says?" : ""));
    const std::string_view word = words_[elements.first];
    if (last_number == 0 || word != last_symbol) {
      last_number = element(word, number != nullptr);
      last_symbol = word;
    }
    s.numbers.push_back(last_number);
    s.positions.push_back(read_vector(*pos, "position"));
    if (forces) frame.forces.push_back(read_vector(*forces, "force"));
    for (std::size_t k = 0; k < others.size(); ++k)
      for (int x = 0; x < 3; ++x)
        if (double value; parse_number(words_[static_cast<std::size_t>(others[k]->first + x)], value))
          differences[k] = std::max(differences[k], std::abs(value - frame.forces.back()[static_cast<std::size_t>(x)]));
    if (charges) frame.charges.push_back(read(charges->first, "charge"));
  }
  if (forces) label_notes_.read(Label::forces, forces->name, index_);
  for (std::size_t k = 0; k < others.size(); ++k) label_notes_.beside(Label::forces, forces->name, others[k]->name, differences[k], index_);
}

/// The energy that was read with those that stand beside it under another known name.
void ExtxyzReader::compare_energies(const Frame& frame) {
  if (!energy_ || !automatic(Label::energy, keys_.energy)) return;
  const auto compare = [&](const std::string& name) {
    if (name == energy_->key) return;
    const KeyValue* other = find_exactly(name);
    if (!other || !parse_numbers(other->value, numbers_) || numbers_.size() != 1) return;
    label_notes_.beside(Label::energy, energy_->key, name, std::abs(numbers_[0] - *frame.energy) / static_cast<double>(frame.size()), index_);
  };
  compare(usual_name(Label::energy));
  if (keys_.free_energy) compare("free_energy");
  if (!other_names_) return;
  for (const std::string& name : other_names(Label::energy)) compare(name);
}

void ExtxyzReader::read_charge(Frame& frame) {
  const auto number_of = [&](const char* name, double& value) {
    const KeyValue* pair = find_exactly(name);
    if (!pair || !parse_numbers(pair->value, numbers_) || numbers_.size() != 1) return false;
    value = numbers_[0];
    return true;
  };
  double value = 0;
  for (const char* name : {"total_charge", "charge"})
    if (number_of(name, value) && value != 0) {
      label_notes_.charge(value, is_isolated_atom(frame));
      if (frame.size() == 1 && frame.charges.empty()) frame.charges.push_back(value);
      break;
    }
  if (frame.size() > 1)
    for (const char* name : {"total_spin", "spin", "multiplicity"})
      if (number_of(name, value)) {
        label_notes_.spin(value);
        break;
      }
}

void ExtxyzReader::read_cell(Frame& frame) {
  Structure& s = frame.structure;
  if (const KeyValue* lattice = find("Lattice")) {
    if (!parse_numbers(lattice->value, numbers_) || (numbers_.size() != 9 && numbers_.size() != 3))
      fail("Lattice=" + in_quotes(lattice->value) + ": expected the 9 numbers a_x a_y a_z b_x b_y b_z c_x c_y c_z, or 3 edges of an orthorhombic cell");
    for (int k = 0; k < 3; ++k)
      for (int x = 0; x < 3; ++x) s.cell[k][x] = numbers_.size() == 9 ? numbers_[3 * k + x] : k == x ? numbers_[k] : 0.0;
    s.pbc.fill(std::any_of(numbers_.begin(), numbers_.end(), [](double a) { return a != 0; }));
  }
  if (const KeyValue* pbc = find("pbc")) {
    std::string value = pbc->value;
    std::replace_if(
        value.begin(), value.end(), [](char c) { return c == ',' || c == '[' || c == ']'; }, ' ');
    std::vector<bool> flags;
    bool flag = false, good = true;
    std::string_view rest = value;
    for (std::string_view word = next_word(rest); !word.empty(); word = next_word(rest)) {
      good = good && parse_bool(word, flag);
      flags.push_back(flag);
    }
    if (good && flags.size() == 1) flags.assign(3, flags[0]);
    if (!good || flags.size() != 3) fail("pbc=" + in_quotes(pbc->value) + ": expected three of T and F, as in pbc=\"T T F\"");
    for (int k = 0; k < 3; ++k) s.pbc[k] = flags[k];
  }
}

/// ASE's vec_cell: the cell after the atoms.
void ExtxyzReader::read_vectors(Frame& frame) {
  std::string_view line;
  for (int k = 0; k < 3 && lines_.next(line); ++k) {
    std::string_view rest = line;
    if (next_word(rest) != "VEC" + std::to_string(k + 1)) {
      lines_.put_back();
      break;
    }
    for (double& component : frame.structure.cell[k])
      if (!parse_number(next_word(rest), component)) fail("expected the three components of a cell vector, found " + in_quotes(line));
    frame.structure.pbc[k] = true;
  }
}

void ExtxyzReader::check_periodicity(const Structure& s) const {
  for (int k = 0; k < 3; ++k)
    if (s.pbc[k] && s.cell[k] == Vector3{})
      fail("it is periodic along vector " + std::to_string(k) + " (pbc), but there is no Lattice or this vector is zero: give the cell, or set pbc to F");
}

bool ExtxyzReader::read_tensor(const KeyValue* pair, Voigt& tensor) {
  if (!pair) return false;
  if (!parse_numbers(pair->value, numbers_) || (numbers_.size() != 9 && numbers_.size() != 6))
    fail("the key " + in_quotes(pair->key) + " has the value " + in_quotes(pair->value) + ", expected 9 numbers (3x3) or 6 (xx yy zz yz xz xy)");
  tensor = to_voigt(numbers_);
  if (numbers_.size() == 6) return true;
  const auto& m = numbers_;
  double largest = 0;
  for (const double a : m) largest = std::max(largest, std::abs(a));
  if (std::max({std::abs(m[5] - m[7]), std::abs(m[2] - m[6]), std::abs(m[1] - m[3])}) > 0.05 * largest + 1e-6)
    fail("the key " + in_quotes(pair->key) + " has a tensor that is not symmetric: " + in_quotes(pair->value));
  return true;
}

void ExtxyzReader::read_stress(Frame& frame) {
  Voigt stress{}, virial{};
  const KeyValue *stress_pair = find(keys_.stress), *virial_pair = find(keys_.virial);
  if (!stress_pair && !virial_pair) stress_pair = find_label(Label::stress, keys_.stress);
  if (!stress_pair && !virial_pair) virial_pair = find_label(Label::virial, keys_.virial);
  const bool has_stress = read_tensor(stress_pair, stress), has_virial = read_tensor(virial_pair, virial);
  if (!has_stress && !has_virial) return;
  const double cell_volume = volume(frame.structure.cell);
  if (!(cell_volume > 0)) {
    const auto zero = [](const Voigt& t) { return std::all_of(t.begin(), t.end(), [](double a) { return a == 0; }); };
    if (zero(stress) && zero(virial)) return;
    fail("it has a " + std::string(has_stress ? "stress" : "virial") + ", but no cell with a volume: give a Lattice, or do not read it (empty key name)");
  }
  if (has_virial) {
    double scale = 0, difference = 0;
    for (int c = 0; c < 6; ++c) {
      virial[c] /= -cell_volume;  // now a stress
      scale = std::max(scale, std::abs(stress[c]));
      difference = std::max(difference, std::abs(stress[c] - virial[c]));
    }
    if (has_stress && difference > 0.02 * scale + 1e-5)
      fail("stress and -virial/volume differ by up to " + number_text(difference) +
           " eV/angstrom^3: their units or signs do not fit; read only one of them (empty key name for the other)");
  }
  frame.stress = has_stress ? stress : virial;
  if (has_stress) label_notes_.read(Label::stress, stress_pair->key, index_);
  if (has_virial) label_notes_.read(Label::virial, virial_pair->key, index_);
  if (has_stress && automatic(Label::stress, keys_.stress)) compare_stresses(frame, Label::stress, *stress_pair);
  if (has_virial && automatic(Label::virial, keys_.virial)) compare_stresses(frame, Label::virial, *virial_pair);
}

/// The stress with those that stand beside it under another known name.
void ExtxyzReader::compare_stresses(const Frame& frame, Label label, const KeyValue& read) {
  if (!other_names_) return;
  const double factor = label == Label::stress ? 1.0 : -1.0 / volume(frame.structure.cell);
  for (const std::string& name : other_names(label)) {
    const KeyValue* pair = name == read.key ? nullptr : find_exactly(name);
    if (!pair || !parse_numbers(pair->value, numbers_) || (numbers_.size() != 9 && numbers_.size() != 6)) continue;
    const Voigt other = to_voigt(numbers_);
    double difference = 0;
    for (std::size_t c = 0; c < other.size(); ++c) difference = std::max(difference, std::abs(factor * other[c] - (*frame.stress)[c]));
    label_notes_.beside(label, read.key, name, difference, index_);
  }
}

void ExtxyzReader::check_keys() const {
  const LabelKeys defaults;
  const auto check = [&](const char* label, const std::string& key, const std::string& usual, const std::map<std::string, std::int64_t>& names,
                         const char* kind) {
    if (key.empty() || key == usual || names.count(key) || names.size() >= most_names) return;
    throw DataError(file_.string() + ": the " + label + " key " + in_quotes(key) + " is in none of its " + std::to_string(index_ + 1) + " frames; " + kind +
                    " that are: " + list(names));
  };
  check("energy", keys_.energy, defaults.energy, entries_, "entries");
  check("forces", keys_.forces, defaults.forces, columns_, "columns");
  check("stress", keys_.stress, defaults.stress, entries_, "entries");
  check("virial", keys_.virial, defaults.virial, entries_, "entries");
  check("charges", keys_.charges, defaults.charges, columns_, "columns");
  check("config_type", keys_.config_type, defaults.config_type, entries_, "entries");
  check("group", keys_.group, defaults.group, entries_, "entries");
  check("head", keys_.head, defaults.head, entries_, "entries");
  check("weight", keys_.weight, defaults.weight, entries_, "entries");
  check("energy weight", keys_.energy_weight, defaults.energy_weight, entries_, "entries");
  check("forces weight", keys_.forces_weight, defaults.forces_weight, entries_, "entries");
  check("stress weight", keys_.stress_weight, defaults.stress_weight, entries_, "entries");
}

}  // namespace adatom::datasets

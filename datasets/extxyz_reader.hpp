// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "datasets/frame_source.hpp"
#include "datasets/key_values.hpp"
#include "datasets/label_names.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {

/// Reads extxyz, ASE's dialects of it and plain xyz, one frame at a time.
///
///     8                                                          number of atoms
///     Lattice="a_x a_y a_z b_x ... c_z" Properties=species:S:1:pos:R:3:forces:R:3 energy=-34.1 pbc="T T F"
///     Cu 0.0 0.0 0.0  0.1 0.0 0.0                                columns as Properties says, in any order
///
/// - Values in quotes or brackets; Lattice of 9 numbers (rows are the vectors) or 3 (orthorhombic); Fortran's D exponents; Windows line ends.
/// - `pbc` is true along all vectors if there is a Lattice (that is not zero), else false, unless it is given. Lines VEC1, VEC2, VEC3 after the
///   atoms (ASE's vec_cell) are cell vectors, periodic.
/// - Elements by symbol in any case (`species`, `element`, `symbol`) or atomic number (`Z`, or a number in the species column).
/// - Without Properties the columns are species and pos; further columns are ignored.
/// - A stress or a virial that is zero, in a frame whose cell has no volume, is no label; any other there is an error. Where both are given
///   they must agree.
/// - The total charge (`charge`, `total_charge`) of a frame of one atom without a column of charges is its atom's charge.
/// - Bytes of the comment line that are not UTF-8 are taken for Latin-1.
/// - Lattice, Properties and pbc are found in any case (a `lattice=` that is ignored would silently make a molecule of a crystal).
///
/// Numbers that are not finite are read, and found by `defects`. Everything else that does not fit throws DataError with file, frame and line.
class ExtxyzReader : public FrameSource {
 public:
  explicit ExtxyzReader(const std::filesystem::path& file, const LabelKeys& keys = {});
  /// A text that comes from elsewhere; `file` is for messages. has_lines: the lines of `file` (if it is compressed), else it is of another format.
  ExtxyzReader(const std::filesystem::path& file, const LabelKeys& keys, ByteSource text, bool has_lines);

  /// At the end of the file, throws DataError if a key was changed from its default but is in no frame, and lists the keys that are.
  bool next(Frame& frame) override;
  std::int64_t index() const override { return index_; }
  std::string where() const override;
  std::vector<ReadingNote> notes() const override;
  std::string contents() const override;

  std::uint64_t begin() const { return begin_; }      ///< first byte of the last frame in the file
  std::uint64_t end() const { return lines_.end(); }  ///< byte after it

  /// How many of the frames so far have each entry of the comment line, and each column; the first 1000 names.
  const std::map<std::string, std::int64_t>& entries() const { return entries_; }
  const std::map<std::string, std::int64_t>& columns() const { return columns_; }

 private:
  struct Column {
    std::string name;
    char type = 'R';
    int count = 1, first = 0;
  };

  [[noreturn]] void fail(const std::string& what) const;
  const KeyValue* find(const std::string& key) const;
  const KeyValue* find_label(Label label, const std::string& key) const;
  const KeyValue* find_exactly(const std::string& key) const;
  const Column* find_column(const std::string& name) const;
  const Column* find_forces() const;
  bool automatic(Label label, const std::string& key) const;
  void read_charge(Frame& frame);
  void compare_energies(const Frame& frame);
  void compare_stresses(const Frame& frame, Label label, const KeyValue& read);
  std::string line_text(const std::string& before, std::int64_t line, const std::string& after) const;
  void read_comment(Frame& frame);
  void read_columns();
  void read_atoms(Frame& frame, std::int64_t n);
  void read_vectors(Frame& frame);
  void read_cell(Frame& frame);
  void check_periodicity(const Structure& structure) const;
  void read_stress(Frame& frame);
  double read_number(const KeyValue& pair);
  bool read_tensor(const KeyValue* pair, Voigt& tensor);
  int element(std::string_view word, bool as_number) const;
  void check_keys() const;

  std::filesystem::path file_;
  LabelKeys keys_;
  LineReader lines_;
  bool has_lines_ = true;
  std::int64_t index_ = -1, first_line_ = 0;
  std::int64_t error_line_ = 0;  // for messages; 0: the last line read
  std::uint64_t begin_ = 0;
  std::vector<KeyValue> pairs_;
  bool other_names_ = false;          // whether one of their keys begins as those of other_names() do
  const KeyValue* energy_ = nullptr;  // of these
  std::string properties_;            // of the columns below
  std::vector<Column> table_;
  bool announced_ = false;  // by Properties, so that a line must have exactly these columns
  std::vector<std::string_view> words_;
  std::vector<double> numbers_;
  std::map<std::string, std::int64_t> entries_, columns_;
  LabelNotes label_notes_;
};

}  // namespace adatom::datasets

// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "datasets/frame_source.hpp"

/// The names that labels have in the files of the world, and what is said of them.
namespace adatom::datasets {

enum class Label { energy, forces, stress, virial };
inline constexpr int label_kinds = 4;

const std::string& usual_name(Label label);

/// What else a label is called where the usual name is absent, in the order of search: REF_ (MACE's default), ref_, dft_, DFT_ and the usual names.
const std::vector<std::string>& other_names(Label label);

/// Whether a name begins as those of other_names do.
bool begins_as_other_names(std::string_view name);

/// The label that a name promises, such as `dft_forces`, `total_energy`, `virials`; weights and kinetic energies are none.
std::optional<Label> promised_label(std::string_view name);

/// Collects under which names the labels of a file were read, what was not, and where the two differ.
class LabelNotes {
 public:
  void read(Label label, const std::string& name, std::int64_t frame);
  /// A label that stands beside the one that is read, under another known name. `difference`: eV per atom, eV/angstrom or eV/angstrom^3.
  void beside(Label label, const std::string& read, const std::string& other, double difference, std::int64_t frame);
  void charge(double charge, bool alone);  ///< total charge of a frame; alone: an isolated atom
  void spin(double spin);

  /// `names`: of all entries and columns, with the number of frames that have them.
  std::vector<ReadingNote> notes(std::int64_t frames, const std::vector<const std::map<std::string, std::int64_t>*>& names, const LabelKeys& keys) const;

 private:
  struct Use {
    std::int64_t frames = 0, first = 0;
  };
  struct Beside {
    std::string read;
    double difference = 0.0;
    std::int64_t frames = 0, first = 0;  // that differ
  };
  using Uses = std::map<std::string, Use, std::less<>>;

  void note_choice(std::vector<ReadingNote>& found, std::int64_t frames, const LabelKeys& keys) const;
  void note_mixtures(std::vector<ReadingNote>& found) const;
  void note_differences(std::vector<ReadingNote>& found) const;
  void note_charges(std::vector<ReadingNote>& found, std::int64_t frames) const;

  Uses uses_[label_kinds];
  std::map<std::string, Beside> beside_[label_kinds];
  std::int64_t charged_ = 0, ions_ = 0;
  double largest_ = 0.0;
  std::optional<std::pair<double, double>> spins_;  // least and largest
};

}  // namespace adatom::datasets

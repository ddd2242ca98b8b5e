// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "datasets/frame.hpp"

namespace adatom::datasets {

/// Names under which extxyz files keep their labels. An empty name is not read.
/// Energies and stresses are entries of the comment line, forces and charges columns.
/// Where a frame lacks the usual name of its energy, forces or stress, and no key was named, those of other_names (label_names.hpp) are taken.
struct LabelKeys {
  std::string energy = "energy";    ///< and before it "free_energy", whose derivative the forces are, if `free_energy` is set
  std::string forces = "forces";    ///< and "force"
  std::string stress = "stress";    ///< 9 numbers (3x3) or 6 (Voigt)
  std::string virial = "virial";    ///< and "virials"; 9 or 6 numbers, eV: stress = -virial / volume
  std::string charges = "charges";  ///< and "charge"
  std::string config_type = "config_type";
  std::string group = "group";
  std::string head = "head";
  std::string weight = "config_weight";
  std::string energy_weight = "config_energy_weight";
  std::string forces_weight = "config_forces_weight";
  std::string stress_weight = "config_stress_weight";
  bool free_energy = true;
  std::set<std::string> named;  ///< labels ("energy", "forces", ...) whose key was named, be it the usual one: no other name is read in its place
};

/// What a person should know of how a file was read.
struct ReadingNote {
  enum class Kind {
    unread,   ///< something that is not read, but looks like a label
    choice,   ///< a label was found under a name that nobody gave
    warning,  ///< probably wrong
  };
  Kind kind = Kind::unread;
  std::string code;     ///< short and fixed, for programs
  std::string message;  ///< without the name of the file
  std::string advice;
};

/// Frames one after the other: memory is that of one frame.
class FrameSource {
 public:
  virtual ~FrameSource() = default;

  /// Reads the next frame into `frame`, whose memory is used again. False after the last one. Throws DataError.
  virtual bool next(Frame& frame) = 0;

  virtual std::int64_t index() const = 0;  ///< of the last frame; -1 before the first
  virtual std::string where() const = 0;   ///< the last frame, for messages: "train.extxyz: frame 3 (line 57)"

  virtual std::vector<ReadingNote> notes() const { return {}; }  ///< of the frames so far
  virtual std::string contents() const { return {}; }            ///< names of entries and columns so far, as a sentence for messages; may be empty
};

/// Opens an extxyz file or a training cache, told apart by the first bytes. `keys` matter for extxyz only: a cache has its labels by meaning.
std::unique_ptr<FrameSource> open_frames(const std::filesystem::path& file, const LabelKeys& keys = {});

}  // namespace adatom::datasets

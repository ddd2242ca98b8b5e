// SPDX-License-Identifier: MIT
// adatom._training: the trainer. `import torch` comes first: it loads the libraries that this module is linked with.
#include <ATen/Parallel.h>
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "datasets/extxyz_reader.hpp"
#include "python/src/byte_source.hpp"
#include "training/process_group.hpp"
#include "training/trainer.hpp"

namespace py = pybind11;
using namespace adatom::training;
using nlohmann::json;

namespace {

using TextOpener = std::function<py::object(const std::string& path)>;

/// A file that only Python reads: its text as extxyz, and whether that has the lines of the file. Null where it gives None.
std::unique_ptr<adatom::datasets::FrameSource> open_text(const TextOpener& open, const std::string& path, const adatom::datasets::LabelKeys& keys) {
  const py::gil_scoped_acquire gil;
  const py::object text = open(path);
  if (text.is_none()) return nullptr;
  const auto [pieces, has_lines] = text.cast<std::pair<py::iterator, bool>>();
  return std::make_unique<adatom::datasets::ExtxyzReader>(path, keys, byte_source(pieces), has_lines);
}

class PyTrainer {
 public:
  PyTrainer(const std::string& config, bool resume, const std::string& group, bool on_device, const TextOpener& open)
      : config_(parse_config(json::parse(config))) {
    if (open) config_.data.open = [open](const std::string& path, const adatom::datasets::LabelKeys& keys) { return open_text(open, path, keys); };
    if (config_.threads > 0) at::set_num_threads(config_.threads);
    trainer_ = std::make_unique<Trainer>(config_, group.empty() ? nullptr : process_group(group, on_device), resume);
  }

  bool run(const std::function<bool(int, int, int)>& progress, const std::function<bool(const std::string&)>& report) {
    py::gil_scoped_release release;
    return trainer_->run(
        [&](int epoch, int step, int steps) {
          py::gil_scoped_acquire acquire;
          if (PyErr_CheckSignals() != 0) {  // Ctrl-C: the run stops after this step with a checkpoint, then Python sees the interrupt
            interrupted_ = true;
            PyErr_Clear();
          }
          const bool go_on = !progress || unless_interrupted([&] { return progress(epoch, step, steps); });
          return go_on && !interrupted_;
        },
        [&](const EpochReport& r) {
          py::gil_scoped_acquire acquire;
          return !report || unless_interrupted([&] { return report(describe(r).dump()); });
        });
  }
  bool interrupted() const { return interrupted_; }

  std::string test(std::size_t k) {
    py::gil_scoped_release release;
    return describe(trainer_->test(k)).dump();
  }

  py::dict parity(int k, std::size_t most_atoms) {
    std::pair<Parity, std::size_t> found;
    {
      py::gil_scoped_release release;
      found = trainer_->parity(k, most_atoms);
    }
    const auto& [sample, of] = found;
    const auto rows = [](const std::vector<double>& values) {
      py::array_t<double> array({static_cast<py::ssize_t>(values.size() / 2), py::ssize_t{2}});
      std::copy(values.begin(), values.end(), array.mutable_data());
      return array;
    };
    py::dict result;
    result["energies"] = rows(sample.energies), result["forces"] = rows(sample.forces), result["stresses"] = rows(sample.stresses);
    result["numbers"] = py::array_t<double>(static_cast<py::ssize_t>(sample.numbers.size()), sample.numbers.data());
    result["configurations"] = sample.configurations, result["of"] = of;
    return result;
  }

  std::string begins() const { return trainer_->begins().dump(); }
  void close() { trainer_->close(); }
  std::string kept_errors() const { return trainer_->kept_errors().dump(); }
  const std::vector<std::string>& warnings() const { return trainer_->warnings(); }
  std::size_t parameters() const { return trainer_->model().size(); }
  std::size_t workspace_bytes() const { return trainer_->model().workspace_bytes(); }
  std::string model_path() const { return trainer_->model_path(); }

 private:
  /// What a callback returns; true where it was interrupted, which is heard after the next step.
  template <class Callback>
  bool unless_interrupted(Callback callback) {
    try {
      return callback();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) throw;
      return interrupted_ = true;
    }
  }

  RunConfig config_;
  std::unique_ptr<Trainer> trainer_;
  bool interrupted_ = false;
};

}  // namespace

PYBIND11_MODULE(_training, m) {
  m.doc() = "Training of potentials; see adatom.training";
  py::class_<PyTrainer>(m, "Trainer")
      .def(py::init<const std::string&, bool, const std::string&, bool, const TextOpener&>(), py::arg("config"), py::arg("resume") = false,
           py::arg("group") = "", py::arg("on_device") = false, py::arg("open") = nullptr, py::call_guard<py::gil_scoped_release>())
      .def("run", &PyTrainer::run, py::arg("progress") = nullptr, py::arg("report") = nullptr)
      .def("test", &PyTrainer::test, py::arg("index"))
      .def("parity", &PyTrainer::parity, py::arg("index"), py::arg("most_atoms"))
      .def("close", &PyTrainer::close)
      .def_property_readonly("begins", &PyTrainer::begins)
      .def_property_readonly("kept_errors", &PyTrainer::kept_errors)
      .def_property_readonly("warnings", &PyTrainer::warnings)
      .def_property_readonly("interrupted", &PyTrainer::interrupted)
      .def_property_readonly("parameters", &PyTrainer::parameters)
      .def_property_readonly("workspace_bytes", &PyTrainer::workspace_bytes)
      .def_property_readonly("model_path", &PyTrainer::model_path);
  m.def(
      "resolved_config", [](const std::string& config) { return resolved(parse_config(json::parse(config))).dump(); }, py::arg("config"));
}

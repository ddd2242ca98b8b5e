// SPDX-License-Identifier: MIT
// adatom._core: the C++ API with numpy arrays. Everything else of the Python package is Python (python/adatom).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>

#include "adatom/potential.hpp"
#include "adatom/uncertainty.hpp"
#include "datasets/frame.hpp"

namespace py = pybind11;

void bind_datasets(py::module_& m);  // datasets.cpp

namespace {

using adatom::Result;
using adatom::Structure;
using adatom::Vector3;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

/// A model file that cannot be used; `RuntimeError` in Python.
struct ModelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class T>
void check_shape(const char* name, const Array<T>& array, const std::vector<py::ssize_t>& expected) {
  const bool same = static_cast<std::size_t>(array.ndim()) == expected.size() && std::equal(expected.begin(), expected.end(), array.shape());
  if (same) return;
  const auto text = [](auto begin, auto end) {
    std::string result = "(";
    for (auto n = begin; n != end; ++n) result += (n == begin ? "" : ", ") + std::to_string(*n);
    return result + ")";
  };
  throw py::value_error(std::string(name) + " has shape " + text(array.shape(), array.shape() + array.ndim()) + ", expected " +
                        text(expected.begin(), expected.end()));
}

std::vector<Vector3> to_rows(const Array<double>& array) {
  std::vector<Vector3> rows(static_cast<std::size_t>(array.shape(0)));
  if (!rows.empty()) std::copy_n(array.data(), array.size(), rows.front().data());
  return rows;
}

/// An array that owns the vector's memory: no copy.
template <std::size_t N>
py::array_t<double> to_array(std::vector<std::array<double, N>>&& rows, const std::vector<py::ssize_t>& shape_of_row) {
  std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(rows.size())};
  shape.insert(shape.end(), shape_of_row.begin(), shape_of_row.end());
  auto* owner = new std::vector<std::array<double, N>>(std::move(rows));
  py::capsule release(owner, [](void* p) { delete static_cast<std::vector<std::array<double, N>>*>(p); });
  return py::array_t<double>(shape, reinterpret_cast<const double*>(owner->data()), release);
}

py::array_t<double> to_array(std::vector<double>&& values) {
  auto* owner = new std::vector<double>(std::move(values));
  py::capsule release(owner, [](void* p) { delete static_cast<std::vector<double>*>(p); });
  return py::array_t<double>({static_cast<py::ssize_t>(owner->size())}, owner->data(), release);
}

py::array_t<double> to_matrix(std::vector<double>&& values, int columns) {
  const py::ssize_t rows = columns ? static_cast<py::ssize_t>(values.size()) / columns : 0;
  return to_array(std::move(values)).reshape({rows, static_cast<py::ssize_t>(columns)});
}

Structure to_structure(const Array<int>& numbers, const Array<double>& positions, const Array<double>& cell, const std::array<bool, 3>& pbc) {
  if (numbers.ndim() != 1) throw py::value_error("numbers has " + std::to_string(numbers.ndim()) + " dimensions, expected 1");
  check_shape("positions", positions, {numbers.shape(0), 3});
  check_shape("cell", cell, {3, 3});
  Structure structure;
  structure.numbers.assign(numbers.data(), numbers.data() + numbers.size());
  structure.positions = to_rows(positions);
  for (int a = 0; a < 3; ++a)
    for (int x = 0; x < 3; ++x) structure.cell[a][x] = cell.at(a, x);
  structure.pbc = pbc;
  return structure;
}

py::dict to_dict(Result&& result, const adatom::Request& request, int features) {
  py::dict dict;
  dict["energy"] = result.energy;
  if (request.energies) dict["energies"] = to_array(std::move(result.energies));
  if (request.forces) dict["forces"] = to_array(std::move(result.forces), {3});
  if (request.virial) dict["virial"] = py::array_t<double>({3, 3}, result.virial.data());
  if (request.virials) dict["virials"] = to_array(std::move(result.virials), {3, 3});
  if (request.uncertainty) {
    dict["energy_std"] = result.energy_std;
    dict["member_energies"] = to_array(std::move(result.member_energies));
    dict["force_std"] = to_array(std::move(result.force_std));
    dict["distances"] = to_array(std::move(result.distances));
  }
  if (request.features) dict["features"] = to_matrix(std::move(result.features), features);
  return dict;
}

/// A Potential serves one thread at a time. Python threads may share one, since evaluation runs without the GIL behind this lock.
class LockedPotential {
 public:
  explicit LockedPotential(adatom::Potential&& potential) : potential_(std::move(potential)) {}

  /// Calls `work(potential)` without the GIL.
  template <class Work>
  auto run(Work&& work) {
    const py::gil_scoped_release no_gil;
    const std::lock_guard lock(mutex_);
    return work(potential_);
  }
  const adatom::ModelInfo& info() const { return potential_.info(); }

 private:
  adatom::Potential potential_;
  std::mutex mutex_;
};

std::unique_ptr<LockedPotential> load(const std::filesystem::path& file, const adatom::LoadOptions& options) {
  const py::gil_scoped_release no_gil;
  try {
    return std::make_unique<LockedPotential>(adatom::Potential::load(file, options));
  } catch (const std::runtime_error& error) {
    throw ModelError(error.what());
  }
}

/// Messages quote files, whose bytes need not be UTF-8; Python would raise UnicodeDecodeError instead of the error.
template <class Error>
[[noreturn]] void throw_clean(const Error& error) {
  const std::string text = error.what();
  const auto decoded = py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "backslashreplace"));
  const auto clean = decoded.cast<std::string>();
  if (clean == text) throw;
  throw Error(clean);
}

void clean_message(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(std::move(pointer));
  } catch (const adatom::datasets::DataError& error) {
    throw_clean(error);
  } catch (const ModelError& error) {
    throw_clean(error);
  } catch (const std::invalid_argument& error) {
    throw_clean(error);
  } catch (const std::runtime_error& error) {
    throw_clean<std::runtime_error>(error);
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Bindings of Adatom's C++ API; use the package adatom.";
  m.attr("__version__") = ADATOM_VERSION;
  py::register_exception<ModelError>(m, "ModelError", PyExc_RuntimeError).attr("__doc__") = "A model file that cannot be used.";

  py::enum_<adatom::Device>(m, "Device").value("cpu", adatom::Device::cpu).value("cuda", adatom::Device::cuda);
  py::enum_<adatom::Matmul>(m, "Matmul").value("exact", adatom::Matmul::exact).value("tf32", adatom::Matmul::tf32).value("bf16", adatom::Matmul::bf16);
  py::enum_<adatom::Precision>(m, "Precision").value("float32", adatom::Precision::float32).value("float64", adatom::Precision::float64);

  py::class_<adatom::Request>(m, "Request")
      .def(py::init([](bool energies, bool forces, bool virial, bool virials, bool features, bool uncertainty) {
             return adatom::Request{energies, forces, virial, virials, features, uncertainty};
           }),
           py::kw_only(), py::arg("energies"), py::arg("forces"), py::arg("virial"), py::arg("virials"), py::arg("features"), py::arg("uncertainty"));

  py::class_<Structure>(m, "Structure").def(py::init(&to_structure), py::arg("numbers"), py::arg("positions"), py::arg("cell"), py::arg("pbc"));

  py::class_<adatom::ModelInfo>(m, "ModelInfo")
      .def_readonly("cutoff", &adatom::ModelInfo::cutoff)
      .def_readonly("features", &adatom::ModelInfo::features)
      .def_readonly("members", &adatom::ModelInfo::members)
      .def_readonly("elements", &adatom::ModelInfo::elements)
      .def_readonly("heads", &adatom::ModelInfo::heads)
      .def_readonly("head", &adatom::ModelInfo::head)
      .def_readonly("architecture_json", &adatom::ModelInfo::architecture_json)
      .def_readonly("provenance_json", &adatom::ModelInfo::provenance_json)
      .def_readonly("no_uncertainty", &adatom::ModelInfo::no_uncertainty)
      .def_readonly("uncertainty_json", &adatom::ModelInfo::uncertainty_json)
      .def_readonly("backend", &adatom::ModelInfo::backend)
      .def_readonly("summary", &adatom::ModelInfo::summary);

  py::class_<adatom::Counters>(m, "Counters")
      .def_readonly("bytes_per_step", &adatom::Counters::bytes_per_step)
      .def_readonly("flops_per_step", &adatom::Counters::flops_per_step)
      .def_readonly("workspace_bytes", &adatom::Counters::workspace_bytes)
      .def_readonly("launches_per_step", &adatom::Counters::launches_per_step);

  py::class_<LockedPotential>(m, "Potential")
      .def(py::init([](const std::filesystem::path& file, adatom::Device device, adatom::Precision precision, int threads, bool splines,
                       const std::string& head, const std::vector<int>& elements, adatom::Matmul matmul) {
             return load(file, {device, precision, threads, splines, head, elements, matmul});
           }),
           py::arg("file"), py::kw_only(), py::arg("device"), py::arg("precision"), py::arg("threads"), py::arg("splines"), py::arg("head"),
           py::arg("elements"), py::arg("matmul"))
      .def_property_readonly("info", &LockedPotential::info, py::return_value_policy::reference_internal)
      .def(
          "evaluate",
          [](LockedPotential& self, const Structure& structure, const adatom::Request& request) {
            return to_dict(self.run([&](adatom::Potential& potential) { return potential.evaluate(structure, request); }), request, self.info().features);
          },
          py::arg("structure"), py::arg("request"))
      .def(
          "evaluate_batch",
          [](LockedPotential& self, const std::vector<Structure>& structures, const adatom::Request& request) {
            py::list dicts;
            for (Result& result : self.run([&](adatom::Potential& potential) { return potential.evaluate(structures, request); }))
              dicts.append(to_dict(std::move(result), request, self.info().features));
            return dicts;
          },
          py::arg("structures"), py::arg("request"))
      .def(
          "matmul_error",
          [](LockedPotential& self, const Structure& structure) {
            const adatom::MatmulError error = self.run([&](adatom::Potential& potential) { return potential.matmul_error(structure); });
            return std::pair{error.energy, error.force};
          },
          py::arg("structure"))
      .def(
          "hessian_vector",
          [](LockedPotential& self, const Structure& structure, const Array<double>& v) {
            check_shape("v", v, {static_cast<py::ssize_t>(structure.numbers.size()), 3});
            const std::vector<Vector3> rows = to_rows(v);
            return to_array(self.run([&](adatom::Potential& potential) { return potential.hessian_vector(structure, rows); }), {3});
          },
          py::arg("structure"), py::arg("v"))
      .def(
          "feature_tangents",
          [](LockedPotential& self, const Structure& structure, const Array<double>& v) {
            check_shape("v", v, {static_cast<py::ssize_t>(structure.numbers.size()), 3});
            const std::vector<Vector3> rows = to_rows(v);
            return to_matrix(self.run([&](adatom::Potential& potential) { return potential.feature_tangents(structure, rows); }), self.info().features);
          },
          py::arg("structure"), py::arg("v"))
      .def(
          "feature_forces",
          [](LockedPotential& self, const Structure& structure, const Array<double>& weights, const adatom::Request& request) {
            check_shape("weights", weights, {static_cast<py::ssize_t>(structure.numbers.size()), static_cast<py::ssize_t>(self.info().features)});
            const std::vector<double> a(weights.data(), weights.data() + weights.size());
            return to_dict(self.run([&](adatom::Potential& potential) { return potential.feature_forces(structure, a, request); }), request,
                           self.info().features);
          },
          py::arg("structure"), py::arg("weights"), py::arg("request"))
      .def(
          "member_forces",
          [](LockedPotential& self, const Structure& structure) {
            const auto forces = self.run([&](adatom::Potential& potential) { return potential.member_forces(structure); });
            py::array_t<double> array({forces.size(), structure.numbers.size(), std::size_t(3)});
            double* to = array.mutable_data();
            for (const auto& member : forces) to = std::copy_n(reinterpret_cast<const double*>(member.data()), 3 * member.size(), to);
            return array;
          },
          py::arg("structure"))
      .def("counters", [](LockedPotential& self) { return self.run([](adatom::Potential& potential) { return potential.counters(); }); })
      .def(
          "set_threads", [](LockedPotential& self, int threads) { self.run([&](adatom::Potential& potential) { potential.set_threads(threads); }); },
          py::arg("threads"));

  // Detectors of uncertainty, which adatom.uncertainty fits.
  m.def(
      "write_detectors",
      [](const std::filesystem::path& from, const std::filesystem::path& to, const std::string& description,
         const std::map<std::string, Array<double>>& tensors) {
        std::map<std::string, adatom::DetectorTensor> all;
        for (const auto& [name, array] : tensors) {
          adatom::DetectorTensor& tensor = all[name];
          for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) tensor.shape.push_back(static_cast<std::size_t>(array.shape(axis)));
          tensor.data.assign(array.data(), array.data() + array.size());
        }
        adatom::write_detectors(from, to, description, all);
      },
      py::arg("from"), py::arg("to"), py::arg("description"), py::arg("tensors"), "Copies a model file with other detectors; none if `description` is empty.");
  m.def(
      "network_hash", [](const std::filesystem::path& file) { return adatom::network_hash(file); }, py::arg("file"));

  bind_datasets(m);
  py::register_exception_translator(clean_message);  // the last to be registered is the first to be asked
}

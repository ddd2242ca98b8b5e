// SPDX-License-Identifier: MIT
// The part of adatom._core that binds datasets/; Python's side of it is python/adatom/datasets.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <functional>

#include "datasets/cache.hpp"
#include "datasets/checks.hpp"
#include "datasets/extxyz_reader.hpp"
#include "datasets/extxyz_writer.hpp"
#include "datasets/splits.hpp"
#include "datasets/statistics.hpp"
#include "datasets/symmetry.hpp"
#include "gnn/threads.hpp"
#include "python/src/byte_source.hpp"

namespace py = pybind11;
using namespace adatom::datasets;

namespace {

using adatom::Vector3;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

std::vector<Vector3> to_rows(const char* name, const Array<double>& array, py::ssize_t n) {
  if (array.ndim() != 2 || array.shape(0) != n || array.shape(1) != 3)
    throw py::value_error(std::string(name) + " has " + std::to_string(array.size()) + " values, expected the shape (" + std::to_string(n) + ", 3)");
  std::vector<Vector3> rows(static_cast<std::size_t>(n));
  if (n > 0) std::copy_n(array.data(), array.size(), rows.front().data());
  return rows;
}

py::array_t<double> to_array(const std::vector<Vector3>& rows) {
  py::array_t<double> array({static_cast<py::ssize_t>(rows.size()), py::ssize_t{3}});
  if (!rows.empty()) std::copy_n(rows.front().data(), 3 * rows.size(), array.mutable_data());
  return array;
}

Frame make_frame(const Array<int>& numbers, const Array<double>& positions, const Array<double>& cell, const std::array<bool, 3>& pbc,
                 const std::optional<double>& energy, const std::optional<Array<double>>& forces, const std::optional<Voigt>& stress,
                 const std::optional<std::vector<double>>& charges, const std::array<double, 4>& weights, const std::string& config_type,
                 const std::string& group, const std::string& head) {
  Frame frame;
  frame.structure.numbers.assign(numbers.data(), numbers.data() + numbers.size());
  frame.structure.positions = to_rows("positions", positions, numbers.size());
  const auto rows = to_rows("cell", cell, 3);
  std::copy(rows.begin(), rows.end(), frame.structure.cell.begin());
  frame.structure.pbc = pbc;
  frame.energy = energy;
  if (forces) frame.forces = to_rows("forces", *forces, numbers.size());
  frame.stress = stress;
  if (charges) frame.charges = *charges;
  frame.weights = {weights[0], weights[1], weights[2], weights[3]};
  frame.config_type = config_type, frame.group = group, frame.head = head;
  return frame;
}

/// Lets Python's handlers of signals run: Ctrl-C ends what takes long.
void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

/// source.finish() without the GIL.
template <class Source>
auto finish(Source& source) {
  static const std::function<void()> check = check_signals;
  const py::gil_scoped_release no_gil;
  const adatom::gnn::InterruptScope interrupts(check);
  return source.finish();
}

/// Calls `work(frame)` for every frame of a source without the GIL. Every so often it asks Python whether the user interrupts, and reports the
/// number of frames to `progress` if that is not None.
void for_each_frame(FrameSource& source, const py::object& progress, const std::function<void(const Frame&)>& work) {
  constexpr std::int64_t interval = 256;
  const auto report = [&](std::int64_t frames) {
    check_signals();
    const py::gil_scoped_acquire gil;
    if (!progress.is_none()) progress(frames);
  };
  const py::gil_scoped_release no_gil;
  std::int64_t since = 0;
  for (Frame frame; source.next(frame);) {
    work(frame);
    if (++since == interval) report(std::exchange(since, 0));
  }
  report(since);
}

py::object next_frame(FrameSource& source) {
  Frame frame;
  bool there = false;
  {
    const py::gil_scoped_release no_gil;
    there = source.next(frame);
  }
  if (!there) throw py::stop_iteration();
  return py::cast(std::move(frame));
}

void bind_frame(py::module_& m) {
  py::class_<Frame>(m, "Frame")
      .def(py::init(&make_frame), py::arg("numbers"), py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::kw_only(), py::arg("energy") = py::none(),
           py::arg("forces") = py::none(), py::arg("stress") = py::none(), py::arg("charges") = py::none(),
           py::arg("weights") = std::array<double, 4>{1, 1, 1, 1}, py::arg("config_type") = "", py::arg("group") = "", py::arg("head") = "")
      .def("__len__", &Frame::size)
      .def_property_readonly("numbers", [](const Frame& f) { return py::array_t<int>(static_cast<py::ssize_t>(f.size()), f.structure.numbers.data()); })
      .def_property_readonly("positions", [](const Frame& f) { return to_array(f.structure.positions); })
      .def_property_readonly("cell",
                             [](const Frame& f) {
                               return py::array_t<double>({3, 3}, f.structure.cell[0].data());
                             })
      .def_property_readonly("pbc", [](const Frame& f) { return f.structure.pbc; })
      .def_readwrite("energy", &Frame::energy)
      .def_property_readonly("forces", [](const Frame& f) { return f.forces.empty() ? py::object(py::none()) : to_array(f.forces); })
      .def_property_readonly("stress", [](const Frame& f) { return f.stress ? py::object(py::array_t<double>(6, f.stress->data())) : py::object(py::none()); })
      .def_property_readonly("charges",
                             [](const Frame& f) {
                               const auto n = static_cast<py::ssize_t>(f.charges.size());
                               return n == 0 ? py::object(py::none()) : py::object(py::array_t<double>(n, f.charges.data()));
                             })
      .def_property_readonly("weights",
                             [](const Frame& f) {
                               return std::array{f.weights.config, f.weights.energy, f.weights.forces, f.weights.stress};
                             })
      .def_readwrite("config_type", &Frame::config_type)
      .def_readwrite("group", &Frame::group)
      .def_readwrite("head", &Frame::head)
      .def("defects", &defects)
      .def("is_isolated_atom", &is_isolated_atom)
      .def("is_ion", &is_ion)
      .def(
          "space_group", [](const Frame& f, double tolerance) { return space_group(f.structure, tolerance); }, py::arg("tolerance"));

  py::class_<LabelKeys> keys(m, "LabelKeys");
  keys.def(py::init<>());
  const std::pair<const char*, std::string LabelKeys::*> names[] = {{"energy", &LabelKeys::energy},
                                                                    {"forces", &LabelKeys::forces},
                                                                    {"stress", &LabelKeys::stress},
                                                                    {"virial", &LabelKeys::virial},
                                                                    {"charges", &LabelKeys::charges},
                                                                    {"config_type", &LabelKeys::config_type},
                                                                    {"group", &LabelKeys::group},
                                                                    {"head", &LabelKeys::head},
                                                                    {"weight", &LabelKeys::weight},
                                                                    {"energy_weight", &LabelKeys::energy_weight},
                                                                    {"forces_weight", &LabelKeys::forces_weight},
                                                                    {"stress_weight", &LabelKeys::stress_weight}};
  for (const auto& [name, member] : names) keys.def_readwrite(name, member);
  keys.def_readwrite("free_energy", &LabelKeys::free_energy).def_readwrite("named", &LabelKeys::named);
}

void bind_files(py::module_& m) {
  py::class_<FrameSource>(m, "FrameSource")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next_frame)
      .def_property_readonly("index", &FrameSource::index)
      .def_property_readonly("where", &FrameSource::where)
      .def_property_readonly("contents", &FrameSource::contents)
      .def("notes", [](const FrameSource& source) {
        const char* kinds[] = {"unread", "choice", "warning"};
        py::list notes;
        for (const ReadingNote& note : source.notes()) {
          py::dict entry;
          entry["kind"] = kinds[static_cast<int>(note.kind)], entry["code"] = note.code, entry["message"] = note.message, entry["advice"] = note.advice;
          notes.append(entry);
        }
        return notes;
      });
  py::class_<ExtxyzReader, FrameSource>(m, "ExtxyzReader")
      .def(py::init<const std::filesystem::path&, const LabelKeys&>(), py::arg("file"), py::arg("keys") = LabelKeys())
      .def(py::init([](const std::filesystem::path& file, const LabelKeys& keys, const py::iterator& text, bool has_lines) {
             return std::make_unique<ExtxyzReader>(file, keys, byte_source(text), has_lines);
           }),
           py::arg("file"), py::arg("keys"), py::arg("text"), py::arg("has_lines"))
      .def_property_readonly("begin", &ExtxyzReader::begin)
      .def_property_readonly("end", &ExtxyzReader::end)
      .def_property_readonly("entries", &ExtxyzReader::entries)
      .def_property_readonly("columns", &ExtxyzReader::columns);
  m.def("open_frames", &open_frames, py::arg("file"), py::arg("keys") = LabelKeys());
  m.def("is_cache", &is_cache, py::arg("file"));

  py::class_<ExtxyzWriter>(m, "ExtxyzWriter")
      .def(py::init<const std::filesystem::path&, const LabelKeys&>(), py::arg("file"), py::arg("keys") = LabelKeys())
      .def("add", &ExtxyzWriter::write, py::arg("frame"))
      .def("add_text", &ExtxyzWriter::write_text, py::arg("frame"))
      .def("commit", &ExtxyzWriter::commit, py::call_guard<py::gil_scoped_release>())
      .def("__len__", &ExtxyzWriter::frames);
  py::class_<CacheWriter>(m, "CacheWriter")
      .def(py::init<const std::filesystem::path&, std::string>(), py::arg("file"), py::arg("provenance") = "{}")
      .def("add", &CacheWriter::add, py::arg("frame"))
      .def("commit", &CacheWriter::commit, py::call_guard<py::gil_scoped_release>())
      .def("__len__", &CacheWriter::size);
  py::class_<CacheReader>(m, "CacheReader")
      .def(py::init<const std::filesystem::path&>(), py::arg("file"))
      .def("__len__", &CacheReader::size)
      .def("read", py::overload_cast<std::size_t>(&CacheReader::read, py::const_), py::arg("index"), py::call_guard<py::gil_scoped_release>())
      .def("atoms", &CacheReader::atoms, py::arg("index"))
      .def("verify", &CacheReader::verify, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("heads", &CacheReader::heads)
      .def_property_readonly("config_types", &CacheReader::config_types)
      .def_property_readonly("elements", &CacheReader::elements)
      .def_property_readonly("provenance", &CacheReader::provenance)
      .def_property_readonly("hash", &CacheReader::hash);
}

void bind_analysis(py::module_& m) {
  py::class_<Report> report(m, "Report");
  report.def("to_json", py::overload_cast<const Report&, std::size_t>(&to_json), py::arg("longest_list") = 1000)
      .def(
          "findings_json", [](const Report& self, std::size_t longest) { return to_json(check(self), self, longest); }, py::arg("longest_list") = 1000);
  report.def("values", [](const Report& self) {
    const auto n = static_cast<py::ssize_t>(self.values.size());
    py::array_t<double> residual(n), force(n);
    py::array_t<int> atoms(n);
    for (py::ssize_t i = 0; i < n; ++i) {
      const FrameValues& value = self.values[static_cast<std::size_t>(i)];
      atoms.mutable_at(i) = value.atoms, residual.mutable_at(i) = value.residual, force.mutable_at(i) = value.largest_force;
    }
    py::dict values;
    values["atoms"] = atoms, values["residual"] = residual, values["largest_force"] = force;
    return values;
  });
  py::class_<Statistics>(m, "Statistics")
      .def(py::init([](bool near_duplicates, double near_tolerance, double outlier_z, int symmetry_frames, double symmetry_tolerance) {
             return Statistics({near_duplicates, near_tolerance, outlier_z, symmetry_frames, symmetry_tolerance});
           }),
           py::kw_only(), py::arg("near_duplicates"), py::arg("near_tolerance"), py::arg("outlier_z"), py::arg("symmetry_frames"),
           py::arg("symmetry_tolerance"))
      .def("add_source", &Statistics::add_source, py::arg("name"))
      .def(
          "add",
          [](Statistics& self, const Frame& frame, int source, std::int64_t index) {
            self.add(frame, {source, index});
          },
          py::arg("frame"), py::arg("source"), py::arg("index"))
      .def(
          "add_all",
          [](Statistics& self, FrameSource& source, int number, const py::object& progress) {
            for_each_frame(source, progress, [&](const Frame& frame) { self.add(frame, {number, source.index()}); });
          },
          py::arg("frames"), py::arg("source"), py::arg("progress") = py::none())
      .def("finish", &finish<Statistics>);

  py::enum_<GroupBy>(m, "GroupBy")
      .value("frame", GroupBy::frame)
      .value("config_type", GroupBy::config_type)
      .value("group", GroupBy::group)
      .value("block", GroupBy::block);
  py::class_<Splitter>(m, "Splitter")
      .def(
          py::init([](const std::vector<double>& parts, std::uint64_t seed, GroupBy group_by, std::int64_t block, bool near_duplicates, double near_tolerance) {
            return Splitter({parts, seed, group_by, block, near_duplicates, near_tolerance});
          }),
          py::kw_only(), py::arg("parts"), py::arg("seed"), py::arg("group_by"), py::arg("block"), py::arg("near_duplicates"), py::arg("near_tolerance"))
      .def(
          "add",
          [](Splitter& self, const Frame& frame, int source, std::int64_t index) {
            self.add(frame, {source, index});
          },
          py::arg("frame"), py::arg("source"), py::arg("index"))
      .def(
          "add_all",
          [](Splitter& self, FrameSource& source, int number, const py::object& progress) {
            for_each_frame(source, progress, [&](const Frame& frame) { self.add(frame, {number, source.index()}); });
          },
          py::arg("frames"), py::arg("source"), py::arg("progress") = py::none())
      .def("finish", &finish<Splitter>)
      .def_property_readonly("without_label", &Splitter::without_label)
      .def_property_readonly("units", &Splitter::units);
  m.def(
      "fingerprint_distance",
      [](const Frame& a, const Frame& b) {
        double nearest = 0;
        return distance(fingerprint(a.structure, nearest), fingerprint(b.structure, nearest));
      },
      py::arg("a"), py::arg("b"));
}

}  // namespace

void bind_datasets(py::module_& m) {
  static py::exception<DataError> data_error(m, "DataError", PyExc_ValueError);
  data_error.attr("__doc__") = "A data file or a frame that cannot be used.";
  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const DataError& error) {
      const std::string text = to_utf8(error.what());  // names of files need not be UTF-8
      PyErr_SetString(data_error.ptr(), text.c_str());
    }
  });
  bind_frame(m);
  bind_files(m);
  bind_analysis(m);
}

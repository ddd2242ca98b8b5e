// SPDX-License-Identifier: MIT
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "datasets/text.hpp"

/// The text that a Python iterator gives in pieces of bytes. It may be called and destroyed with or without the GIL.
inline adatom::datasets::ByteSource byte_source(const pybind11::iterator& pieces) {
  namespace py = pybind11;
  struct State {
    PyObject* pieces;
    std::string piece;
    std::size_t at = 0;
  };
  const std::shared_ptr<State> state(new State{py::object(pieces).release().ptr(), {}}, [](State* s) {
    const py::gil_scoped_acquire gil;
    Py_DECREF(s->pieces);
    delete s;
  });
  return [state](char* data, std::size_t bytes) {
    while (state->at == state->piece.size()) {
      const py::gil_scoped_acquire gil;
      const auto next = py::reinterpret_steal<py::object>(PyIter_Next(state->pieces));
      if (!next && PyErr_Occurred()) throw py::error_already_set();
      if (!next) return std::size_t{0};
      state->piece = next.cast<std::string>();
      state->at = 0;
    }
    const std::size_t n = std::min(bytes, state->piece.size() - state->at);
    std::memcpy(data, state->piece.data() + state->at, n);
    state->at += n;
    return n;
  };
}

# SPDX-License-Identifier: MIT
# The trainer, where the Python of the build has torch. Its own CMake package is not used: that one looks for a CUDA toolkit, which the headers and
# libraries used here do not need.
foreach(candidate ADATOM_TORCH_PYTHON Python_EXECUTABLE Python3_EXECUTABLE)
  if(${candidate})
    set(torch_python "${${candidate}}")
    break()
  endif()
endforeach()
# The second try leaves out PYTHONPATH, by which pip hides the environment that it builds for: `pip install .` finds the torch of that environment.
foreach(option "" "-E")
  if(torch_python AND NOT torch_folder)
    execute_process(
      COMMAND "${torch_python}" ${option} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE torch_folder OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
endforeach()
if(NOT torch_folder)
  message(STATUS "torch: not found; built without training")
  return()
endif()
message(STATUS "torch: ${torch_folder}")

add_library(adatom_training STATIC
  batch.cpp
  config.cpp
  data_checks.cpp
  epoch_plan.cpp
  errors.cpp
  folder_lock.cpp
  frames.cpp
  label_checks.cpp
  loss.cpp
  model.cpp
  optimizer.cpp
  parity.cpp
  process_group.cpp
  run_data.cpp
  soap.cpp
  trainer.cpp
  trainer_checkpoint.cpp
  trainer_energies.cpp
  trainer_steps.cpp)
target_compile_definitions(adatom_training PRIVATE ADATOM_VERSION="${PROJECT_VERSION}")
target_link_libraries(adatom_training PUBLIC adatom_training_core adatom_datasets adatom_flags)
target_include_directories(adatom_training SYSTEM PUBLIC "${torch_folder}/include" "${torch_folder}/include/torch/csrc/api/include")
target_link_directories(adatom_training PUBLIC "${torch_folder}/lib")
target_link_libraries(adatom_training PUBLIC torch torch_cpu c10)
set_property(GLOBAL PROPERTY ADATOM_TORCH_FOLDER "${torch_folder}")

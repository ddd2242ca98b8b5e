// SPDX-License-Identifier: MIT
// Compiled by a C++ compiler: the kernels run on the CPU.
#include "gnn/cuda/dual32.cu"

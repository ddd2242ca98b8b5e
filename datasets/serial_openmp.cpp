// SPDX-License-Identifier: MIT
// Debian's spglib is compiled with OpenMP for its meshes of k points, which are not used here. These are the three functions that it needs of an OpenMP
// runtime, for one thread: with a real one in the process, its threads would be at odds with those of gnn/threads.hpp, and with torch's.
extern "C" {

__attribute__((visibility("hidden"))) void GOMP_parallel(void (*body)(void*), void* data, unsigned, unsigned) { body(data); }
__attribute__((visibility("hidden"))) int omp_get_num_threads() { return 1; }
__attribute__((visibility("hidden"))) int omp_get_thread_num() { return 0; }
}

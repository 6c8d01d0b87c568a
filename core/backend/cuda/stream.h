#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace volley::cuda {

// What a device can do, as far as kernels are chosen by it.
struct Abilities {
  bool overlaps = false;   // it can begin an operation while the one before it ends (9.0 and later)
  bool has_wgmma = false;  // and this build has the kernels that use it
  int processors = 0;
  int64_t shared_bytes = 0;  // of a block, if it asks
};

class Program;
// Launches what a program has taken, before anything else is launched. Whether that was as a program, with
// which nothing overlaps.
bool end_program(Program& program);

// Where kernels are launched.
struct Stream : Abilities {
  cudaStream_t handle = nullptr;
  Program* program = nullptr;  // takes operations while they are recorded
};

}  // namespace volley::cuda

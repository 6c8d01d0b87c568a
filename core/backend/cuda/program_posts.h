#pragma once

// Which results of a program its blocks post to each other (posted.cuh), and the memory of these: rows that
// go from one product, or attention, to the next, whole. What is read otherwise, and what attention reads, is
// stored and ordered by fences as before; so are results that operations behind the program look for.
//
// A result that a later phase norms is posted as that phase multiplies it (HandedRows): who makes it rounds
// it once, not every block that reads it.

#include <span>
#include <vector>

#include "core/backend/buffer.h"
#include "core/backend/cuda/device_memory.h"
#include "core/backend/cuda/stream.h"

namespace volley::cuda {

struct ProgramPhase;

// Memory that holds missing results between programs. Those of a stream, which run one after the other, share
// it; it lives as long as they may be launched.
class PostMemory {
 public:
  explicit PostMemory(const DeviceMemory& memory) : memory_(memory) {}

  // Stays where it is.
  std::byte* at_least(int64_t bytes);
  // Before the first program that uses what was asked for.
  void prepare(cudaStream_t stream);

 private:
  const DeviceMemory& memory_;
  std::vector<Buffer> buffers_;
  size_t prepared_ = 0;  // of them
};

// Decides what the phases of one program post, and what their meetings order.
void post_results(std::span<ProgramPhase> phases, PostMemory& memory);

}  // namespace volley::cuda

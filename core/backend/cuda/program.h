#pragma once

// A program: operations of few rows that are recorded one after the other, as phases of a single launch. Its
// blocks stay on their processors, bring the weights of later phases to shared memory whatever phase they are
// at, and meet between phases. A phase's results have the bits of the launch that it stands for.

#include <cstddef>
#include <functional>
#include <vector>

#include "core/backend/buffer.h"
#include "core/backend/cuda/device_memory.h"
#include "core/backend/cuda/program_posts.h"
#include "core/backend/cuda/stream.h"

namespace volley::cuda {

struct BF16Attention;
struct FewRows;
class AttentionUnits;
class GatedUnits;
class LinearUnits;

class Program {
 public:
  // Does what a phase does, by a launch of its own.
  using Launch = std::function<void(const Stream&)>;
  // Where the blocks of the stream's programs meet; zeros between programs.
  struct Meeting {
    unsigned arrived;
    unsigned left;
  };

  Program(const DeviceMemory& memory, Meeting* meeting, PostMemory& posts);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Whether the operation is the next phase; else it is for the caller to launch.
  bool takes(const FewRows& rows, const AttentionUnits& units, const Stream& stream, const Launch& launch);
  bool takes(const FewRows& rows, const GatedUnits& units, const Stream& stream, const Launch& launch);
  bool takes(const FewRows& rows, const LinearUnits& units, const Stream& stream, const Launch& launch);
  bool takes(const BF16Attention& attention, const Stream& stream, const Launch& launch);
  // Launches the phases so far: as one, or one by one if they are too few or do not fit the device. Whether
  // there were any that it launched as one.
  bool end();
  // Behind the recording: fills the memory that its launches read, which shall outlive it.
  std::vector<Buffer> finish(cudaStream_t stream);

 private:
  void add(const ProgramPhase& phase, const Stream& stream, const Launch& launch);
  bool launch_together();

  const DeviceMemory& memory_;
  Meeting* meeting_;
  PostMemory& posts_;
  Stream stream_;  // of the phases
  std::vector<ProgramPhase> phases_;
  std::vector<Launch> launches_;  // of each phase
  std::vector<std::vector<ProgramPhase>> launched_;
  std::vector<Buffer> buffers_;  // of `launched_`
};

}  // namespace volley::cuda

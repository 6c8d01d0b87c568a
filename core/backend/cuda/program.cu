// Programs: the kernel, and which operations become its phases.
#include "core/backend/cuda/program.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/backend/cuda/program_warps.cuh"

namespace volley::cuda {
namespace {

// Fewer are not worth the time in which all blocks get going.
constexpr size_t kFewestPhases = 6;
constexpr int64_t kMostRowsOfPhase = kTileRows;

// Threads of a block that wait for others.
[[maybe_unused]] constexpr unsigned kWaiters = 2;

struct ProgramArgs {
  const ProgramPhase* phases;
  int count;
  int attention;  // the first phase that is attention
  int stages;
  Program::Meeting* meeting;
};

struct PhaseMemory {
  alignas(16) std::byte bytes[2][sizeof(ProgramPhase)];
  static_assert(sizeof(ProgramPhase) % 16 == 0);

  // Copies are ended by the caller.
  __device__ void bring(const ProgramArgs& args, int phase, int thread, int threads) {
    const auto* from = reinterpret_cast<const uint4*>(args.phases + phase);
    auto* to = reinterpret_cast<uint4*>(bytes[phase % 2]);
    for (int i = thread; i < static_cast<int>(sizeof(ProgramPhase) / 16); i += threads)
      copy_async(to + i, from + i);
  }
  __device__ const ProgramPhase& phase(int index) const {
    return *reinterpret_cast<const ProgramPhase*>(bytes[index % 2]);
  }
};

// By a warp.
[[maybe_unused]] __device__ void bring_phases(const ProgramArgs& args, PhaseMemory& memory,
                                              const StageRing& ring) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  WeightBringer bringer(ring);
  for (int p = 0; p < args.count; ++p) {
    if (p + 1 < args.count) memory.bring(args, p + 1, lane, kWarp);
    end_copies();
    if (lane == 0) bringer.bring(memory.phase(p));
    await_copies<0>();
    __syncwarp();
  }
}

// By the warps that multiply.
template <int kGroups>
__device__ void multiply_phases(const ProgramArgs& args, PhaseMemory& memory, ProgramBlock<kGroups>& block,
                                const Passed& passed) {
  const auto thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int p = 0; p < args.count; ++p) {
    const bool more = p + 1 < args.count;
    if (more) memory.bring(args, p + 1, thread, kMultiplyThreads);
    end_copies();
    const ProgramPhase& phase = memory.phase(p);
    const bool multiplies = phase.kind != ProgramPhase::Kind::kAttention,
               has_units = BlockUnits(phase).count > 0;
    if (has_units && multiplies) multiply(phase, block);
    await_copies<0>();
    meet_warps();
    if (more && has_units && multiplies && thread == 0) block.meeting.arrive();
    if (thread == 0) passed.set(p + 1);
  }
  if (thread == 0) block.meeting.leave(kWaiters);
}

// By a team.
template <int kSteps>
__device__ void attend_phases(const ProgramArgs& args, PhaseMemory& memory, TeamMemory<kSteps, 1>& team,
                              std::byte* staged, const GridMeeting& meeting, const Passed& passed) {
  const int thread = static_cast<int>(threadIdx.x) - kMultiplyThreads;
#pragma unroll 1
  for (int p = args.attention; p < args.count;) {
    memory.bring(args, p, thread, kTeamThreads);
    end_copies();
    await_copies<0>();
    meet_team();
    const ProgramPhase& phase = memory.phase(p);
    const int next = p + phase.attention;
    attend_phase(phase, thread, team, staged, [&] {
      if (thread == 0) {
        passed.await(p);
        meeting.wait(phase.awaited);
      }
      meet_team();
    });
    meet_team();
    if (thread == 0 && p + 1 < args.count && BlockUnits(phase).count > 0) meeting.arrive();
    p = next;
  }
  if (thread == 0) meeting.leave(kWaiters);
}

// kGroups: of eight rows. kSteps: of a head.
template <int kGroups, int kSteps>
__global__ void __launch_bounds__(kProgramThreads, 1) run_program(ProgramArgs args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  alignas(1024) extern __shared__ std::byte memory[];
  __shared__ Barrier full[kMostStages], empty[kMostStages];
  __shared__ PhaseMemory multiplied, attended, brought;
  __shared__ TeamMemory<kSteps, 1> team;
  __shared__ typename ProgramBlock<kGroups>::Partials partials;
  __shared__ int phases_passed;
  const auto thread = static_cast<int>(threadIdx.x);
  const int bringer = thread - kMultiplyThreads - kTeamThreads;
  const Passed passed(phases_passed);
  if (thread == 0) {
    passed.set(0);
    for (int s = 0; s < args.stages; ++s) {
      full[s].init(1);
      empty[s].init(1);
    }
    publish_barriers();
  }
  if (thread < kMultiplyThreads) multiplied.bring(args, 0, thread, kMultiplyThreads);
  if (bringer >= 0 && bringer < kWarp) brought.bring(args, 0, bringer, kWarp);
  end_copies();
  await_copies<0>();
  __syncthreads();
  const StageRing ring{full, empty, memory, args.stages};
  std::byte* const rows = memory + args.stages * kStageBytes;
  if (bringer >= 0) {
    give_registers<kBringing>();
    if (bringer < kWarp) bring_phases(args, brought, ring);
  } else {
    take_registers<kMultiplying>();
    await_previous();
    const GridMeeting meeting(args.meeting);
    if (thread >= kMultiplyThreads) {
      attend_phases(args, attended, team, rows, meeting, passed);
    } else {
      ProgramBlock<kGroups> block{.ring = ring,
                                  .at = {},
                                  .meeting = meeting,
                                  .partials = partials,
                                  .rows = reinterpret_cast<uint4*>(rows)};
      multiply_phases(args, multiplied, block, passed);
    }
  }
#endif
}

template <int kGroups, int kSteps>
bool launch_phases(std::vector<ProgramPhase>& phases, ProgramArgs args, const Stream& stream) {
  int64_t rows_bytes = 0;  // of shared memory that rows take, or what attention brings
  for (const ProgramPhase& phase : phases) {
    rows_bytes = std::max<int64_t>(rows_bytes, phase.kind == ProgramPhase::Kind::kAttention
                                                   ? kParts * kWarpBytes<kSteps>
                                                   : phase.steps * kGroups * kBlockBytes);
  }
  const auto kernel = run_program<kGroups, kSteps>;
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "program");
  const int64_t room =
      stream.shared_bytes - static_cast<int64_t>(attributes.sharedSizeBytes) - rows_bytes - 1024;
  args.stages = static_cast<int>(std::min<int64_t>(room / kStageBytes, kMostStages));
  int first_block = 0, arrivals = 0;
  for (ProgramPhase& phase : phases) {
    phase.first_block = first_block;
    phase.awaited = static_cast<unsigned>(arrivals);
    arrivals += std::min(phase.units, stream.processors);
    if (phase.kind == ProgramPhase::Kind::kAttention) continue;
    const int fit = (args.stages - phase.norm_stages()) / phase.unit_stages();
    if (args.stages <= kUnderWay || fit <= 0) return false;
    phase.units_together =
        fit >= kUnitsTogether<kGroups> ? kUnitsTogether<kGroups> : std::min(fit, kUnitsAtOnce);
    first_block = (first_block + phase.units) % stream.processors;
  }
  const Geometry geometry{.grid = dim3(static_cast<unsigned>(stream.processors)),
                          .threads = kProgramThreads,
                          .shared_bytes = args.stages * int64_t{kStageBytes} + rows_bytes,
                          .meets = true};
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(geometry.shared_bytes)),
        "program");
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, geometry.threads,
                                                      static_cast<size_t>(geometry.shared_bytes)),
        "program");
  if (blocks < 1) return false;
  Stream alone = stream;
  alone.overlaps = false;
  launch("program", kernel, geometry, alone, args);
  return true;
}

int steps_of_head(const BF16Attention& attention) {
  return static_cast<int>(attention.cache.layout.width / kStep);
}

template <typename Units>
ProgramPhase product_phase(ProgramPhase::Kind kind, const FewRows& rows, const Units& units) {
  ProgramPhase phase(kind, rows, units);
  phase.units = units.count();
  phase.slots = Units::kSlots;
  phase.steps = rows.rows.steps();
  return phase;
}

bool can_take(const FewRows& rows) {
  if (rows.rows.count > kMostRowsOfPhase) return false;
  return rows.input == Input::kPacked ||
         (rows.input == Input::kNormed && rows.rows.aligned && rows.rows.steps() <= kMostNormSteps &&
          is_aligned(rows.norm.weight, sizeof(uint4)));
}

}  // namespace

bool end_program(Program& program) {
  return program.end();
}

Program::Program(const DeviceMemory& memory, Meeting* meeting) : memory_(memory), meeting_(meeting) {}
Program::~Program() = default;

void Program::add(const ProgramPhase& phase, const Stream& stream, const Launch& launch) {
  if (phases_.empty()) {
    stream_ = stream;
    stream_.program = nullptr;
    stream_.overlaps = stream.overlaps && launched_.empty();  // nothing overlaps with a program
  }
  phases_.push_back(phase);
  launches_.push_back(launch);
}

bool Program::takes(const FewRows& rows, const AttentionUnits& units, const Stream& stream,
                    const Launch& launch) {
  if (!can_take(rows) || rows.input != Input::kNormed) return false;
  add(product_phase(ProgramPhase::Kind::kAttentionInputs, rows, units), stream, launch);
  return true;
}

bool Program::takes(const FewRows& rows, const GatedUnits& units, const Stream& stream,
                    const Launch& launch) {
  if (!can_take(rows) || rows.input != Input::kNormed) return false;
  add(product_phase(ProgramPhase::Kind::kGated, rows, units), stream, launch);
  return true;
}

bool Program::takes(const FewRows& rows, const LinearUnits& units, const Stream& stream,
                    const Launch& launch) {
  if (!can_take(rows)) return false;
  add(product_phase(ProgramPhase::Kind::kLinear, rows, units), stream, launch);
  return true;
}

bool Program::takes(const BF16Attention& attention, const Stream& stream, const Launch& launch) {
  const CacheAttention& cache = attention.cache;
  if (attention.packed.data == nullptr || cache.rows > kMostRowsOfPhase || cache.layout.width % kStep != 0)
    return false;
  const auto other = std::ranges::find(phases_, ProgramPhase::Kind::kAttention, &ProgramPhase::kind);
  if (other != phases_.end() && steps_of_head(other->as<BF16Attention>()) != steps_of_head(attention)) end();
  ProgramPhase phase(ProgramPhase::Kind::kAttention, FewRows({.rows = {nullptr, kStep, cache.rows}}),
                     attention);
  phase.units = cache.heads *
                static_cast<int>(ceil_div(cache.rows, cache.together) * ceil_div(cache.together, kHalfRows));
  add(phase, stream, launch);
  return true;
}

bool Program::end() {
  if (phases_.empty()) return false;
  const bool together = phases_.size() >= kFewestPhases && launch_together();
  if (!together) {
    for (const Launch& launch : launches_) launch(stream_);
  }
  phases_.clear();
  launches_.clear();
  return together;
}

bool Program::launch_together() {
  if (!stream_.has_wgmma) return false;
  int steps = 1;
  const bool more =
      std::ranges::any_of(phases_, [](const ProgramPhase& phase) { return phase.rows.rows.count > 8; });
  auto next = static_cast<int>(phases_.size());
  for (int p = next; p-- > 0;) {
    ProgramPhase& phase = phases_[static_cast<size_t>(p)];
    phase.attention = next - p;
    if (phase.kind != ProgramPhase::Kind::kAttention) continue;
    next = p;
    steps = steps_of_head(phase.as<BF16Attention>());
  }
  Buffer buffer = memory_.allocate(static_cast<int64_t>(phases_.size() * sizeof(ProgramPhase)));
  const ProgramArgs args{.phases = reinterpret_cast<const ProgramPhase*>(buffer.data()),
                         .count = static_cast<int>(phases_.size()),
                         .attention = next,
                         .stages = 0,
                         .meeting = meeting_};
  const auto launched = [&](auto head_steps) {
    return more ? launch_phases<2, head_steps>(phases_, args, stream_)
                : launch_phases<1, head_steps>(phases_, args, stream_);
  };
  const bool done = steps == 1   ? launched(std::integral_constant<int, 1>())
                    : steps == 2 ? launched(std::integral_constant<int, 2>())
                    : steps == 3 ? launched(std::integral_constant<int, 3>())
                                 : launched(std::integral_constant<int, 4>());
  if (!done) return false;
  buffers_.push_back(std::move(buffer));
  launched_.push_back(phases_);
  return true;
}

std::vector<Buffer> Program::finish(cudaStream_t stream) {
  for (size_t i = 0; i < launched_.size(); ++i) {
    check(cudaMemcpyAsync(buffers_[i].data(), launched_[i].data(), launched_[i].size() * sizeof(ProgramPhase),
                          cudaMemcpyHostToDevice, stream),
          "program");
  }
  check(cudaStreamSynchronize(stream), "program");
  launched_.clear();
  return std::exchange(buffers_, {});
}

}  // namespace volley::cuda

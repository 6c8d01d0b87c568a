// Programs: which operations become phases, and their launch.
#include "core/backend/cuda/program.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/backend/cuda/program_kernel.cuh"

namespace volley::cuda {
namespace {

// Fewer are not worth the time in which all blocks get going.
constexpr size_t kFewestPhases = 6;
constexpr int64_t kMostRowsOfPhase = kTileRows;

template <int kGroups, int kSteps>
bool launch_phases(std::vector<ProgramPhase>& phases, ProgramArgs args, const Stream& stream) {
  for (const ProgramPhase& phase : phases) {
    const bool attends = phase.kind == ProgramPhase::Kind::kAttention;
    args.row_bytes = std::max<int>(
        args.row_bytes, attends ? kParts * kWarpBytes<kSteps> : phase.steps * kGroups * kBlockBytes);
  }
  int64_t rest_bytes = args.row_bytes;  // behind the stages
  if (args.asks >= 0) {
    const int pairs = phases[static_cast<size_t>(args.asks)].as<AttentionUnits>().pairs();
    rest_bytes += int64_t{args.asked} * pairs * static_cast<int64_t>(sizeof(Turn));
  }
  const auto kernel = run_program<kGroups, kSteps>;
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "program");
  const int64_t room =
      stream.shared_bytes - static_cast<int64_t>(attributes.sharedSizeBytes) - rest_bytes - 1024;
  args.stages = static_cast<int>(std::min<int64_t>(room / kStageBytes, kMostStages));
  int first_block = 0, arrivals = 0;
  for (ProgramPhase& phase : phases) {
    phase.first_block = first_block;
    phase.awaited = static_cast<unsigned>(arrivals);
    arrivals += std::min(phase.units, stream.processors);
    if (phase.kind == ProgramPhase::Kind::kAttention) continue;
    const int fit = (args.stages - phase.norm_stages()) / phase.unit_stages();
    if (args.stages <= kUnderWay || fit <= 0) return false;
    phase.units_together = std::min(fit, kUnitsTogether<kGroups>);
    first_block = (first_block + phase.units) % stream.processors;
  }
  const Geometry geometry{.grid = dim3(static_cast<unsigned>(stream.processors)),
                          .threads = kProgramThreads,
                          .shared_bytes = args.stages * int64_t{kStageBytes} + rest_bytes,
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

// The rows of a step that phases ask tables for.
struct AskedRows {
  int phase = -1;  // that asks; -1: none does
  int64_t first = 0;
  int64_t end = 0;
  bool fit = true;  // few rows, of one step

  explicit AskedRows(const std::vector<ProgramPhase>& phases) {
    for (size_t p = 0; p < phases.size(); ++p) {
      if (phases[p].kind != ProgramPhase::Kind::kAttentionInputs) continue;
      const auto& units = phases[p].as<AttentionUnits>();
      const bool is_first = phase < 0;
      if (is_first) phase = static_cast<int>(p);
      fit = fit && units.may_know_rows() &&
            units.asks_as(phases[static_cast<size_t>(phase)].as<AttentionUnits>());
      first = is_first ? units.first_row() : std::min(first, units.first_row());
      end = std::max(end, units.first_row() + phases[p].rows.rows.count);
    }
    fit = fit && end - first <= KnownRows::kMost;
  }
};

// Whether phases that write to an attention's plane do so by its rows alone.
bool are_writers(const std::vector<ProgramPhase>& phases, const CacheAttention& attention) {
  return std::ranges::all_of(phases, [&](const ProgramPhase& phase) {
    if (phase.kind != ProgramPhase::Kind::kAttentionInputs) return true;
    const CacheRows& write = phase.as<AttentionUnits>().write();
    return write.keys.data != attention.keys ||
           (write.tables == attention.tables && phase.rows.rows.count <= attention.rows);
  });
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
  return rows.input == Input::kPacked || (rows.input == Input::kNormed && rows.rows.aligned &&
                                          rows.rows.steps() <= most_norm_steps(rows.rows.count) &&
                                          is_aligned(rows.norm.weight, sizeof(uint4)));
}

}  // namespace

bool end_program(Program& program) {
  return program.end();
}

Program::Program(const DeviceMemory& memory, Meeting* meeting, PostMemory& posts)
    : memory_(memory), meeting_(meeting), posts_(posts) {}
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
  BF16Attention known = attention;
  known.knows_writers = are_writers(phases_, cache);
  ProgramPhase phase(ProgramPhase::Kind::kAttention, FewRows({.rows = {nullptr, kStep, cache.rows}}), known);
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
  const AskedRows asked(phases_);
  if (!stream_.has_wgmma || !asked.fit) return false;
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
  post_results(phases_, posts_);
  Buffer buffer = memory_.allocate(static_cast<int64_t>(phases_.size() * sizeof(ProgramPhase)));
  const ProgramArgs args{.phases = reinterpret_cast<const ProgramPhase*>(buffer.data()),
                         .count = static_cast<int>(phases_.size()),
                         .attention = next,
                         .asks = asked.phase,
                         .first_asked = static_cast<int>(asked.first),
                         .asked = static_cast<int>(asked.end - asked.first),
                         .stages = 0,
                         .row_bytes = 0,
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
  posts_.prepare(stream);
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

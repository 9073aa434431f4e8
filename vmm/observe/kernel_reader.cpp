#include "vmm/observe/kernel_reader.h"

#include <cstring>

namespace dbos::vmm {
namespace {

constexpr uint32_t kSpacesMax = 4096;
constexpr uint32_t kVmasMax = 1 << 20;  // as many as vm.max_map_count is set to
constexpr int kAttempts = 8;
constexpr uint32_t kPathMax = 256;

// The guest kernel's pointers lead into its direct map or its image.
uint64_t physical_of(uint64_t pointer) {
  if (pointer >= kKernelImageBase) return pointer - kKernelImageBase + kKernelImageAddress;
  return pointer >= kDirectMapBase ? pointer - kDirectMapBase : pointer;
}

// What came out twice the same was not changed halfway.
template <typename Read>
auto read_steadily(Read read) {
  auto last = read();
  for (int attempt = 1; attempt < kAttempts; ++attempt) {
    auto next = read();
    if (next == last) break;
    last = std::move(next);
  }
  return last;
}

}  // namespace

template <typename T>
bool KernelReader::load(uint64_t pointer, T& value) const {
  const uint64_t address = physical_of(pointer);
  if (pointer == 0 || !memory_.is_plain(address, sizeof value)) return false;
  read_guest(&value, address, sizeof value);
  return true;
}

template <typename T>
T KernelReader::field(uint64_t object, uint32_t offset) const {
  T value{};
  return load(object + offset, value) ? value : T{};
}

std::optional<KernelView> KernelReader::view() const {
  KernelView view;
  if (!load(view_address_, view) || view.version != kKernelViewVersion) return std::nullopt;
  return view;
}

int64_t KernelReader::gauge(GaugeName name) const {
  auto found = view();
  if (!found) return 0;
  const Gauge gauge = found->gauge(name);
  int64_t sum = 0;
  for (uint32_t i = 0; i < gauge.count && i < kVcpuCountMax; ++i) {
    sum += field<int64_t>(gauge.address + uint64_t{i} * gauge.stride, 0);
  }
  return sum;
}

std::vector<SpaceView> KernelReader::read_spaces(const KernelView& view) const {
  std::vector<SpaceView> spaces;
  uint64_t at = field<uint64_t>(view.spaces, 0);
  for (uint32_t i = 0; at != 0 && i < kSpacesMax; ++i, at = field<uint64_t>(at, view.space.next)) {
    if (field<uint8_t>(at, view.space.is_copy) != 0) continue;  // made ahead for the next snapshot
    SpaceView space{};
    space.root = field<uint64_t>(at, view.space.root);
    space.pages = field<uint64_t>(at, view.space.pages);
    space.nodes = field<uint64_t>(at, view.space.nodes);
    space.copied_pages = field<uint64_t>(at, view.space.copied_pages);
    space.first_vma = field<uint64_t>(at, view.space.first_vma);
    const uint64_t line = field<uint64_t>(at, view.space.line);
    const uint64_t parent = field<uint64_t>(line, view.line.parent);
    space.line = field<uint32_t>(line, view.line.id);
    space.parent_line = parent == 0 ? 0 : field<uint32_t>(parent, view.line.id);
    space.departure = field<uint64_t>(line, view.line.departure);
    space.taken_ticks = field<uint64_t>(line, view.line.taken_ticks);
    space.parent_copied_pages = field<uint64_t>(line, view.line.parent_copied_pages);
    space.retired_pages = field<uint64_t>(line, view.line.retired_pages);
    space.retired_nodes = field<uint64_t>(line, view.line.retired_nodes);
    spaces.push_back(space);
  }
  return spaces;
}

std::vector<SpaceView> KernelReader::spaces() const {
  const auto found = view();
  if (!found) return {};
  return read_steadily([&] { return read_spaces(*found); });
}

VmaView KernelReader::read_vma(const KernelView& view, uint64_t at) const {
  VmaView vma{};
  vma.begin = field<uint64_t>(at, view.vma.begin);
  vma.end = field<uint64_t>(at, view.vma.end);
  vma.protection = field<uint8_t>(at, view.vma.protection) & 7;
  vma.kind = field<VmaKind>(at, view.vma.kind);
  vma.name = text_of(field<VmaName>(at, view.vma.name));
  const auto window = field<uint64_t>(at, view.vma.window);
  if (window == 0) return vma;
  vma.file_offset = field<uint64_t>(window, view.window.file_offset) +
                    field<uint64_t>(at, view.vma.window_offset);
  char path[kPathMax] = {};
  load(window + view.window.path, path);
  path[kPathMax - 1] = 0;
  if (vma.name.empty()) vma.name = path;
  return vma;
}

std::vector<VmaView> KernelReader::read_vmas(const KernelView& view, const SpaceView& space) const {
  std::vector<VmaView> vmas;
  uint64_t at = space.first_vma;
  uint64_t end = 0;
  for (; at != 0 && vmas.size() < kVmasMax; at = field<uint64_t>(at, view.vma.next)) {
    VmaView vma = read_vma(view, at);
    if (vma.begin < end || vma.end <= vma.begin) break;  // it was changed meanwhile
    end = vma.end;
    vmas.push_back(std::move(vma));
  }
  return vmas;
}

std::vector<VmaView> KernelReader::vmas(const SpaceView& space) const {
  const auto found = view();
  if (!found) return {};
  return read_steadily([&] { return read_vmas(*found, space); });
}

const SpaceView* find_space(const std::vector<SpaceView>& spaces, uint64_t root) {
  if (root == 0) return spaces.empty() ? nullptr : &spaces.back();
  for (const SpaceView& space : spaces) {
    if (space.root == root) return &space;
  }
  return nullptr;
}

}  // namespace dbos::vmm

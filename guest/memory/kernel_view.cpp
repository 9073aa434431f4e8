#include "guest/memory/kernel_view.h"

#include <cstddef>

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/platform.h"
#include "guest/snapshot/line.h"

namespace dbos {

void FrameAllocator::publish(KernelView& view) const {
  const auto single = [](const void* number) { return Gauge{reinterpret_cast<u64>(number), 0, 1}; };
  const auto of_each_cache = [](const i64* number) {
    return Gauge{reinterpret_cast<u64>(number), sizeof(Cache), kVcpuCountMax};
  };
  view.gauge(GaugeName::kFramesTotal) = single(&total_frames_);
  view.gauge(GaugeName::kFramesPages) = of_each_cache(&caches_[0].pages);
  view.gauge(GaugeName::kFramesNodes) = of_each_cache(&caches_[0].nodes);
  view.gauge(GaugeName::kFramesKernel) = of_each_cache(&caches_[0].kernel);
  view.gauge(GaugeName::kRetiredPages) = single(&retired_pages_);
  view.gauge(GaugeName::kRetiredNodes) = single(&retired_nodes_);
}

void WindowObject::publish(KernelView& view) {
  static_assert(sizeof path_ == 256);
  view.window.path = offsetof(WindowObject, path_);
  view.window.file_offset = offsetof(WindowObject, file_) + offsetof(FileIdentity, offset);
}

void VmaTree::publish(KernelView& view, u32 offset) {
  view.space.first_vma = offset + offsetof(VmaTree, first_);
}

void PageTree::publish(KernelView& view, u32 offset) {
  view.space.root = offset + offsetof(PageTree, root_);
  view.space.pages = offset + offsetof(PageTree, counts_) + offsetof(PageCounts, anonymous);
  view.space.nodes = offset + offsetof(PageTree, counts_) + offsetof(PageCounts, nodes);
}

void AddressSpace::publish(KernelView& view) {
  static_assert(sizeof is_copy_ == sizeof(uint8_t));
  view.space.next = offsetof(AddressSpace, next_space_);
  view.space.line = offsetof(AddressSpace, line_);
  view.space.copied_pages = offsetof(AddressSpace, copied_pages_);
  view.space.is_copy = offsetof(AddressSpace, is_copy_);
  VmaTree::publish(view, offsetof(AddressSpace, vmas_));
  PageTree::publish(view, offsetof(AddressSpace, tree_));
}

namespace {

void publish_vmas(KernelView& view) {
  static_assert(sizeof(Vma::protection) == sizeof(uint8_t));
  view.vma.next = offsetof(Vma, next);
  view.vma.begin = offsetof(Vma, range) + offsetof(VirtualRange, begin);
  view.vma.end = offsetof(Vma, range) + offsetof(VirtualRange, end);
  view.vma.protection = offsetof(Vma, protection);
  view.vma.kind = offsetof(Vma, kind);
  view.vma.name = offsetof(Vma, name);
  view.vma.window = offsetof(Vma, window);
  view.vma.window_offset = offsetof(Vma, window_offset);
}

}  // namespace

void publish_kernel_view() {
  auto& view = *pointer_to<KernelView>(PhysicalAddress(kKernelViewAddress));
  frame_allocator.publish(view);
  publish_lines(view);
  AddressSpace::publish(view);
  publish_vmas(view);
  WindowObject::publish(view);
  AddressSpace::publish_list(view);
  __atomic_store_n(&view.version, kKernelViewVersion, __ATOMIC_RELEASE);
}

}  // namespace dbos
